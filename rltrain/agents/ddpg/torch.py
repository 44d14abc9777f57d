"""DDPG in PyTorch (Lillicrap et al. 2016, "Continuous control with deep reinforcement learning")."""

import math
from typing import Any

import numpy as np
import torch

from rltrain import spaces
from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.agents.off_policy.learners.torch import Batch, Diagnostics, Learner
from rltrain.agents.off_policy.torch import Actor, OffPolicy
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.torch import Gaussian
from rltrain.models.encoders.torch import features
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
        actions, encoders = self.distribution.actions, [self._encoder(generator) for _ in range(2)]
        size = features(encoders[0], self.inputs)
        policy = Policy(size, actions, cfg.network, generator, device, encoders[0])
        critics = Critics(self.critics, size + actions, 1, cfg.network, generator, device, encoders[1])
        self.learners["policy"] = Learner(policy, cfg.learning_rate, device, has_target=True)
        self.learners["critics"] = Learner(critics, cfg.learning_rate, device, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return a fresh actor with a random stream of its own, and noise of its own where that drifts."""
        actor = super().init_actor(num_envs, seed)
        if self.cfg.noise == "ornstein_uhlenbeck":
            actor.noise = torch.zeros(num_envs, self.distribution.actions, device=self.backend.device)
        return actor

    def _logits(self, inputs: torch.Tensor, action_masks: torch.Tensor | None) -> torch.Tensor:
        return self.learners["policy"].network.logits(inputs)

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.tanh(logits)

    def _explore(self, actor: Actor, inputs: torch.Tensor, action_masks: torch.Tensor | None, progress: Progress) -> torch.Tensor:
        actions = self._choose(inputs, action_masks)
        if self.cfg.noise == "none":
            return actions
        return (actions + self._draw_noise(actor, actions, self._noise_scale(progress))).clamp_(-1, 1)

    def _draw_noise(self, actor: Actor, actions: torch.Tensor, scale: float) -> torch.Tensor:
        """Return noise (N, A): scale x normal, or x <- x - theta x dt + scale sqrt(dt) x normal (Uhlenbeck, Ornstein 1930)."""
        cfg = self.cfg
        normal = torch.empty_like(actions).normal_(generator=actor.generator)
        if actor.noise is None:
            return normal.mul_(scale)
        step = cfg.noise_time_step
        return actor.noise.mul_(1 - cfg.noise_decay * step).add_(normal, alpha=scale * math.sqrt(step))

    def _noise_scale(self, progress: Progress) -> float:
        """Return the noise's scale in a timestep."""
        return self._now("noise_scale", progress, 1)

    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        shape = (count, self.distribution.actions)
        return torch.rand(shape, generator=actor.generator, device=self.backend.device).mul_(2).sub_(1)

    def _to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        return self.distribution.scale(actions)

    # -- learning ------------------------------------------------------------------------------------------------------

    def _improve(self, batch: Batch) -> tuple[Diagnostics, torch.Tensor]:
        """Step down the loss of Q(s, a) against r + gamma^k min_i Q_i_target(s', a'), then up Q_0(s, policy(s))."""
        # ---- critics
        learner = self.learners["critics"]
        with torch.no_grad():
            next_values = learner.target.values(batch.next_inputs, self._next_actions(batch)).amin(0)
            targets = batch.returns + batch.discounts * next_values
            values, vjp = learner.network.values_with_vjp(batch.inputs, batch.actions)
        differences = values - targets
        found = self._regress(learner, values, vjp, differences, batch) | {"value/target_mean": targets.mean()}
        # ---- policy
        if self._step_moves_targets():
            found |= self._improve_policy(batch)
        return found, differences.abs().mean(0)

    def _next_actions(self, batch: Batch) -> torch.Tensor:
        """Return the target policy's actions at the successors, (B, A)."""
        return torch.tanh(self.learners["policy"].target.logits(batch.next_inputs))

    @torch.no_grad()
    def _improve_policy(self, batch: Batch) -> Diagnostics:
        """Step down the mean of -Q_0(s, policy(s))."""
        policy, critics = self.learners["policy"], self.learners["critics"]
        logits, policy_vjp = policy.network.logits_with_vjp(batch.inputs)
        actions = torch.tanh(logits)
        values, critic_vjp = critics.network.values_with_vjp(batch.inputs, actions, to_actions=True, count=1)

        def vjp(gradients: torch.Tensor) -> None:
            policy_vjp(torch.ops.aten.tanh_backward(critic_vjp(gradients), actions))

        norm = policy.step(vjp, torch.full_like(values, -1 / values.shape[1]), self.cfg.grad_norm_clip)
        return {"loss/policy": -values.mean(), "policy/grad_norm": norm}

    def _report(self, progress: Progress, replay_ratio: float) -> dict[str, float]:
        return super()._report(progress, replay_ratio) | {"policy/noise_scale": self._noise_scale(progress)}
