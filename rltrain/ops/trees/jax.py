"""Arrays by name, and arrays that may be NumPy's, in JAX."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain.ops import normalizers
from rltrain.structures import Array

Parameters = dict[str, Array]


def xp_of(*arrays: Array) -> ModuleType:
    """Return NumPy, if all arrays are NumPy's, else jax.numpy."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def choose(condition: Array, chosen: Any, other: Any) -> Any:
    """Return the first tree where a condition () holds, else the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def zeros_like(function: Any, *arguments: Any) -> Any:
    """Return zeros of the form that a function of these arguments gives."""
    return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(function, *arguments))


def part(parameters: Parameters, name: str) -> Parameters:
    """Return the parameters of one part of a network, by their names in it."""
    return {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}


def prefixed(name: str, parameters: Parameters) -> Parameters:
    """Return parameters by their names in what has them as its part `name`."""
    return {f"{name}.{key}": value for key, value in parameters.items()}


def fitted(parameters: Parameters, arrays: dict[str, np.ndarray]) -> Parameters:
    """Return the arrays that parameters were kept as, on the device.

    Raises ValueError if one is missing or has another shape.
    """
    for name, parameter in parameters.items():
        if name not in arrays:
            raise ValueError(f"{name} is not there; it has {', '.join(list(arrays)[:3])}, ...")
        if arrays[name].shape != parameter.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} there and {parameter.shape} here")
    return {name: jnp.array(arrays[name]) for name in parameters}


def to_arrays(arrays: Any) -> dict[str, np.ndarray]:
    """Return moments, or parameters by name, as they are kept."""
    arrays = arrays._asdict() if isinstance(arrays, normalizers.Moments) else arrays
    return {name: np.array(array) for name, array in arrays.items()}


def to_moments(arrays: dict[str, np.ndarray]) -> normalizers.Moments:
    """Return moments as they were."""
    return normalizers.Moments(**{name: jnp.array(array) for name, array in arrays.items()})
