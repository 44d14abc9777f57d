"""A step down a gradient in JAX, by any of optax's optimisers."""

from collections.abc import Set
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rltrain.structures import Array

Parameters = dict[str, Array]


def descend(
    optimizer: optax.GradientTransformation,
    state: Any,
    parameters: Parameters,
    gradients: Parameters,
    *,
    learning_rate: Array,
    max_norm: float,
    frozen: Set[str] = frozenset(),
) -> tuple[Parameters, Any, Array]:
    """Take one step down the gradient, scaled to at most `max_norm` (0: as it is); leave `frozen` ones where they are.

    Return the parameters, the optimiser's state and the gradient's norm before, to which frozen ones add nothing.
    """
    if frozen:
        gradients = {name: jnp.zeros_like(own) if name in frozen else own for name, own in gradients.items()}
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradients)))
    if max_norm > 0:
        scale = jnp.minimum(max_norm / (norm + 1e-6), 1.0)
        gradients = jax.tree.map(lambda g: g * scale, gradients)
    updates, state = optimizer.update(gradients, state, parameters)
    moved = jax.tree.map(lambda p, u: p - learning_rate * u, parameters, updates)
    if frozen:
        moved = {name: parameters[name] if name in frozen else own for name, own in moved.items()}
    return moved, state, norm
