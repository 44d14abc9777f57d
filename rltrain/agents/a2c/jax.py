"""A2C in JAX (Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", the synchronous form)."""

from typing import Any

import jax.numpy as jnp
import optax

from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.learners.jax import Learner
from rltrain.agents.on_policy.jax import EPSILON, Batch, OnPolicy, State
from rltrain.agents.pure.jax import Metrics
from rltrain.ops import losses
from rltrain.structures import Progress

METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/grad_norm")


class A2C(OnPolicy):
    """Takes one step up the policy gradient per rollout."""

    config = A2CConfig

    def make_learners(self, own: dict[str, Any]) -> dict[str, Learner]:
        """Return the one learner, with the optimiser that the settings say."""
        rms = optax.scale_by_rms(decay=0.99, eps=EPSILON, initial_scale=1.0, eps_in_sqrt=False)
        kind = {"adam": None, "rmsprop": rms}[self.cfg.optimizer]
        return {"actor_critic": Learner(self.networks, more=own, optimizer=kind, epsilon=EPSILON)}

    def improve(self, state: State, batch: Batch, progress: Progress) -> tuple[State, Metrics]:
        """Step down the mean of L = -log p(a) A + value_scale (V - R)^2 - entropy_scale H, on all rows at once."""
        cfg = self.cfg
        state = state._replace(learning_rate=self.now("learning_rate", progress))
        entropy_scale = self.now("entropy_scale", progress)

        # ---- gradient
        evaluation = self.evaluate(state, batch)
        error, value = losses.squared_error(jnp, evaluation.values, batch.values, batch.returns, None)
        shares = losses.shares(jnp, error, batch.weights)
        diagnostics = jnp.stack((-evaluation.log_probs * batch.advantages, error, evaluation.entropies)) @ shares
        gradients = losses.actor_critic_gradients(-batch.advantages, value, shares, cfg.value_scale, entropy_scale)
        # ---- step
        state, norm = self.descend(state, evaluation, gradients)
        means = jnp.append(diagnostics, norm)
        return state, dict(zip(METRICS, means, strict=True)) | self.report(state, batch)
