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
        """Step down the gradient of -log p(a) A + value_scale x value loss - entropy_scale x entropy, on all rows at once."""
        cfg = self.cfg
        self.optimizer.learning_rate = self._now("learning_rate", progress)
        entropy_scale = self._now("entropy_scale", progress)
        # ---- gradient
        _, log_probs, entropies, values = self._evaluate(batch)
        with torch.no_grad():
            error, value_slope = losses.squared_error(torch, values, batch.values, batch.returns, None)
            shares = losses.shares(torch, error, batch.weights)
            diagnostics = torch.stack((-log_probs * batch.advantages, error, entropies.expand_as(error))) @ shares
        slopes = (-batch.advantages * shares, value_slope * (cfg.value_scale * shares), -entropy_scale * shares)
        norm = self._descend((log_probs, values, entropies), slopes)
        # ---- step
        self.optimizer.step()
        means = torch.cat((diagnostics, norm.view(1))).tolist()
        return dict(zip(METRICS, means, strict=True)) | self._report(batch)
