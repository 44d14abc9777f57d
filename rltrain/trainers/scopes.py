"""Scopes: which copies of the environment belong to which agent."""

from collections.abc import Sequence
from typing import Any

from rltrain.errors import ConfigError


def even_scopes(copies: int, count: int) -> list[int]:
    """Return `count` sizes as equal as possible, the remainder in the last."""
    size = copies // count
    return [size] * (count - 1) + [copies - size * (count - 1)]


def check_scopes(sizes: Sequence[Any], count: int, copies: int) -> None:
    """Raise ConfigError unless `sizes` are `count` whole numbers >= 1 that add up to `copies`."""
    key = "agents_scope.sizes"
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ConfigError(key, sizes, "each size is a whole number >= 1")
    if len(sizes) != count:
        raise ConfigError(key, sizes, f"{len(sizes)} sizes for {count} agents; give {count}")
    if sum(sizes) != copies:
        raise ConfigError(
            key, sizes, f"add up to {sum(sizes)}, but the environment has {copies} copies; give sizes that add up to {copies}"
        )


def cut(value: Any, scope: slice, copies: int) -> Any:
    """Return the rows of `scope` of every array in `value` that has a row per copy."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(cut(item, scope, copies) for item in value))
    if isinstance(value, dict):
        return {key: cut(item, scope, copies) for key, item in value.items()}
    if hasattr(value, "shape") and value.shape and value.shape[0] == copies:
        return value[scope]
    return value
