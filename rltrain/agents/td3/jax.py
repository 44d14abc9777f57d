"""TD3 in JAX (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods")."""

import jax.numpy as jnp

from rltrain.agents.ddpg.jax import DDPG
from rltrain.agents.off_policy.jax import Batch, State
from rltrain.agents.td3.config import TD3Config
from rltrain.structures import Array


class TD3(DDPG):
    """DDPG with the lesser of two critics, a policy and targets that move more rarely, and noise in the target's actions."""

    config = TD3Config
    critics = 2

    def _next_actions(self, state: State, batch: Batch) -> tuple[State, Array]:
        """Return the target policy's actions at the successors with clipped noise, (B, A)."""
        state, actions = super()._next_actions(state, batch)
        state, noise = self._noise(state, actions.shape)
        cfg = self.cfg
        noise = jnp.clip(noise * cfg.target_noise, -cfg.target_noise_clip, cfg.target_noise_clip)
        return state, jnp.clip(actions + noise, -1, 1)

    def _step_moves_targets(self, state: State) -> bool | Array:
        """Tell whether this gradient step is one in `policy_delay`."""
        return True if self.cfg.policy_delay == 1 else state.gradient_steps % self.cfg.policy_delay == 0
