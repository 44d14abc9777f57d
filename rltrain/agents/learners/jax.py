"""What learns in JAX: networks with their optimiser and, where the algorithm has one, a target that follows them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rltrain.agents.pure.protocol import LearnerState
from rltrain.ops.trees.jax import fitted, to_arrays
from rltrain.optimizers.jax import descend
from rltrain.structures import Array


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

    def snapshot(self, state: LearnerState) -> tuple[dict[str, np.ndarray], list[np.ndarray], dict[str, np.ndarray] | None]:
        """Return parameters, optimiser and target, if there is one, as they are kept."""
        optimizer = [np.array(leaf) for leaf in jax.tree.leaves(state.optimizer)]
        return to_arrays(state.parameters), optimizer, to_arrays(state.target) if self.has_target else None

    def restore(self, state: LearnerState, parameters: dict[str, np.ndarray], optimizer: Any, target: Any) -> LearnerState:
        """Return the state with these put back; where there is no optimiser, only the parameters, with a target that is a copy.

        Raises ValueError if they don't fit.
        """
        after = state._replace(parameters=fitted(state.parameters, parameters))
        if self.has_target:
            after = after._replace(target=fitted(state.parameters, parameters if target is None else target))
        if optimizer is None:
            return after
        leaves, structure = jax.tree.flatten(state.optimizer)
        if len(leaves) != len(optimizer):
            raise ValueError("the optimizer there is of another kind")
        return after._replace(optimizer=jax.tree.unflatten(structure, [jnp.array(leaf) for leaf in optimizer]))
