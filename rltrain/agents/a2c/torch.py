"""A2C in PyTorch (Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", the synchronous form)."""

import torch

from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.on_policy.torch import OPTIMIZER_EPSILON, Batch, OnPolicy
from rltrain.ops import losses
from rltrain.optimizers.torch import Adam, RMSProp
from rltrain.structures import Progress

METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/grad_norm")


class A2C(OnPolicy):
    """Takes one step up the policy gradient per rollout."""

    config = A2CConfig

    def _make_optimizer(self) -> Adam | RMSProp:
        optimizer = {"adam": Adam, "rmsprop": RMSProp}[self.cfg.optimizer]
        return optimizer(self.parameters, self.cfg.learning_rate, epsilon=OPTIMIZER_EPSILON)

    def _improve(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Step down the mean of L = -log p(a) A + value_scale (V - R)^2 - entropy_scale H, on all rows at once."""
        cfg = self.cfg
        self.optimizer.learning_rate = self._now("learning_rate", progress)
        entropy_scale = self._now("entropy_scale", progress)
        # ---- gradient
        evaluation = self._evaluate(batch)
        with torch.no_grad():
            error, value = losses.squared_error(torch, evaluation.values, batch.values, batch.returns, None)
            shares = losses.shares(torch, error, batch.weights)
            entropies = evaluation.entropies.expand_as(error)
            diagnostics = torch.stack((-evaluation.log_probs * batch.advantages, error, entropies)) @ shares
            gradients = losses.actor_critic_gradients(-batch.advantages, value, shares, cfg.value_scale, entropy_scale)
        norm = self._differentiate(evaluation, gradients)
        # ---- step
        self.optimizer.step()
        means = torch.cat((diagnostics, norm.view(1))).tolist()
        return dict(zip(METRICS, means, strict=True)) | self._report(batch)
