"""From observations to network inputs in JAX; works on NumPy arrays too, where acting does."""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.ops import normalizers
from rltrain.structures import Array, Arrays

CLIP = 10.0


class Inputs:
    """Turns observations into network inputs: (B, *O), or a dict of such, -> (B, size) float32.

    Box and MultiBinary as numbers, each Discrete and each part of a MultiDiscrete one-hot; the leaves of Dict and Tuple side by
    side, in the order of `rltrain.spaces.leaves`. A value that its space doesn't have is all zeros one-hot. With `normalize`, by
    running moments that change only in `fold`.
    """

    def __init__(self, space: Any, *, normalize: bool, key: str = "env.observation_space") -> None:
        self.leaves = {path: _Leaf(leaf, key, space) for path, leaf in spaces.leaves(space).items()}
        self.size = sum(leaf.size for leaf in self.leaves.values())
        self.row_bytes = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in spaces.leaves(space).values())
        self.normalize = normalize

    def init(self) -> normalizers.Moments:
        """Return the moments to start from."""
        return normalizers.Moments(jnp.zeros(self.size), jnp.ones(self.size), jnp.zeros(()))

    def __call__(self, moments: normalizers.Moments, observations: Arrays) -> Array:
        """Return network inputs (B, size)."""
        inputs = self.read(observations)
        return normalizers.normalize(_xp(inputs), moments, inputs, CLIP) if self.normalize else inputs

    def read(self, observations: Arrays) -> Array:
        """Return network inputs (B, size) before they are normalised."""
        if not isinstance(observations, dict):
            return self.leaves[""](observations)
        parts = [leaf(observations[path]) for path, leaf in self.leaves.items()]
        return _xp(*parts).concatenate(parts, 1)

    def fold(self, moments: normalizers.Moments, observations: Arrays, weights: Array | None) -> normalizers.Moments:
        """Return moments with rows (B, *O) folded in; those of weight 0 don't count."""
        if not self.normalize:
            return moments
        return normalizers.fold(jnp, moments, self.read(observations), weights)


class _Leaf:
    def __init__(self, space: Any, key: str, whole: Any) -> None:
        import gymnasium

        counts = spaces.choices(space)
        if counts is not None:
            self.size = sum(counts)
            self.parts, values = spaces.one_hot_columns(counts, space.start)
            self.values = values.astype(np.int32)
        elif isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
            self.size = int(np.prod(space.shape))
        else:
            raise ConfigError(
                key, whole,
                f"{space} can't be read; this agent reads Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these",
            )  # fmt: skip
        self.one_hot = counts is not None

    def __call__(self, x: Array) -> Array:
        if self.one_hot:
            x = x.reshape(len(x), -1).astype(np.int32)
            return ((x if x.shape[1] == 1 else x[:, self.parts]) == self.values).astype(np.float32)
        return x.astype(np.float32).reshape(len(x), self.size)


def _xp(*arrays: Array) -> ModuleType:
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp
