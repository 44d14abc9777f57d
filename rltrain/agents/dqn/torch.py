"""DQN in PyTorch (Mnih et al. 2015, "Human-level control through deep reinforcement learning")."""

from typing import Any

import numpy as np
import torch

from rltrain.agents.dqn.config import DQNConfig
from rltrain.agents.learners.torch import Learner
from rltrain.agents.off_policy.torch import Batch, Diagnostics, OffPolicy, choose_uniform
from rltrain.backends.torch import Actor
from rltrain.errors import ConfigError
from rltrain.models.distributions.torch import Categorical
from rltrain.models.networks.torch import QNetwork
from rltrain.ops import schedules
from rltrain.structures import Progress, count_rows


class DQN(OffPolicy):
    """Acts by the choice of highest value, or at random with probability epsilon; learns values from the target's."""

    config = DQNConfig

    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        import gymnasium

        if not isinstance(action_space, gymnasium.spaces.Discrete):
            remedy = "use sac, td3 or ddpg for a Box of floats, ppo for any space"
            raise ConfigError("env.action_space", action_space, f"this agent acts in Discrete spaces; {remedy}")
        cfg, device = self.cfg, self.backend.device
        self.distribution = Categorical(action_space)
        encoder = self._make_encoder(self.inputs, generator)
        size = self._count_features(encoder, self.inputs)
        network = self.acting = QNetwork(size, self.distribution.size, cfg.network, generator, device, encoder)
        self.learners["q"] = Learner(network, cfg.learning_rate, device, has_target=True)

    # -- acting --------------------------------------------------------------------------------------------------------

    def _best(self, values: torch.Tensor) -> torch.Tensor:
        if values.is_cuda or torch.compiler.is_compiling():
            return values.argmax(1)
        return torch.from_numpy(values.detach().numpy().argmax(1))  # a fifth of the time

    def _deviate(
        self, actor: Actor, inputs: Any, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        count = count_rows(inputs)
        noise = torch.rand(count, generator=actor.generator, device=self.backend.device)
        uniform = self._draw_uniform(actor, count, action_masks)
        random = self.backend.to_numpy(noise) < self._epsilon(progress)
        at_random = np.count_nonzero(random)
        if at_random == count and not self.remembers:
            return actor, uniform
        actor, values = self._look(actor, inputs, action_masks)
        chosen = self._best(values)
        return actor, torch.where(self.backend.asarray(random), uniform, chosen) if at_random else chosen

    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        return choose_uniform(count, self.distribution.size, action_masks, actor.generator)

    def _epsilon(self, progress: Progress) -> float:
        """Return the probability of a random action: from `epsilon` to `epsilon_end` over the first part of the horizon."""
        cfg = self.cfg
        done = min(1.0, schedules.fraction(np, progress, 1) / cfg.exploration_fraction)
        end = cfg.epsilon_end / cfg.epsilon if cfg.epsilon else 0.0
        return float(schedules.scheduled(np, cfg.epsilon_schedule, cfg.epsilon, end, done))

    # -- learning ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def improve(self, batch: Batch, rates: dict[str, float]) -> tuple[Diagnostics, torch.Tensor]:
        """Step down the loss of Q(s, a) against r + gamma^k max_a' Q_target(s', a')."""
        learner = self.learners["q"]
        targets = batch.returns + batch.discounts * self._next_values(learner, batch)
        outputs, outputs_vjp = learner.network.values_with_vjp(batch.inputs)
        actions = batch.actions[:, None]
        values = outputs.gather(1, actions)[:, 0]

        def vjp(gradients: torch.Tensor) -> None:
            outputs_vjp(torch.zeros_like(outputs).scatter_(1, actions, gradients[0, :, None]))

        diagnostics, differences = self._regress("q", values[None], vjp, targets, batch, rates["q"])
        return diagnostics, differences[0]

    def _next_values(self, learner: Learner, batch: Batch) -> torch.Tensor:
        """Return what the successors are worth, (B,): the target's highest value."""
        return self._masked(learner.target.values(batch.next_inputs), batch.next_action_masks).amax(1)

    def report(self, progress: Progress, replay_ratio: float) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps, with epsilon."""
        return super().report(progress, replay_ratio) | {"policy/epsilon": self._epsilon(progress)}
