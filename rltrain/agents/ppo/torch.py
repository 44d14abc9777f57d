"""PPO in PyTorch (Schulman et al. 2017, "Proximal policy optimization algorithms")."""

import numpy as np
import torch

from rltrain.agents.on_policy.torch import Batch, Evaluation, OnPolicy
from rltrain.agents.ppo.config import PPOConfig
from rltrain.memories.rollout.torch import Rollout
from rltrain.ops import losses, schedules
from rltrain.structures import Progress

METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "policy/clip_fraction", "policy/grad_norm")
KL = METRICS.index("policy/approx_kl")
DEFAULT_KL_TARGETS = {"epoch": 0.008, "minibatch": 0.01}


class PPO(OnPolicy):
    """Improves the clipped surrogate over several epochs of each rollout."""

    config = PPOConfig

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Batch:
        """Add what the policy said about the actions when it drew them."""
        batch = super()._prepare(rollout)
        if batch.outputs is None:
            logits = self._logits(batch.inputs, batch.action_masks)
        else:
            logits, batch.outputs = self._masked(batch.outputs, batch.action_masks), None
        batch.log_probs = self.distribution.log_prob(logits, batch.actions)
        if self.cfg.adapt_learning_rate == "minibatch":
            batch.statistics = self.distribution.statistics(logits)
        return batch

    def improve(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Take `minibatches` gradient steps in each epoch, as long as the policy stays near the one that acted."""
        cfg = self.cfg
        ratio_clip, entropy_scale = self.now("ratio_clip", progress), self.now("entropy_scale", progress)
        if cfg.adapt_learning_rate == "never":
            self.learning_rate = self.now("learning_rate", progress)
        steps: list[torch.Tensor] = []
        stopped = False
        for _ in range(cfg.epochs):
            # ---- shuffle
            order = torch.randperm(len(batch.returns) // self.sequence_length, generator=self.generator).to(batch.returns.device)
            kls = []
            for minibatch in batch.shuffle(order, cfg.minibatches, self.sequence_length):
                # ---- gradient
                evaluation = self.evaluate(minibatch)
                diagnostics, gradients = self._differentiate_loss(minibatch, evaluation, ratio_clip, entropy_scale)
                kls.append(diagnostics[KL])
                # ---- stop
                stopped = cfg.kl_stop is not None and bool(kls[-1] > cfg.kl_stop)
                if stopped:
                    break
                # ---- step
                if cfg.adapt_learning_rate == "minibatch":
                    self._adapt_learning_rate(self._exact_kl(minibatch, evaluation.logits))
                norm = self.descend(evaluation, gradients)
                steps.append(torch.cat((diagnostics, norm.view(1))))
            if cfg.adapt_learning_rate == "epoch":
                self._adapt_learning_rate(float(torch.stack(kls).mean()))
            if stopped:
                break
        means = torch.stack(steps).mean(0).tolist() if steps else []
        metrics = dict(zip(METRICS, means, strict=False)) | self.report(batch)
        if cfg.ratio_clip_schedule != "constant":
            metrics["policy/ratio_clip"] = ratio_clip
        if cfg.kl_stop is not None:
            metrics["policy/gradient_steps"] = len(steps)
        return metrics

    def _differentiate_loss(
        self, minibatch: Batch, evaluation: Evaluation, ratio_clip: float, entropy_scale: float
    ) -> tuple[torch.Tensor, losses.Gradients]:
        """Differentiate the mean of L = -min(r A, clip(r, 1 - c, 1 + c) A) + value_scale (V - R)^2 - entropy_scale H.

        Returns diagnostics (5,) in the order of METRICS, and the gradients with respect to what the networks say.
        """
        cfg = self.cfg
        log_ratios = evaluation.log_probs - minibatch.log_probs  # type: ignore[operator]
        ratios = log_ratios.exp()
        surrogate, policy = losses.clipped_surrogate(torch, ratios, minibatch.advantages, ratio_clip)
        error, value = losses.squared_error(torch, evaluation.values, minibatch.values, minibatch.returns, cfg.value_clip)
        shares = losses.shares(torch, surrogate, minibatch.weights)
        kl = losses.approximate_kl(ratios, log_ratios)
        clipped = (ratios - 1).abs() > ratio_clip
        diagnostics = torch.stack((surrogate, error, evaluation.entropies, kl, clipped.float())) @ shares
        return diagnostics, losses.actor_critic_gradients(policy, value, shares, cfg.value_scale, entropy_scale)

    @torch.no_grad()
    def _exact_kl(self, minibatch: Batch, logits: torch.Tensor) -> float:
        """Return the mean of KL(old, new) over the rows that happened."""
        assert minibatch.statistics is not None
        kl = self.distribution.kl(minibatch.statistics, self.distribution.statistics(logits))
        return float(losses.mean(torch, kl, minibatch.weights))

    def _adapt_learning_rate(self, kl: float) -> None:
        """Keep the KL near its target by the learning rate."""
        target = self.cfg.kl_target or DEFAULT_KL_TARGETS[self.cfg.adapt_learning_rate]
        self.learning_rate = float(schedules.adapted(np, self.learning_rate, kl, target))

    def _restored_learning_rate(self, learning_rate: float) -> float:
        """An adapted learning rate is state."""
        return self.cfg.learning_rate if self.cfg.adapt_learning_rate == "never" else learning_rate

    def _count_gradient_steps(self) -> int:
        return self.cfg.epochs * self.cfg.minibatches
