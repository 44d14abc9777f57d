"""How a network's outputs and gradients are computed in JAX, where an algorithm asks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rltrain.models.sequences import is_sequences
from rltrain.structures import Array

BLOCK = 1024  # rows of which an encoder makes features at once where nothing is learned: a rollout's would not fit


def infer(network: Any, parameters: dict[str, Array], inputs: Any) -> Array:
    """Return outputs (B, F) of which no gradient will be asked; an encoder makes features of BLOCK rows at a time."""
    rows = jax.tree.leaves(inputs)[0].shape[0]
    if network.encoder is None or is_sequences(inputs) or not isinstance(rows, int) or rows <= BLOCK:
        return network.forward(parameters, inputs)
    whole = rows // BLOCK * BLOCK
    blocks = jax.tree.map(lambda array: array[:whole].reshape(-1, BLOCK, *array.shape[1:]), inputs)
    outputs = jax.lax.map(lambda block: network.forward(parameters, block), blocks)
    outputs = outputs.reshape(whole, -1)
    if whole == rows:
        return outputs
    rest = jax.tree.map(lambda array: array[whole:], inputs)
    return jnp.concatenate((outputs, network.forward(parameters, rest)))


def forward_and_vjp(function: Callable[[Any], Any], argument: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a function's outputs, and what takes a loss's gradient with respect to them and gives the argument's."""
    outputs, vjp = jax.vjp(function, argument)
    return outputs, lambda gradients: vjp(gradients)[0]
