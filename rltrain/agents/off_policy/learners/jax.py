"""What learns in JAX: the state, a learner, a batch, what gradient steps report."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rltrain.ops import normalizers
from rltrain.optimizers.jax import descend
from rltrain.structures import Array

Diagnostics = dict[str, Array]  # each (), by tag


class Tally(NamedTuple):
    """Diagnostics of gradient steps, added up."""

    every: Diagnostics  # those that every step has
    some: Diagnostics  # those of the policy where it moves more rarely
    count: Array  # () steps that had these


class LearnerState(NamedTuple):
    """What a learner carries."""

    parameters: dict[str, Array]
    optimizer: Any  # optax's
    target: Any  # parameters, or None


class State(NamedTuple):
    """Everything that learning carries, but for the memory."""

    learners: dict[str, LearnerState]
    observation_moments: normalizers.Moments
    key: Array  # of noise in learning, and of what is drawn from a memory on the device
    folded: Array  # () timesteps recorded on the device that the observations' statistics know
    gradient_steps: Array  # () in all


class Policy(NamedTuple):
    """The part of it that acting needs."""

    parameters: dict[str, Array]
    observation_moments: normalizers.Moments


class Batch(NamedTuple):
    """Transitions, ready to learn from."""

    inputs: Array  # (B, O) normalised
    next_inputs: Array  # (B, O) normalised, k steps later
    actions: Array  # (B, A), or (B,) choices
    returns: Array  # (B,) sums of k rewards
    discounts: Array  # (B,) gamma^k, 0 where the episode terminated
    weights: Array | None  # (B,) importance weights, or None: all alike
    next_action_masks: Array | None  # (B, M) bool, or None: all are allowed
    action_masks: Array | None  # (B, M) bool, or None


class Learner:
    """A network that learns: its parameters, their optimiser and, where the algorithm has one, a target that follows them."""

    def __init__(self, network: Any, *, has_target: bool = False) -> None:
        self.network, self.has_target = network, has_target
        self.optimizer = optax.scale_by_adam()
        self.frozen: frozenset[str] = frozenset()  # names of parameters that don't learn

    def init(self, key: Array) -> LearnerState:
        """Return fresh parameters and what belongs to them."""
        parameters = self.network.init(key)
        target = jax.tree.map(jnp.copy, parameters) if self.has_target else None
        return LearnerState(parameters, self.optimizer.init(parameters), target)

    def step(
        self, state: LearnerState, gradients: dict[str, Array], learning_rate: Array, max_norm: float
    ) -> tuple[LearnerState, Array]:
        """Take one step down the gradient; return the gradient's norm."""
        parameters, optimizer, norm = descend(
            self.optimizer,
            state.optimizer,
            state.parameters,
            gradients,
            learning_rate=learning_rate,
            max_norm=max_norm,
            frozen=self.frozen,
        )
        return state._replace(parameters=parameters, optimizer=optimizer), norm

    def move_target(self, state: LearnerState, share: float) -> LearnerState:
        """Move the target: target <- target + share (network - target)."""
        if not self.has_target:
            return state
        target = jax.tree.map(lambda t, p: p if share == 1 else t + share * (p - t), state.target, state.parameters)
        return state._replace(target=target)
