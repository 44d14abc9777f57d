"""What every encoder of one's own must keep to."""

from collections.abc import Callable
from typing import Any

from rltrain.errors import ConfigError, said
from rltrain.signals import comes_from_signal

COUNTS = (3, 1)  # of rows that one is tried on


def find_size(name: str, key: str, encode: Callable[[int], Any]) -> int:
    """Return how many features an encoder makes; `encode` calls it with so many observations.

    Raises ConfigError if it fails, or if it doesn't make a row of as many float32 numbers of each.
    """
    sizes = []
    for count in COUNTS:
        try:
            features = encode(count)
        except Exception as error:
            if comes_from_signal(error) or isinstance(error, ConfigError):
                raise
            reason = said(error).partition("\n")[0]  # JAX says more about where a number was traced
            raise ConfigError(f"{key}.encoder", name, f"fails on {count} observations: {reason}") from error
        shape, kind = tuple(getattr(features, "shape", ())), str(getattr(features, "dtype", type(features).__name__))
        if len(shape) != 2 or shape[0] != count or kind.removeprefix("torch.") != "float32":
            raise ConfigError(
                f"{key}.encoder", name, f"makes {shape} {kind} of {count} observations; make ({count}, features) float32"
            )
        sizes.append(shape[1])
    if len(set(sizes)) > 1:
        raise ConfigError(f"{key}.encoder", name, f"makes {sizes[0]} features of 3 observations and {sizes[1]} of one")
    return sizes[0]
