"""SAC in PyTorch (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications"); for choices, Christodoulou 2019."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from rltrain import spaces
from rltrain.agents.learners.torch import Learner
from rltrain.agents.off_policy.torch import Batch, Diagnostics, OffPolicy, choose_uniform, draw_in_range
from rltrain.agents.sac.config import SACConfig
from rltrain.backends.torch import Actor
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.torch import make_distribution
from rltrain.models.engines.torch import VJP
from rltrain.models.networks.torch import Critics, Policy
from rltrain.structures import Progress

GAUSSIAN = NetworkConfig(squashed=True, state_dependent_std=True)
CRITICS = 2
CHOICES_SHARE = 0.89  # of log n: the entropy that `auto` aims at among n choices


class EntropyCoefficient(nn.Module):
    """The logarithm of alpha, which learns."""

    def __init__(self, initial: float, device: torch.device) -> None:
        super().__init__()
        self.log_entropy_coefficient = nn.Parameter(torch.tensor([math.log(initial)], device=device))


class SAC(OffPolicy):
    """Acts by a stochastic policy that climbs value + alpha x entropy. Actions are in units of half the action range."""

    config = SACConfig

    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        import gymnasium

        cfg, device = self.cfg, self.backend.device
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        box = isinstance(action_space, gymnasium.spaces.Box) and np.issubdtype(action_space.dtype, np.floating)
        if not self.discrete and not box:
            raise ConfigError("env.action_space", action_space, "this agent acts in Discrete and Box spaces of floats; use ppo")
        if not self.discrete and not spaces.is_bounded(action_space):
            raise ConfigError("env.action_space", action_space, "this agent needs bounds on all sides; use ppo, or a wrapper")
        self.distribution = make_distribution(action_space, GAUSSIAN, device, f"{self.key}.network")
        encoders = [self._make_encoder(self.inputs, generator) for _ in range(2)]
        size, actions = self._count_features(encoders[0], self.inputs), 0 if self.discrete else self.distribution.actions
        outputs = self.distribution.size if self.discrete else 1
        policy = self.acting = Policy(size, self.distribution.size, cfg.network, generator, device, encoders[0])
        critics = Critics(CRITICS, size + actions, outputs, cfg.network, generator, device, encoders[1], actions=actions)
        self.learners["policy"] = Learner(policy, cfg.learning_rate, device)
        self.learners["critics"] = Learner(critics, cfg.learning_rate, device, has_target=True)
        self.fixed_coefficient: torch.Tensor | None = None
        if cfg.entropy_coefficient == "auto":
            coefficient = EntropyCoefficient(cfg.initial_entropy_coefficient, device)
            self.learners["entropy"] = Learner(coefficient, cfg.learning_rate, device)
        else:
            self.fixed_coefficient = torch.tensor([cfg.entropy_coefficient], device=device)
        natural = CHOICES_SHARE * float(np.log(self.distribution.size)) if self.discrete else -float(self.distribution.size // 2)
        self.target_entropy = natural if cfg.target_entropy == "auto" else float(cfg.target_entropy)

    # -- acting --------------------------------------------------------------------------------------------------------

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return self._squashed(self.distribution.mode(logits))

    def _squashed(self, samples: torch.Tensor) -> torch.Tensor:
        return samples if self.discrete else torch.tanh(samples)

    def _deviate(
        self, actor: Actor, inputs: Any, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        actor, logits = self._look(actor, inputs, action_masks)
        samples = self.distribution.sample(logits, actor.generator)
        return actor, self._squashed(samples)

    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        if self.discrete:
            return choose_uniform(count, self.distribution.size, action_masks, actor.generator)
        return draw_in_range((count, self.distribution.actions), actor.generator)

    def _to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        return self.distribution.to_environment(actions) if self.discrete else self.distribution.scale(actions)

    # -- learning ------------------------------------------------------------------------------------------------------

    def improve(self, batch: Batch, rates: dict[str, float]) -> tuple[Diagnostics, torch.Tensor]:
        """Step down the loss of Q(s, a) against r + gamma^k V(s'), then up V(s), then move alpha towards the target entropy.

        V(s) = E min_i Q_i(s, a) - alpha log p(a | s) over the policy's actions a: one of them, or all where they are choices.
        """
        coefficient = self._coefficient()
        # ---- critics
        learner = self.learners["critics"]
        with torch.no_grad():
            targets = batch.returns + batch.discounts * self._next_values(learner, batch, coefficient)
            values, vjp = self._predict(learner, batch)
        diagnostics, differences = self._regress("critics", values, vjp, targets, batch, rates["critics"])
        # ---- policy
        improve = self._improve_choices if self.discrete else self._improve_policy
        loss, norm, entropies = improve(batch, coefficient, rates["policy"])
        entropy = self.mean(entropies, batch)
        diagnostics |= {"loss/policy": loss, "policy/grad_norm": norm, "policy/entropy": entropy}
        # ---- entropy coefficient
        if "entropy" in self.learners:
            excess = entropy - self._target_entropy(batch)
            diagnostics["loss/entropy_coefficient"] = self._improve_coefficient(excess, rates["entropy"])
        diagnostics["policy/entropy_coefficient"] = coefficient[0]
        return diagnostics, differences.abs().mean(0)

    @torch.no_grad()
    def _coefficient(self) -> torch.Tensor:
        """Return alpha, (1,)."""
        if self.fixed_coefficient is not None:
            return self.fixed_coefficient
        return self.learners["entropy"].network.log_entropy_coefficient.exp()

    def _next_values(self, critics: Learner, batch: Batch, coefficient: torch.Tensor) -> torch.Tensor:
        """Return V(s') by the targets, (B,)."""
        logits = self._logits(batch.next_inputs, batch.next_action_masks)
        if self.discrete:
            log_probs = torch.log_softmax(logits, 1)
            values = critics.target.values(batch.next_inputs).amin(0)
            return (log_probs.exp() * (values - coefficient * log_probs)).sum(1)
        actions, log_probs = self.distribution.draw(logits, self._noise((len(logits), self.distribution.actions)))
        return critics.target.values(batch.next_inputs, actions).amin(0) - coefficient * log_probs

    def _predict(self, critics: Learner, batch: Batch) -> tuple[torch.Tensor, VJP]:
        """Return Q of what was done, (C, B), and what takes its gradient and adds the parameters' to the critics' `grad`."""
        if not self.discrete:
            return critics.network.values_with_vjp(batch.inputs, batch.actions)
        values, vjp = critics.network.values_with_vjp(batch.inputs)
        chosen = batch.actions[None, :, None].expand(CRITICS, -1, 1)
        scatter = lambda gradients: torch.zeros_like(values).scatter_(2, chosen, gradients[:, :, None])  # noqa: E731
        return values.gather(2, chosen)[:, :, 0], lambda gradients: vjp(scatter(gradients))

    def _improve_policy(self, batch: Batch, coefficient: torch.Tensor, learning_rate: float) -> tuple[torch.Tensor, ...]:
        """Step down the mean of alpha log p(a) - min_i Q_i(s, a); return it, the gradient's norm and -log p(a), (B,)."""
        policy, critics = self.learners["policy"], self.learners["critics"]
        logits, policy_vjp = policy.network.logits_with_vjp(batch.inputs)
        with torch.enable_grad():
            actions, log_probs = self.distribution.draw(
                logits.requires_grad_(), self._noise((len(logits), self.distribution.actions))
            )
        values, critics_vjp = critics.network.values_with_vjp(batch.inputs, actions.detach(), to_actions=True)
        with torch.enable_grad():
            least = values.requires_grad_().amin(0)
        share = self.shares(batch)

        def vjp(gradients: tuple[torch.Tensor, torch.Tensor]) -> None:
            to_log_probs, to_least = gradients
            least.backward(to_least)
            torch.autograd.backward((log_probs, actions), (to_log_probs, critics_vjp(values.grad)))
            policy_vjp(logits.grad)

        norm = self.descend("policy", vjp, (coefficient * share, -share), learning_rate)
        entropies = -log_probs.detach()
        return -self.mean(coefficient * entropies + least.detach(), batch), norm, entropies

    def _improve_choices(self, batch: Batch, coefficient: torch.Tensor, learning_rate: float) -> tuple[torch.Tensor, ...]:
        """Step down the mean of sum_a p(a) (alpha log p(a) - min_i Q_i(s, a)); return it, the norm and the entropies (B,)."""
        policy, critics = self.learners["policy"], self.learners["critics"]
        values = critics.network.values(batch.inputs).amin(0)
        logits, policy_vjp = policy.network.logits_with_vjp(batch.inputs)
        with torch.enable_grad():
            log_probs = torch.log_softmax(self._masked(logits.requires_grad_(), batch.action_masks), 1)
            probs = log_probs.exp()
            entropies = -(probs * log_probs).sum(1)
            gains = (probs * values).sum(1)
        share = self.shares(batch)

        def vjp(gradients: tuple[torch.Tensor, torch.Tensor]) -> None:
            torch.autograd.backward((entropies, gains), gradients)
            policy_vjp(logits.grad)

        norm = self.descend("policy", vjp, (-coefficient * share, -share), learning_rate)
        entropies = entropies.detach()
        return -self.mean(coefficient * entropies + gains.detach(), batch), norm, entropies

    def _target_entropy(self, batch: Batch) -> Any:
        """Return what alpha moves the entropy towards; of `auto` and masks, the mean of 0.89 log n of rows' n choices."""
        if batch.action_masks is None or not self.discrete or self.cfg.target_entropy != "auto":
            return self.target_entropy
        return CHOICES_SHARE * self.mean(batch.action_masks.sum(1).log(), batch)

    @torch.no_grad()
    def _improve_coefficient(self, excess: torch.Tensor, learning_rate: float) -> torch.Tensor:
        """Step down log alpha x (entropy - target entropy); return that loss."""
        learner = self.learners["entropy"]
        loss = learner.network.log_entropy_coefficient[0] * excess
        learner.parameters.clear_gradients()
        learner.network.log_entropy_coefficient.grad.copy_(excess.view(1))
        learner.step(learning_rate, 0.0)
        return loss
