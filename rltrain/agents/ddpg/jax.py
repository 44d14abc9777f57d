"""DDPG in JAX (Lillicrap et al. 2016, "Continuous control with deep reinforcement learning")."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.agents.learners.jax import Learner
from rltrain.agents.off_policy.jax import Batch, Diagnostics, OffPolicy, State, Tally, draw_in_range
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.jax import Gaussian
from rltrain.models.engines.jax import forward_and_vjp
from rltrain.models.networks.jax import Critics, Policy
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Acting, Array, Progress


class DDPG(OffPolicy):
    """Acts by tanh of a network, plus noise; the policy climbs the critic. Actions are in units of half the action range."""

    config = DDPGConfig
    acts_with = "policy"
    critics = 1

    def _build(self, action_space: Any) -> None:
        import gymnasium

        if not isinstance(action_space, gymnasium.spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
            raise ConfigError("env.action_space", action_space, "this agent acts in Box spaces of floats; use dqn, sac or ppo")
        if not spaces.is_bounded(action_space):
            raise ConfigError("env.action_space", action_space, "this agent needs bounds on all sides; use ppo, or a wrapper")
        self.distribution = Gaussian(action_space, NetworkConfig())  # for its units
        cfg, actions, encoder = self.cfg, self.distribution.actions, self._make_encoder(self.inputs)
        size = self._count_features(encoder, self.inputs)
        self.policy_network = self.acting = Policy(size, actions, cfg.network, encoder)
        self.critic_network = Critics(self.critics, size + actions, 1, cfg.network, encoder, actions=actions)
        self.learners["policy"] = Learner(self.policy_network, has_target=True)
        self.learners["critics"] = Learner(self.critic_network, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_noise(self, num_envs: int) -> Array | None:
        """Return the noise that drifts from timestep to timestep, (N, A), where it does."""
        drifts = self.cfg.noise == "ornstein_uhlenbeck"
        return np.zeros((num_envs, self.distribution.actions), np.float32) if drifts else None

    def acting_noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return kind and shape of the random numbers that one step of acting takes."""
        return "normal", (num_envs, self.distribution.actions)

    def _complete(self, outputs: Array, parameters: dict[str, Array]) -> Array:
        return outputs

    def _best(self, logits: Array) -> Array:
        return xp_of(logits).tanh(logits)

    def _deviate(
        self, parameters: dict[str, Array], actor: Acting, inputs: Any, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        after, logits = self._look(parameters, actor, inputs, action_masks)
        actions = self._best(logits)
        if self.cfg.noise == "none":
            return Acting(after.carry), actions
        after, noise = self._draw_noise(after, self._noise_scale(progress))
        return after, (actions + noise).clip(-1, 1)

    def _draw_noise(self, actor: Acting, scale: Array) -> tuple[Acting, Array]:
        """Return noise (N, A): scale x normal, or x <- x - theta x dt + scale sqrt(dt) x normal (Uhlenbeck, Ornstein 1930)."""
        carry, normal = actor
        noise = carry[-1] if self.remembers else carry
        if noise is None:
            return Acting(carry), normal * scale
        step = self.cfg.noise_time_step
        noise = noise * np.float32(1 - self.cfg.noise_decay * step) + normal * (scale * np.float32(math.sqrt(step)))
        return Acting((*carry[:-1], noise) if self.remembers else noise), noise

    def _noise_scale(self, progress: Progress) -> Array:
        """Return the noise's scale in a timestep."""
        return self.now("noise_scale", progress, 1)

    def _draw_uniform(self, actor: Acting, action_masks: Array | None) -> Array:
        return draw_in_range(actor.noise)

    def _to_environment(self, actions: Array) -> Array:
        return self.distribution.scale(actions)

    # -- learning ------------------------------------------------------------------------------------------------------

    def improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
        """Step down the loss of Q(s, a) against r + gamma^k min_i Q_i_target(s', a'), then up Q_0(s, policy(s))."""
        # ---- critics
        state, next_actions = self._next_actions(state, batch)
        next_values = self.critic_network.values(state.learners["critics"].target, batch.next_inputs, next_actions).min(0)
        targets = batch.returns + batch.discounts * next_values
        learner = state.learners["critics"]
        values, vjp = self.critic_network.values_with_vjp(learner.parameters, batch.inputs, batch.actions)
        state, diagnostics, differences = self._regress(state, "critics", values, vjp, targets, batch, rates["critics"])
        # ---- policy
        moves, errors = self._step_moves_targets(state), jnp.abs(differences).mean(0)
        if moves is True:
            state, some = self._improve_policy(state, batch, rates["policy"])
            return state, Tally(diagnostics, some, jnp.float32(1)), errors

        def improve() -> tuple[Any, Diagnostics]:
            after, some = self._improve_policy(state, batch, rates["policy"])
            return after.learners["policy"], some

        none = dict.fromkeys(("loss/policy", "policy/grad_norm"), jnp.float32(0))
        learner, some = jax.lax.cond(moves, improve, lambda: (state.learners["policy"], none))
        state = state._replace(learners={**state.learners, "policy": learner})
        return state, Tally(diagnostics, some, jnp.asarray(moves, jnp.float32)), errors

    def _next_actions(self, state: State, batch: Batch) -> tuple[State, Array]:
        """Return the target policy's actions at the successors, (B, A)."""
        return state, jnp.tanh(self.policy_network.logits(state.learners["policy"].target, batch.next_inputs))

    def _improve_policy(self, state: State, batch: Batch, learning_rate: Array) -> tuple[State, Diagnostics]:
        """Step down the mean of -Q_0(s, policy(s))."""
        policy, critics = state.learners["policy"].parameters, state.learners["critics"].parameters
        logits, policy_vjp = self.policy_network.logits_with_vjp(policy, batch.inputs)
        actions, tanh_vjp = forward_and_vjp(jnp.tanh, logits)
        values, critic_vjp = self.critic_network.values_with_vjp(critics, batch.inputs, actions, to_actions=True, count=1)
        vjp = lambda gradients: policy_vjp(tanh_vjp(critic_vjp(gradients)))  # noqa: E731
        state, norm = self.descend(state, "policy", vjp, -self.shares(batch)[None], learning_rate)
        return state, {"loss/policy": -self.mean(values, batch), "policy/grad_norm": norm}

    def report(self, progress: Progress) -> Diagnostics:
        """Return the metrics that don't belong to single gradient steps, with the noise's scale."""
        return super().report(progress) | {"policy/noise_scale": self._noise_scale(progress)}
