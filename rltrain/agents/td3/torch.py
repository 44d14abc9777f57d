"""TD3 in PyTorch (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods")."""

import torch

from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.off_policy.torch import Batch
from rltrain.agents.td3.config import TD3Config


class TD3(DDPG):
    """DDPG with the lesser of two critics, a policy and targets that move more rarely, and noise in the target's actions."""

    config = TD3Config
    critics = 2

    def _next_actions(self, batch: Batch) -> torch.Tensor:
        """Return the target policy's actions at the successors with clipped noise, (B, A)."""
        cfg, actions = self.cfg, super()._next_actions(batch)
        noise = self._noise(actions.shape).mul_(cfg.target_noise)
        return (actions + noise.clamp_(-cfg.target_noise_clip, cfg.target_noise_clip)).clamp_(-1, 1)

    def _step_moves_targets(self) -> bool:
        """Tell whether this gradient step is one in `policy_delay`."""
        return self.gradient_steps % self.cfg.policy_delay == 0
