"""Double DQN's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.agents.dqn.config import DQNConfig


@dataclass
class DDQNConfig(DQNConfig):
    """Double deep Q-learning (van Hasselt et al. 2016): the network chooses the next action, its target says what it is worth."""
