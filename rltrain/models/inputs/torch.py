"""From observations to network inputs in PyTorch."""

from typing import Any, ClassVar

import numpy as np
import torch

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.models.images import Image
from rltrain.ops import normalizers
from rltrain.structures import Arrays

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
        device: torch.device,
        *,
        normalize: bool,
        images: dict[str, Image] | None = None,
        apart: bool = False,
        key: str = "env.observation_space",
    ) -> None:
        self.space, self.device, self.images, self.apart = space, device, images or {}, apart
        leaves = spaces.leaves(space)
        self.leaves = {path: _Leaf(leaf, device, key, space) for path, leaf in leaves.items() if path not in self.images}
        self.size = sum(leaf.size for leaf in self.leaves.values())
        self.row_bytes = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves.values())
        self.normalize = normalize and self.size > 0
        self.is_plain = not self.images and not apart  # rows of numbers
        self.moments = normalizers.Moments(
            torch.zeros(self.size, device=device), torch.ones(self.size, device=device), torch.zeros((), device=device)
        )

    def __call__(self, observations: Arrays) -> Any:
        """Return network inputs."""
        if self.is_plain:
            inputs = self.read(observations)
            return normalizers.normalize(torch, self.moments, inputs, CLIP) if self.normalize else inputs
        if not isinstance(observations, dict):
            return observations if self.images else self._parts(self._numbers(observations))[""]
        inputs_by_path = {path: observations[path] for path in self.images}
        if self.leaves:
            numbers = self._numbers(observations)
            inputs_by_path |= self._parts(numbers) if self.apart else {self.NUMBERS: numbers}
        return inputs_by_path

    def _numbers(self, observations: Arrays) -> torch.Tensor:
        inputs = self.read(observations)
        return normalizers.normalize(torch, self.moments, inputs, CLIP) if self.normalize else inputs

    def _parts(self, numbers: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return each leaf in its own shape."""
        parts = numbers.split([leaf.size for leaf in self.leaves.values()], 1)
        return {path: part.reshape(-1, *leaf.shape) for (path, leaf), part in zip(self.leaves.items(), parts, strict=True)}

    def read(self, observations: Arrays) -> torch.Tensor:
        """Return network inputs (B, size) before they are normalised, without images."""
        if not isinstance(observations, dict):
            return self.leaves[""](observations)
        return torch.cat([leaf(observations[path]) for path, leaf in self.leaves.items()], 1)

    def fold(self, observations: Arrays, weights: torch.Tensor | None) -> None:
        """Fold rows (B, *O) into the moments; those of weight 0 don't count."""
        if self.normalize:
            self.moments = normalizers.fold(torch, self.moments, self.read(observations), weights)

    def join(self, inputs: Any, actions: torch.Tensor | None) -> Any:
        """Return inputs (B, ...) with the actions before (B, A) for what remembers; without, if there are none."""
        if actions is None:
            return inputs
        if self.is_plain:
            return torch.cat((inputs, actions), 1)
        return {**(inputs if isinstance(inputs, dict) else {self.ALONE: inputs}), self.ACTIONS: actions}

    def zeros(self, count: int) -> Arrays:
        """Return `count` observations of zeros."""
        inputs_by_path = {
            path: torch.from_numpy(np.zeros((count, *leaf.shape), leaf.dtype)).to(self.device)
            for path, leaf in spaces.leaves(self.space).items()
        }
        return inputs_by_path.get("", inputs_by_path)


class _Leaf:
    def __init__(self, space: Any, device: torch.device, key: str, whole: Any) -> None:
        import gymnasium

        counts = spaces.choices(space)
        if counts is not None:
            self.size = sum(counts)
            self.shape: tuple[int, ...] = (self.size,)
            first = np.cumsum([0, *counts[:-1]])
            columns = (first - np.ravel(space.start), first, first + counts - 1)
            self.offsets, self.first, self.last = (torch.as_tensor(numbers, device=device) for numbers in columns)
        elif isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
            self.size, self.shape = int(np.prod(space.shape)), tuple(space.shape)
        else:
            raise ConfigError(
                key,
                whole,
                f"{space} can't be read; this agent reads Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these",
            )
        self.one_hot = counts is not None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.one_hot:
            columns = x.reshape(x.shape[0], -1).long() + self.offsets
            inside = columns.clamp(self.first, self.last)
            return torch.zeros(x.shape[0], self.size, device=x.device).scatter_(1, inside, (inside == columns).float())
        if x.dtype != torch.float32:
            x = x.float()
        return x if x.ndim == 2 else x.reshape(x.shape[0], self.size)
