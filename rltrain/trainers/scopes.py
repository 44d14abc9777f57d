"""Scopes: which copies of the environment belong to which agent."""

from collections.abc import Mapping, Sequence
from typing import Any

from rltrain.errors import ConfigError
from rltrain.structures import cut, cut_infos

__all__ = ["check_scopes", "cut", "cut_infos", "cut_named", "even_scopes"]


def cut_named(values: Mapping[str, Any], scope: slice, copies: int) -> dict[str, Any]:
    """Return keyword arguments for the copies in `scope`."""
    return {name: (cut_infos if name == "infos" else cut)(value, scope, copies) for name, value in values.items()}


def even_scopes(copies: int, count: int) -> list[int]:
    """Return `count` equal sizes; the last takes the remainder, too."""
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
