"""From observations to network inputs in JAX; works on NumPy arrays too, where acting does."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.models.images import Image
from rltrain.ops import normalizers
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Array, Arrays

CLIP = 10.0


class Inputs:
    """Turns observations into network inputs: (B, *O), or a dict of such, -> (B, size) float32.

    Box and MultiBinary as numbers, each Discrete and each part of a MultiDiscrete one-hot; the leaves of Dict and Tuple side by
    side, in the order of `rltrain.spaces.leaves`. A value that its space doesn't have is all zeros one-hot. With `normalize`, by
    running moments that change only in `fold`.

    Where there are `images` they stay as they are, and inputs are the one image (B, *O), or a dict of images by path with all
    other leaves as NUMBERS. `apart`, for an encoder of one's own, each leaf keeps its own shape.
    """

    NUMBERS: ClassVar[str] = ""
    ACTIONS: ClassVar[str] = "<actions before>"  # no path of an observation
    ALONE: ClassVar[str] = "<observation>"  # the one image, or one's own encoder's one array, beside actions

    def __init__(
        self,
        space: Any,
        *,
        normalize: bool,
        images: dict[str, Image] | None = None,
        apart: bool = False,
        key: str = "env.observation_space",
    ) -> None:
        self.space, self.images, self.apart = space, images or {}, apart
        leaves = spaces.leaves(space)
        self.leaves = {path: _Leaf(leaf, key, space) for path, leaf in leaves.items() if path not in self.images}
        self.size = sum(leaf.size for leaf in self.leaves.values())
        self.row_bytes = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves.values())
        self.normalize = normalize and self.size > 0
        self.is_plain = not self.images and not apart  # rows of numbers

    def init(self) -> normalizers.Moments:
        """Return the moments to start from."""
        return normalizers.Moments(jnp.zeros(self.size), jnp.ones(self.size), jnp.zeros(()))

    def __call__(self, moments: normalizers.Moments, observations: Arrays) -> Any:
        """Return network inputs."""
        if self.is_plain:
            inputs = self.read(observations)
            return normalizers.normalize(xp_of(inputs), moments, inputs, CLIP) if self.normalize else inputs
        if not isinstance(observations, dict):
            return observations if self.images else self._parts(self._numbers(moments, observations))[""]
        inputs_by_path = {path: observations[path] for path in self.images}
        if self.leaves:
            numbers = self._numbers(moments, observations)
            inputs_by_path |= self._parts(numbers) if self.apart else {self.NUMBERS: numbers}
        return inputs_by_path

    def _numbers(self, moments: normalizers.Moments, observations: Arrays) -> Array:
        inputs = self.read(observations)
        return normalizers.normalize(xp_of(inputs), moments, inputs, CLIP) if self.normalize else inputs

    def _parts(self, numbers: Array) -> dict[str, Array]:
        """Return each leaf in its own shape."""
        ends = np.cumsum([leaf.size for leaf in self.leaves.values()])[:-1]
        parts = xp_of(numbers).split(numbers, ends, 1)
        return {path: part.reshape(-1, *leaf.shape) for (path, leaf), part in zip(self.leaves.items(), parts, strict=True)}

    def read(self, observations: Arrays) -> Array:
        """Return network inputs (B, size) before they are normalised, without images."""
        if not isinstance(observations, dict):
            return self.leaves[""](observations)
        parts = [leaf(observations[path]) for path, leaf in self.leaves.items()]
        return xp_of(*parts).concatenate(parts, 1)

    def fold(self, moments: normalizers.Moments, observations: Arrays, weights: Array | None) -> normalizers.Moments:
        """Return moments with rows (B, *O) folded in; those of weight 0 don't count."""
        if not self.normalize:
            return moments
        return normalizers.fold(jnp, moments, self.read(observations), weights)

    def join(self, inputs: Any, actions: Array | None) -> Any:
        """Return inputs (B, ...) with the actions before (B, A) for what remembers; without, if there are none."""
        if actions is None:
            return inputs
        if self.is_plain:
            return xp_of(inputs, actions).concatenate((inputs, actions), 1)
        return {**(inputs if isinstance(inputs, dict) else {self.ALONE: inputs}), self.ACTIONS: actions}

    def zeros(self, count: int) -> Arrays:
        """Return `count` observations of zeros."""
        inputs_by_path = {path: np.zeros((count, *leaf.shape), leaf.dtype) for path, leaf in spaces.leaves(self.space).items()}
        return inputs_by_path.get("", inputs_by_path)


class _Leaf:
    def __init__(self, space: Any, key: str, whole: Any) -> None:
        import gymnasium

        counts = spaces.choices(space)
        if counts is not None:
            self.size = sum(counts)
            self.shape: tuple[int, ...] = (self.size,)
            self.parts, values = spaces.one_hot_columns(counts, space.start)
            self.values = values.astype(np.int32)
        elif isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
            self.size, self.shape = int(np.prod(space.shape)), tuple(space.shape)
        else:
            raise ConfigError(
                key,
                whole,
                f"{space} can't be read; this agent reads Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these",
            )
        self.one_hot = counts is not None

    def __call__(self, x: Array) -> Array:
        if self.one_hot:
            x = x.reshape(x.shape[0], -1).astype(np.int32)
            return ((x if x.shape[1] == 1 else x[:, self.parts]) == self.values).astype(np.float32)
        return x.astype(np.float32).reshape(x.shape[0], self.size)
