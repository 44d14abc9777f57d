"""Double DQN in PyTorch (van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning")."""

import torch

from rltrain.agents.ddqn.config import DDQNConfig
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.learners.torch import Learner
from rltrain.agents.off_policy.torch import Batch


class DDQN(DQN):
    """DQN whose network chooses the next action and whose target says what it is worth."""

    config = DDQNConfig

    def _next_values(self, learner: Learner, batch: Batch) -> torch.Tensor:
        """Return what the successors are worth, (B,): the target's value of the network's choice."""
        chosen = self._choose(batch.next_inputs, batch.next_action_masks)
        return learner.target.values(batch.next_inputs).gather(1, chosen[:, None])[:, 0]
