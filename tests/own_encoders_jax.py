"""Encoders of one's own as flax modules: good ones, and one for each mistake."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Rows(nn.Module):
    """Features of one Box of numbers."""

    space: Any
    size: int = 5

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return features (B, size)."""
        return nn.tanh(nn.Dense(self.size, name="first")(x))


class Pixels(nn.Module):
    """Features of one image, (B, height, width, channels) of bytes."""

    space: Any
    channels: int = 8
    size: int = 16

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return features (B, size)."""
        x = nn.relu(nn.Conv(self.channels, (3, 3), padding="VALID", name="convolution")(x.astype(jnp.float32) / 255))
        return nn.relu(nn.Dense(self.size, name="last")(x.reshape(len(x), -1)))


class Both(nn.Module):
    """Features of a dict with an image and a vector."""

    space: Any

    def setup(self) -> None:
        """Make the parts."""
        self.pixels, self.rows = Pixels(None), Rows(None)

    def __call__(self, x: Any) -> Any:
        """Return features (B, 21)."""
        return jnp.concatenate((self.pixels(x["picture"]), self.rows(x["place"])), 1)


class Side(nn.Module):
    """What stands under `side`, as it is."""

    def __call__(self, x: Any) -> Any:
        """Return it."""
        return x["side"]


# -- mistakes ------------------------------------------------------------------------------------------------------------------


class WrongShape(Rows):
    """Gives a sequence for each row."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return (B, 1, size)."""
        return nn.Dense(5)(x)[:, None]


class Squeezes(Rows):
    """Loses the rows' dimension where there is one row."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return (B, size), of one row (size,)."""
        return nn.Dense(5)(x).squeeze() if len(x) == 1 else nn.Dense(5)(x)


class Integers(Rows):
    """Gives integers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return (B, size) integers."""
        return nn.Dense(5)(x).astype(jnp.int32)


class Normalizes(Rows):
    """Keeps running statistics."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Return (B, size)."""
        return nn.BatchNorm(use_running_average=True)(nn.Dense(5)(x))


class Stumbles(Rows):
    """Fails on observations."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Raise."""
        raise RuntimeError("shapes don't fit")


class InNumpy(Rows):
    """Computes in NumPy, which can't be compiled."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Raise."""
        return nn.Dense(5)(np.tanh(np.asarray(x)))


class Unmade(nn.Module):
    """Can't be made."""

    space: Any

    def __post_init__(self) -> None:
        """Raise."""
        raise KeyError("picture")


def number(space: Any) -> int:
    """Return what is no module."""
    return 3


def of_nnx(space: Any) -> Any:
    """Return a module of flax's other kind."""
    from flax import nnx

    return nnx.Linear(space.shape[0], 5, rngs=nnx.Rngs(0))
