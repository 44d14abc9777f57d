"""Double DQN in JAX (van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning")."""

import jax.numpy as jnp

from rltrain.agents.ddqn.config import DDQNConfig
from rltrain.agents.dqn.jax import DQN
from rltrain.agents.off_policy.jax import Batch
from rltrain.agents.pure.protocol import LearnerState
from rltrain.structures import Array


class DDQN(DQN):
    """DQN whose network chooses the next action and whose target says what it is worth."""

    config = DDQNConfig

    def _next_values(self, learner: LearnerState, batch: Batch) -> Array:
        """Return what the successors are worth, (B,): the target's value of the network's choice."""
        chosen = self._choose(learner.parameters, batch.next_inputs, batch.next_action_masks)
        return jnp.take_along_axis(self.network.values(learner.target, batch.next_inputs), chosen[:, None], 1)[:, 0]
