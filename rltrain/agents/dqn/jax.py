"""DQN in JAX (Mnih et al. 2015, "Human-level control through deep reinforcement learning")."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from rltrain.agents.dqn.config import DQNConfig
from rltrain.agents.off_policy.jax import OffPolicy, choose_uniform
from rltrain.agents.off_policy.learners.jax import Batch, Diagnostics, Learner, LearnerState, State, Tally
from rltrain.errors import ConfigError
from rltrain.models.distributions.jax import MASKED, Categorical
from rltrain.models.encoders.jax import features
from rltrain.models.networks.jax import QNetwork
from rltrain.ops import schedules
from rltrain.structures import Array, Progress


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
        encoder = self._encoder()
        self.network = QNetwork(features(encoder, self.inputs), self.distribution.size, self.cfg.network, encoder)
        self.learners["q"] = Learner(self.network, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return the kind and shape of the random numbers that one step of acting takes: explore or not, and what."""
        return "uniform", (num_envs, 2)

    def _logits(self, parameters: dict[str, Array], inputs: Array, action_masks: Array | None) -> Array:
        return _masked(self.network.values(parameters, inputs), action_masks)

    def _best(self, values: Array) -> Array:
        return values.argmax(1)

    def _explore(
        self, parameters: dict[str, Array], carried: Array | None, noise: Array, inputs: Array, action_masks: Array | None,
        progress: Progress,
    ) -> tuple[Array | None, Array]:  # fmt: skip
        random = noise[:, 0] < self._epsilon(progress)
        uniform, chosen = self._draw_uniform(noise, action_masks), self._choose(parameters, inputs, action_masks)
        return carried, (np if isinstance(inputs, np.ndarray) else jnp).where(random, uniform, chosen)

    def _draw_uniform(self, noise: Array, action_masks: Array | None) -> Array:
        return choose_uniform(self.distribution.size, noise[:, 1], action_masks)

    def _to_environment(self, actions: Array) -> Array:
        return self.distribution.to_environment(actions)

    def _epsilon(self, progress: Progress) -> Any:
        """Return the probability of a random action: from `epsilon` to `epsilon_end` over the first part of the horizon."""
        cfg, xp = self.cfg, np if isinstance(progress.timestep, int) else jnp
        done = schedules.fraction(xp, progress, 1) / cfg.exploration_fraction
        done = min(1.0, done) if xp is np else jnp.minimum(1.0, done)
        end = cfg.epsilon_end / cfg.epsilon if cfg.epsilon else 0.0
        return xp.float32(schedules.scheduled(xp, cfg.epsilon_schedule, cfg.epsilon, end, done))

    # -- learning ------------------------------------------------------------------------------------------------------

    def _improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
        """Step down the loss of Q(s, a) against r + gamma^k max_a' Q_target(s', a')."""

        def values(parameters: dict[str, Array]) -> Array:
            found = self.network.values(parameters, batch.inputs)
            return jnp.take_along_axis(found, batch.actions[:, None], 1)[:, 0][None]

        targets = batch.returns + batch.discounts * self._next_values(state.learners["q"], batch)
        state, found, differences = self._regress(state, "q", values, targets, batch, rates["q"])
        return state, Tally(found, {}, jnp.float32(0)), differences[0]

    def _next_values(self, learner: LearnerState, batch: Batch) -> Array:
        """Return what the successors are worth, (B,): the target's highest value."""
        return _masked(self.network.values(learner.target, batch.next_inputs), batch.next_action_masks).max(1)

    def _report(self, progress: Progress) -> Diagnostics:
        return super()._report(progress) | {"policy/epsilon": self._epsilon(progress)}


def _masked(values: Array, masks: Array | None) -> Array:
    if masks is None:
        return values
    return (np if isinstance(values, np.ndarray) else jnp).where(masks, values, np.float32(MASKED))
