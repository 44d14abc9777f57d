"""Spaces by their leaves. A composite observation (Dict, Tuple, nested) travels as a flat dict of arrays by path.

`{"goal": {"x": a}, "image": b}` becomes `{"goal/x": a, "image": b}`, the tuple `(a, b)` becomes `{"0": a, "1": b}`; an array
stays an array. So everything between environment and network sees an array or one dict of arrays, whatever the nesting.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from rltrain.errors import ConfigError
from rltrain.structures import Array, Arrays

NO_BOUND = 9.9e36  # bounds from here on (1e37 as float32 too) are no range to act in


def leaves(space: Any) -> dict[str, Any]:
    """Return the leaf spaces by path; {"": space} for a space that isn't composite.

    Raises ConfigError if two leaves have one path, as of {"a/b": x, "a": {"b": y}}, or a Dict or Tuple has no leaf.
    """
    pairs = _pairs(space, None, "")
    found = {path: leaf for path, (leaf, _) in pairs}
    if len(found) < len(pairs) or found.get("", space) is not space or not found:
        raise ConfigError("env.observation_space", space, "its parts must have names of their own, joined by / too")
    return found


def flatten(space: Any, value: Any) -> Arrays:
    """Return `value`, of `space`, as an array or as a flat dict of arrays in the order of `leaves`."""
    found = {path: part for path, (_, part) in _pairs(space, value, "")}
    return found.get("", found)


def map_arrays(function: Callable[..., Any], arrays: Arrays, *more: Arrays) -> Arrays:
    """Return `function` of every array, of those at the same path in `more` too."""
    if isinstance(arrays, dict):
        return {path: function(array, *(other[path] for other in more)) for path, array in arrays.items()}
    return function(arrays, *more)


def named(arrays: Arrays, name: str) -> dict[str, Array]:
    """Return the arrays by full name: {"observations": a}, or {"observations/goal": a, ...}."""
    return {f"{name}/{path}": array for path, array in arrays.items()} if isinstance(arrays, dict) else {name: arrays}


def unnamed(arrays: dict[str, Array], name: str) -> Arrays:
    """Take what `named` gave out of `arrays`; None if nothing of that name is there."""
    if name in arrays:
        return arrays.pop(name)
    found = [key for key in arrays if key.startswith(f"{name}/")]
    return {key.removeprefix(f"{name}/"): arrays.pop(key) for key in found} or None


def choose_rows(rows: np.ndarray, chosen: Arrays, others: Arrays) -> Arrays:
    """Return NumPy arrays with the values of `chosen` in `rows` (N,) bool and those of `others` elsewhere."""
    return map_arrays(lambda a, b: np.where(rows.reshape(-1, *[1] * (b.ndim - 1)), a, b), chosen, others)


def choices(space: Any) -> list[int] | None:
    """Return how many values each part of a Discrete or MultiDiscrete space has; None for any other space."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return [int(n) for n in np.ravel(space.nvec)]
    return None


def limits(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a Box's bounds (size,) float64; infinite where they only say how large a number can be, as 3e38 does."""
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    return np.where(low <= -NO_BOUND, -np.inf, low), np.where(high >= NO_BOUND, np.inf, high)


def is_bounded(space: Any) -> bool:
    """Tell whether every number of a Box has a bound on both sides, as `limits` says."""
    return all(bool(np.isfinite(bound).all()) for bound in limits(space))


def one_hot_columns(counts: list[int], start: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return for every column of the parts' one-hots side by side (M,) of which part it is and which value it stands for."""
    parts = np.repeat(np.arange(len(counts)), counts)
    return parts, np.concatenate([np.arange(count) for count in counts]) + np.ravel(start)[parts]


def _pairs(space: Any, value: Any, path: str) -> list[tuple[str, tuple[Any, Any]]]:
    """Return (path, (leaf space, leaf value)); `value` None: of the spaces only."""
    import gymnasium

    parts: list[tuple[str, Any, Any]]
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [(str(key), part, key) for key, part in space.spaces.items()]
    elif isinstance(space, gymnasium.spaces.Tuple):
        parts = [(str(i), part, i) for i, part in enumerate(space.spaces)]
    else:
        return [(path, (space, value))]
    found = []
    for name, part, key in parts:
        found += _pairs(part, None if value is None else value[key], f"{path}/{name}" if path else name)
    return found
