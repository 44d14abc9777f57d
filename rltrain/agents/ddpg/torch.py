"""DDPG in PyTorch (Lillicrap et al. 2016, "Continuous control with deep reinforcement learning")."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rltrain import spaces
from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.agents.learners.torch import Learner
from rltrain.agents.off_policy.torch import Batch, Diagnostics, OffPolicy, draw_in_range
from rltrain.backends.torch import Actor
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.torch import Gaussian
from rltrain.models.networks.torch import Critics, Policy
from rltrain.structures import Progress


class DDPG(OffPolicy):
    """Acts by tanh of a network, plus noise; the policy climbs the critic. Actions are in units of half the action range."""

    config = DDPGConfig
    critics = 1

    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        import gymnasium

        if not isinstance(action_space, gymnasium.spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
            raise ConfigError("env.action_space", action_space, "this agent acts in Box spaces of floats; use dqn, sac or ppo")
        if not spaces.is_bounded(action_space):
            raise ConfigError("env.action_space", action_space, "this agent needs bounds on all sides; use ppo, or a wrapper")
        cfg, device = self.cfg, self.backend.device
        self.distribution = Gaussian(action_space, NetworkConfig(), device)  # for its units
        actions, encoders = self.distribution.actions, [self._make_encoder(self.inputs, generator) for _ in range(2)]
        size = self._count_features(encoders[0], self.inputs)
        policy = self.acting = Policy(size, actions, cfg.network, generator, device, encoders[0])
        critics = Critics(self.critics, size + actions, 1, cfg.network, generator, device, encoders[1], actions=actions)
        self.learners["policy"] = Learner(policy, cfg.learning_rate, device, has_target=True)
        self.learners["critics"] = Learner(critics, cfg.learning_rate, device, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_noise(self, num_envs: int) -> torch.Tensor | None:
        """Return the noise that drifts from timestep to timestep, (N, A), where it does."""
        drifts = self.cfg.noise == "ornstein_uhlenbeck"
        return torch.zeros(num_envs, self.distribution.actions, device=self.backend.device) if drifts else None

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.tanh(logits)

    def _deviate(
        self, actor: Actor, inputs: Any, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        actor, logits = self._look(actor, inputs, action_masks)
        actions = self._best(logits)
        if self.cfg.noise == "none":
            return actor, actions
        actor, noise = self._draw_noise(actor, actions, self._noise_scale(progress))
        return actor, (actions + noise).clamp_(-1, 1)

    def _draw_noise(self, actor: Actor, actions: torch.Tensor, scale: float) -> tuple[Actor, torch.Tensor]:
        """Return noise (N, A): scale x normal, or x <- x - theta x dt + scale sqrt(dt) x normal (Uhlenbeck, Ornstein 1930)."""
        normal = torch.empty_like(actions).normal_(generator=actor.generator)
        noise = actor.carry[-1] if self.remembers else actor.carry
        if noise is None:
            return actor, normal.mul_(scale)
        step = self.cfg.noise_time_step
        noise = noise * (1 - self.cfg.noise_decay * step)
        noise = noise.add_(normal, alpha=scale * math.sqrt(step))
        return replace(actor, carry=(*actor.carry[:-1], noise) if self.remembers else noise), noise

    def _noise_scale(self, progress: Progress) -> float:
        """Return the noise's scale in a timestep."""
        return self.now("noise_scale", progress, 1)

    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        return draw_in_range((count, self.distribution.actions), actor.generator)

    def _to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        return self.distribution.scale(actions)

    # -- learning ------------------------------------------------------------------------------------------------------

    def improve(self, batch: Batch, rates: dict[str, float]) -> tuple[Diagnostics, torch.Tensor]:
        """Step down the loss of Q(s, a) against r + gamma^k min_i Q_i_target(s', a'), then up Q_0(s, policy(s))."""
        # ---- critics
        learner = self.learners["critics"]
        with torch.no_grad():
            next_values = learner.target.values(batch.next_inputs, self._next_actions(batch)).amin(0)
            targets = batch.returns + batch.discounts * next_values
            values, vjp = learner.network.values_with_vjp(batch.inputs, batch.actions)
        diagnostics, differences = self._regress("critics", values, vjp, targets, batch, rates["critics"])
        # ---- policy
        if self._step_moves_targets():
            diagnostics |= self._improve_policy(batch, rates["policy"])
        return diagnostics, differences.abs().mean(0)

    def _next_actions(self, batch: Batch) -> torch.Tensor:
        """Return the target policy's actions at the successors, (B, A)."""
        return torch.tanh(self.learners["policy"].target.logits(batch.next_inputs))

    @torch.no_grad()
    def _improve_policy(self, batch: Batch, learning_rate: float) -> Diagnostics:
        """Step down the mean of -Q_0(s, policy(s))."""
        policy, critics = self.learners["policy"], self.learners["critics"]
        logits, policy_vjp = policy.network.logits_with_vjp(batch.inputs)
        actions = torch.tanh(logits)
        values, critic_vjp = critics.network.values_with_vjp(batch.inputs, actions, to_actions=True, count=1)

        def vjp(gradients: torch.Tensor) -> None:
            policy_vjp(torch.ops.aten.tanh_backward(critic_vjp(gradients), actions))

        norm = self.descend("policy", vjp, -self.shares(batch)[None], learning_rate)
        return {"loss/policy": -self.mean(values, batch), "policy/grad_norm": norm}

    def report(self, progress: Progress, replay_ratio: float) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps, with the noise's scale."""
        return super().report(progress, replay_ratio) | {"policy/noise_scale": self._noise_scale(progress)}
