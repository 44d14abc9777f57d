"""PPO in JAX (Schulman et al. 2017, "Proximal policy optimization algorithms")."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rltrain.agents.on_policy.jax import Batch, Evaluation, OnPolicy, State
from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.pure.jax import Metrics
from rltrain.memories.rollout.jax import Rollout
from rltrain.ops import losses, schedules
from rltrain.ops.orders.jax import random_order
from rltrain.ops.trees.jax import choose
from rltrain.structures import Array, Progress

METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "policy/clip_fraction", "policy/grad_norm")
KL = METRICS.index("policy/approx_kl")
DEFAULT_KL_TARGETS = {"epoch": 0.008, "minibatch": 0.01}


class Improvement(NamedTuple):
    """What the gradient steps of one update carry."""

    state: State
    stopped: Array  # () bool
    sums: Array  # (6,) of METRICS over the steps taken
    steps: Array  # () taken


class PPO(OnPolicy):
    """Improves the clipped surrogate over several epochs of each rollout."""

    config = PPOConfig

    def _prepare(self, state: State, rollout: Rollout) -> tuple[State, Batch]:
        """Add what the policy said about the actions when it drew them."""
        state, batch = super()._prepare(state, rollout)
        parameters = self.policy(state).parameters
        if batch.outputs is None:
            logits = self._logits(parameters, batch.inputs, batch.action_masks)
        else:
            logits = self._masked(self.distribution.complete(batch.outputs, parameters), batch.action_masks)
            batch = batch._replace(outputs=None)
        batch = batch._replace(log_probs=self.distribution.log_prob(logits, batch.actions))
        if self.cfg.adapt_learning_rate == "minibatch":
            batch = batch._replace(statistics=self.distribution.statistics(logits))
        return state, batch

    def improve(self, state: State, batch: Batch, progress: Progress) -> tuple[State, Metrics]:
        """Take `minibatches` gradient steps in each epoch, as long as the policy stays near the one that acted."""
        cfg = self.cfg
        ratio_clip, entropy_scale = self.now("ratio_clip", progress), self.now("entropy_scale", progress)
        if cfg.adapt_learning_rate == "never":
            state = state._replace(learning_rate=self.now("learning_rate", progress))
        sequences = len(batch.returns) // self.sequence_length

        def learn_minibatch(carry: Improvement, minibatch: Batch) -> tuple[Improvement, tuple[Array, Array]]:
            before = carry
            # ---- gradient
            evaluation = self.evaluate(carry.state, minibatch)
            diagnostics, gradients = self._differentiate_loss(minibatch, evaluation, ratio_clip, entropy_scale)
            # ---- stop
            stopped = carry.stopped
            if cfg.kl_stop is not None:
                stopped = stopped | (diagnostics[KL] > cfg.kl_stop)
            # ---- step
            state = carry.state
            if cfg.adapt_learning_rate == "minibatch":
                state = self._adapt_learning_rate(state, self._exact_kl(minibatch, evaluation.logits))
            state, norm = self.descend(state, evaluation, gradients)
            diagnostics = jnp.append(diagnostics, norm)
            carry = Improvement(state, stopped, carry.sums + diagnostics, carry.steps + 1)
            if cfg.kl_stop is not None:
                carry = choose(stopped, before._replace(stopped=stopped), carry)
            return carry, (diagnostics[KL], ~before.stopped)

        def learn_epoch(carry: Improvement, key: Array) -> tuple[Improvement, None]:
            # ---- shuffle
            order = random_order(key, sequences)
            stopped_before, kls, looked_at = carry.stopped, [], []
            for minibatches in batch.shuffle(order, cfg.minibatches, self.sequence_length):
                carry, (kl, looked) = jax.lax.scan(learn_minibatch, carry, minibatches)
                kls.append(kl)
                looked_at.append(looked)
            if cfg.adapt_learning_rate == "epoch":
                kl = losses.mean(jnp, jnp.concatenate(kls), jnp.concatenate(looked_at))
                adapted = self._adapt_learning_rate(carry.state, kl)
                carry = carry._replace(state=choose(stopped_before, carry.state, adapted))
            return carry, None

        keys = jax.random.split(state.key, 1 + cfg.epochs)
        state = state._replace(key=keys[0])
        start = Improvement(state, jnp.bool_(False), jnp.zeros(len(METRICS)), jnp.int32(0))
        end, _ = jax.lax.scan(learn_epoch, start, keys[1:])
        means = end.sums / jnp.maximum(end.steps, 1)
        metrics = dict(zip(METRICS, means, strict=True)) | self.report(end.state, batch)
        if cfg.ratio_clip_schedule != "constant":
            metrics["policy/ratio_clip"] = ratio_clip
        if cfg.kl_stop is not None:
            metrics["policy/gradient_steps"] = end.steps
        return end.state, metrics

    def _differentiate_loss(
        self, minibatch: Batch, evaluation: Evaluation, ratio_clip: Array, entropy_scale: Array
    ) -> tuple[Array, losses.Gradients]:
        """Differentiate the mean of L = -min(r A, clip(r, 1 - c, 1 + c) A) + value_scale (V - R)^2 - entropy_scale H.

        Returns diagnostics (5,) in the order of METRICS, and the gradients with respect to what the networks say.
        """
        cfg = self.cfg
        log_ratios = evaluation.log_probs - minibatch.log_probs
        ratios = jnp.exp(log_ratios)
        surrogate, policy = losses.clipped_surrogate(jnp, ratios, minibatch.advantages, ratio_clip)
        error, value = losses.squared_error(jnp, evaluation.values, minibatch.values, minibatch.returns, cfg.value_clip)
        shares = losses.shares(jnp, surrogate, minibatch.weights)
        kl = losses.approximate_kl(ratios, log_ratios)
        clipped = jnp.abs(ratios - 1) > ratio_clip
        diagnostics = jnp.stack((surrogate, error, evaluation.entropies, kl, clipped.astype(jnp.float32))) @ shares
        return diagnostics, losses.actor_critic_gradients(policy, value, shares, cfg.value_scale, entropy_scale)

    def _exact_kl(self, minibatch: Batch, logits: Array) -> Array:
        """Return the mean of KL(old, new) over the rows that happened."""
        kl = self.distribution.kl(minibatch.statistics, self.distribution.statistics(logits))
        return losses.mean(jnp, kl, minibatch.weights)

    def _adapt_learning_rate(self, state: State, kl: Array) -> State:
        """Keep the KL near its target by the learning rate."""
        target = self.cfg.kl_target or DEFAULT_KL_TARGETS[self.cfg.adapt_learning_rate]
        return state._replace(learning_rate=schedules.adapted(jnp, state.learning_rate, kl, target))

    def _restored_learning_rate(self, learning_rate: float) -> Array:
        """An adapted learning rate is state."""
        return jnp.float32(self.cfg.learning_rate if self.cfg.adapt_learning_rate == "never" else learning_rate)

    def _count_gradient_steps(self) -> int:
        return self.cfg.epochs * self.cfg.minibatches
