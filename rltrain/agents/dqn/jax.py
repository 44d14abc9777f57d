"""DQN in JAX (Mnih et al. 2015, "Human-level control through deep reinforcement learning")."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from rltrain.agents.dqn.config import DQNConfig
from rltrain.agents.learners.jax import Learner
from rltrain.agents.off_policy.jax import Batch, Diagnostics, OffPolicy, State, Tally, choose_uniform
from rltrain.agents.pure.protocol import LearnerState
from rltrain.errors import ConfigError
from rltrain.models.distributions.jax import Categorical
from rltrain.models.engines.jax import forward_and_vjp
from rltrain.models.networks.jax import QNetwork
from rltrain.ops import schedules
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Acting, Array, Progress


class DQN(OffPolicy):
    """Acts by the choice of highest value, or at random with probability epsilon; learns values from the target's."""

    config = DQNConfig
    acts_with = "q"

    def _build(self, action_space: Any) -> None:
        import gymnasium

        if not isinstance(action_space, gymnasium.spaces.Discrete):
            remedy = "use sac, td3 or ddpg for a Box of floats, ppo for any space"
            raise ConfigError("env.action_space", action_space, f"this agent acts in Discrete spaces; {remedy}")
        self.distribution = Categorical(action_space)
        encoder = self._make_encoder(self.inputs)
        size = self._count_features(encoder, self.inputs)
        self.network = self.acting = QNetwork(size, self.distribution.size, self.cfg.network, encoder)
        self.learners["q"] = Learner(self.network, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def acting_noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return kind and shape of the random numbers that one step of acting takes: explore or not, and what."""
        return "uniform", (num_envs, 2)

    def _best(self, values: Array) -> Array:
        return values.argmax(1)

    def _deviate(
        self, parameters: dict[str, Array], actor: Acting, inputs: Any, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        random = actor.noise[:, 0] < self._epsilon(progress)
        uniform = self._draw_uniform(actor, action_masks)
        after, values = self._look(parameters, actor, inputs, action_masks)
        return Acting(after.carry), xp_of(actor.noise).where(random, uniform, self._best(values))

    def _draw_uniform(self, actor: Acting, action_masks: Array | None) -> Array:
        return choose_uniform(self.distribution.size, actor.noise[:, 1], action_masks)

    def _epsilon(self, progress: Progress) -> Any:
        """Return the probability of a random action: from `epsilon` to `epsilon_end` over the first part of the horizon."""
        cfg, xp = self.cfg, np if isinstance(progress.timestep, int) else jnp
        done = schedules.fraction(xp, progress, 1) / cfg.exploration_fraction
        done = min(1.0, done) if xp is np else jnp.minimum(1.0, done)
        end = cfg.epsilon_end / cfg.epsilon if cfg.epsilon else 0.0
        return xp.float32(schedules.scheduled(xp, cfg.epsilon_schedule, cfg.epsilon, end, done))

    # -- learning ------------------------------------------------------------------------------------------------------

    def improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
        """Step down the loss of Q(s, a) against r + gamma^k max_a' Q_target(s', a')."""
        learner = state.learners["q"]
        targets = batch.returns + batch.discounts * self._next_values(learner, batch)
        outputs, outputs_vjp = self.network.values_with_vjp(learner.parameters, batch.inputs)
        chosen = lambda outputs: jnp.take_along_axis(outputs, batch.actions[:, None], 1)[:, 0][None]  # noqa: E731
        values, values_vjp = forward_and_vjp(chosen, outputs)
        vjp = lambda gradients: outputs_vjp(values_vjp(gradients))  # noqa: E731
        state, diagnostics, differences = self._regress(state, "q", values, vjp, targets, batch, rates["q"])
        return state, Tally(diagnostics, {}, jnp.float32(0)), differences[0]

    def _next_values(self, learner: LearnerState, batch: Batch) -> Array:
        """Return what the successors are worth, (B,): the target's highest value."""
        return self._masked(self.network.values(learner.target, batch.next_inputs), batch.next_action_masks).max(1)

    def report(self, progress: Progress) -> Diagnostics:
        """Return the metrics that don't belong to single gradient steps, with epsilon."""
        return super().report(progress) | {"policy/epsilon": self._epsilon(progress)}
