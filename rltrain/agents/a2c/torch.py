"""A2C in PyTorch (Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", the synchronous form)."""

from typing import Any

import torch

from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.learners.torch import Learner
from rltrain.agents.on_policy.torch import EPSILON, Batch, OnPolicy
from rltrain.ops import losses
from rltrain.optimizers.torch import Adam, RMSProp
from rltrain.structures import Progress

METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/grad_norm")


class A2C(OnPolicy):
    """Takes one step up the policy gradient per rollout."""

    config = A2CConfig

    def make_learners(self, own: dict[str, Any]) -> dict[str, Learner]:
        """Return the one learner, with the optimiser that the settings say."""
        cfg, device = self.cfg, self.backend.device
        kind: Any = {"adam": Adam, "rmsprop": RMSProp}[cfg.optimizer]
        learner = Learner(self.networks, cfg.learning_rate, device, more=own, optimizer=kind, epsilon=EPSILON)
        return {"actor_critic": learner}

    def improve(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Step down the mean of L = -log p(a) A + value_scale (V - R)^2 - entropy_scale H, on all rows at once."""
        cfg = self.cfg
        self.learning_rate = self.now("learning_rate", progress)
        entropy_scale = self.now("entropy_scale", progress)
        # ---- gradient
        evaluation = self.evaluate(batch)
        error, value = losses.squared_error(torch, evaluation.values, batch.values, batch.returns, None)
        shares = losses.shares(torch, error, batch.weights)
        diagnostics = torch.stack((-evaluation.log_probs * batch.advantages, error, evaluation.entropies)) @ shares
        gradients = losses.actor_critic_gradients(-batch.advantages, value, shares, cfg.value_scale, entropy_scale)
        # ---- step
        norm = self.descend(evaluation, gradients)
        means = torch.cat((diagnostics, norm.view(1))).tolist()
        return dict(zip(METRICS, means, strict=True)) | self.report(batch)
