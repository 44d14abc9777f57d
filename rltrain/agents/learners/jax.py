"""What learns in JAX: networks with their optimiser and, where the algorithm has one, a target that follows them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rltrain.optimizers.jax import descend
from rltrain.structures import Array


class LearnerState(NamedTuple):
    """What a learner carries."""

    parameters: dict[str, Array]
    optimizer: Any  # optax's
    target: Any  # parameters, or None


class Learner:
    """A network that learns: its parameters, their optimiser and, with `has_target`, a target that follows them.

    `more` are parameters by name that learn along.
    """

    def __init__(
        self,
        network: Any,
        *,
        optimizer: optax.GradientTransformation | None = None,
        epsilon: float = 1e-8,
        has_target: bool = False,
        more: dict[str, Any] | None = None,
    ) -> None:
        self.network, self.has_target, self.more = network, has_target, more or {}
        self.optimizer = optimizer or optax.scale_by_adam(eps=epsilon)
        self.frozen: frozenset[str] = frozenset()  # names of parameters that don't learn

    def init(self, key: Array) -> LearnerState:
        """Return fresh parameters and what belongs to them."""
        parameters = {**self.network.init(key), **{name: jnp.asarray(array) for name, array in self.more.items()}}
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
