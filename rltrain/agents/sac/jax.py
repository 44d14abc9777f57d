"""SAC in JAX (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications"); for choices, Christodoulou 2019."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.agents.learners.jax import Learner
from rltrain.agents.off_policy.jax import Batch, OffPolicy, State, Tally, draw_in_range
from rltrain.agents.pure.protocol import LearnerState
from rltrain.agents.sac.config import SACConfig
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.jax import make_distribution
from rltrain.models.engines.jax import forward_and_vjp
from rltrain.models.networks.jax import VJP, Critics, Policy
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Acting, Array, Progress

GAUSSIAN = NetworkConfig(squashed=True, state_dependent_std=True)
CRITICS = 2
CHOICES_SHARE = 0.89  # of log n: the entropy that `auto` aims at among n choices


class EntropyCoefficient:
    """The logarithm of alpha, which learns."""

    def __init__(self, initial: float) -> None:
        self.initial = initial

    def init(self, key: Array) -> dict[str, Array]:
        """Return it by name."""
        return {"log_entropy_coefficient": jnp.array([math.log(self.initial)], jnp.float32)}


class SAC(OffPolicy):
    """Acts by a stochastic policy that climbs value + alpha x entropy. Actions are in units of half the action range."""

    config = SACConfig
    acts_with = "policy"

    def _build(self, action_space: Any) -> None:
        import gymnasium

        cfg = self.cfg
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        box = isinstance(action_space, gymnasium.spaces.Box) and np.issubdtype(action_space.dtype, np.floating)
        if not self.discrete and not box:
            raise ConfigError("env.action_space", action_space, "this agent acts in Discrete and Box spaces of floats; use ppo")
        if not self.discrete and not spaces.is_bounded(action_space):
            raise ConfigError("env.action_space", action_space, "this agent needs bounds on all sides; use ppo, or a wrapper")
        self.distribution = make_distribution(action_space, GAUSSIAN, f"{self.key}.network")
        encoder = self._make_encoder(self.inputs)
        size, actions = self._count_features(encoder, self.inputs), 0 if self.discrete else self.distribution.actions
        outputs = self.distribution.size if self.discrete else 1
        self.policy_network = self.acting = Policy(size, self.distribution.size, cfg.network, encoder)
        self.critic_network = Critics(CRITICS, size + actions, outputs, cfg.network, encoder, actions=actions)
        self.learners["policy"] = Learner(self.policy_network)
        self.learners["critics"] = Learner(self.critic_network, has_target=True)
        self.fixed_coefficient: Array | None = None
        if cfg.entropy_coefficient == "auto":
            self.learners["entropy"] = Learner(EntropyCoefficient(cfg.initial_entropy_coefficient))
        else:
            self.fixed_coefficient = np.array([cfg.entropy_coefficient], np.float32)
        natural = CHOICES_SHARE * float(np.log(self.distribution.size)) if self.discrete else -float(self.distribution.size // 2)
        self.target_entropy = natural if cfg.target_entropy == "auto" else float(cfg.target_entropy)

    # -- acting --------------------------------------------------------------------------------------------------------

    def _best(self, logits: Array) -> Array:
        return self._squashed(self.distribution.mode(logits))

    def _squashed(self, samples: Array) -> Array:
        return samples if self.discrete else xp_of(samples).tanh(samples)

    def _deviate(
        self, parameters: dict[str, Array], actor: Acting, inputs: Any, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        after, logits = self._look(parameters, actor, inputs, action_masks)
        return Acting(after.carry), self._squashed(self.distribution.sample(logits, actor.noise))

    def _draw_uniform(self, actor: Acting, action_masks: Array | None) -> Array:
        if not self.discrete:
            return draw_in_range(actor.noise)
        return self.distribution.sample(self._masked(actor.noise * np.float32(0), action_masks), actor.noise)

    def _to_environment(self, actions: Array) -> Array:
        return self.distribution.to_environment(actions) if self.discrete else self.distribution.scale(actions)

    # -- learning ------------------------------------------------------------------------------------------------------

    def improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
        """Step down the loss of Q(s, a) against r + gamma^k V(s'), then up V(s), then move alpha towards the target entropy.

        V(s) = E min_i Q_i(s, a) - alpha log p(a | s) over the policy's actions a: one of them, or all where they are choices.
        """
        coefficient, noise = self._coefficient(state), None
        if not self.discrete:
            state, noise = self._noise(state, (2, len(batch.returns), self.distribution.actions))
        # ---- critics
        next_values = self._next_values(state, batch, coefficient, None if noise is None else noise[0])
        targets = batch.returns + batch.discounts * next_values
        values, vjp = self._predict(state.learners["critics"], batch)
        state, diagnostics, differences = self._regress(state, "critics", values, vjp, targets, batch, rates["critics"])
        # ---- policy
        improve = self._improve_choices if self.discrete else self._improve_policy
        state, loss, norm, entropies = improve(state, batch, coefficient, None if noise is None else noise[1], rates["policy"])
        entropy = self.mean(entropies, batch)
        diagnostics |= {"loss/policy": loss, "policy/grad_norm": norm, "policy/entropy": entropy}
        # ---- entropy coefficient
        if "entropy" in self.learners:
            excess = entropy - self._target_entropy(batch)
            state, diagnostics["loss/entropy_coefficient"] = self._improve_coefficient(state, excess, rates["entropy"])
        diagnostics["policy/entropy_coefficient"] = coefficient[0]
        return state, Tally(diagnostics, {}, jnp.float32(0)), jnp.abs(differences).mean(0)

    def _coefficient(self, state: State) -> Array:
        """Return alpha, (1,)."""
        if self.fixed_coefficient is not None:
            return jnp.asarray(self.fixed_coefficient)
        return jnp.exp(state.learners["entropy"].parameters["log_entropy_coefficient"])

    def _next_values(self, state: State, batch: Batch, coefficient: Array, noise: Array | None) -> Array:
        """Return V(s') by the targets, (B,)."""
        target = state.learners["critics"].target
        logits = self._logits(state.learners["policy"].parameters, batch.next_inputs, batch.next_action_masks)
        if self.discrete:
            log_probs = jax.nn.log_softmax(logits)
            values = self.critic_network.values(target, batch.next_inputs).min(0)
            return (jnp.exp(log_probs) * (values - coefficient * log_probs)).sum(1)
        actions, log_probs = self.distribution.draw(logits, noise)
        return self.critic_network.values(target, batch.next_inputs, actions).min(0) - coefficient * log_probs

    def _predict(self, critics: LearnerState, batch: Batch) -> tuple[Array, VJP]:
        """Return Q of what was done, (C, B), and what takes its gradient and gives the critics'."""
        if not self.discrete:
            return self.critic_network.values_with_vjp(critics.parameters, batch.inputs, batch.actions)
        values, vjp = self.critic_network.values_with_vjp(critics.parameters, batch.inputs)
        chosen = lambda values: jnp.take_along_axis(values, batch.actions[None, :, None], 2)[:, :, 0]  # noqa: E731
        predicted, chosen_vjp = forward_and_vjp(chosen, values)
        return predicted, lambda gradients: vjp(chosen_vjp(gradients))

    def _improve_policy(
        self, state: State, batch: Batch, coefficient: Array, noise: Array, learning_rate: Array
    ) -> tuple[State, Array, Array, Array]:
        """Step down the mean of alpha log p(a) - min_i Q_i(s, a); return it, the gradient's norm and -log p(a), (B,)."""
        critics = state.learners["critics"].parameters

        def evaluate(parameters: dict[str, Array]) -> tuple[Array, Array]:
            actions, log_probs = self.distribution.draw(self._logits(parameters, batch.inputs, None), noise)
            return log_probs, self.critic_network.values(critics, batch.inputs, actions).min(0)

        (log_probs, values), vjp = forward_and_vjp(evaluate, state.learners["policy"].parameters)
        share = self.shares(batch)
        state, norm = self.descend(state, "policy", vjp, (coefficient * share, -share), learning_rate)
        return state, self.mean(coefficient * log_probs - values, batch), norm, -log_probs

    def _improve_choices(
        self, state: State, batch: Batch, coefficient: Array, noise: None, learning_rate: Array
    ) -> tuple[State, Array, Array, Array]:
        """Step down the mean of sum_a p(a) (alpha log p(a) - min_i Q_i(s, a)); return it, the norm and the entropies (B,)."""
        values = self.critic_network.values(state.learners["critics"].parameters, batch.inputs).min(0)

        def evaluate(parameters: dict[str, Array]) -> tuple[Array, Array]:
            log_probs = jax.nn.log_softmax(self._logits(parameters, batch.inputs, batch.action_masks))
            probs = jnp.exp(log_probs)
            return -(probs * log_probs).sum(1), (probs * values).sum(1)

        (entropies, gains), vjp = forward_and_vjp(evaluate, state.learners["policy"].parameters)
        share = self.shares(batch)
        state, norm = self.descend(state, "policy", vjp, (-coefficient * share, -share), learning_rate)
        return state, -self.mean(coefficient * entropies + gains, batch), norm, entropies

    def _target_entropy(self, batch: Batch) -> Any:
        """Return what alpha moves the entropy towards; of `auto` and masks, the mean of 0.89 log n of rows' n choices."""
        if batch.action_masks is None or not self.discrete or self.cfg.target_entropy != "auto":
            return self.target_entropy
        return CHOICES_SHARE * self.mean(jnp.log(batch.action_masks.sum(1).astype(jnp.float32)), batch)

    def _improve_coefficient(self, state: State, excess: Array, learning_rate: Array) -> tuple[State, Array]:
        """Step down log alpha x (entropy - target entropy); return that loss."""
        before = state.learners["entropy"]
        loss = before.parameters["log_entropy_coefficient"][0] * excess
        gradients = {"log_entropy_coefficient": excess.reshape(1)}
        after, _ = self.learners["entropy"].step(before, gradients, learning_rate, 0.0)
        return state._replace(learners={**state.learners, "entropy": after}), loss
