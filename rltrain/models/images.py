"""Which leaves of an observation are images, and what reads them: layers as data, the same for both backends."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError

NATURE = [[32, 8, 4], [64, 4, 2], [64, 3, 1], 512]  # Mnih et al. 2015
MINATAR = [[16, 3, 1], 128]  # Young and Tian 2019
IMPALA = (16, 32, 32), 256  # Espeholt et al. 2018: channels of the stages, then a linear layer
NATURE_FROM = 36  # the least height and width that Nature's layers take


class Layer(NamedTuple):
    """One layer with parameters; `residual`: the second of two whose outcome is added to what went into the first."""

    shape: tuple[int, ...]  # of the weight: (outputs, inputs, kernel, kernel) or (outputs, inputs)
    stride: int = 1
    padding: int = 0
    pools: bool = False  # followed by a 3 x 3 maximum with stride 2
    residual: str = ""  # "", "first" or "second" of a residual block

    def describe(self) -> str:
        """Return the layer in a word: `conv 32 8x8/4`, `linear 512`."""
        if len(self.shape) == 2:
            return f"linear {self.shape[0]}"
        kind = "residual conv" if self.residual else "conv"
        stride, pool = f"/{self.stride}" if self.stride > 1 else "", " and pool" if self.pools else ""
        return f"{kind} {self.shape[0]} {self.shape[2]}x{self.shape[3]}{stride}{pool}"


@dataclass(frozen=True)
class Image:
    """An image in an observation, and the layers that make features of it."""

    shape: tuple[int, ...]  # as the environment gives it
    channels_first: bool
    scale: float  # pixels are divided by this
    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        order = "" if len(self.shape) == 2 else f" with its channels {'first' if self.channels_first else 'last'}"
        order += f", {self.shape[0]} frames as channels," if len(self.shape) == 4 else ""
        layers = [layer.describe() for layer in self.layers]
        return f"an image {self.shape}{order}{f' / {self.scale:.0f}' if self.scale != 1 else ''} by {', '.join(layers)}"

    @property
    def size(self) -> int:
        """How many features there are."""
        return self.layers[-1].shape[0]

    def rows(self, array: Any) -> Any:
        """Return images (B, height, width, channels), from (B, *shape)."""
        if len(self.shape) == 2:
            return array[..., None]
        if len(self.shape) == 4:
            array = array.transpose((0, 3, 4, 1, 2) if self.channels_first else (0, 2, 3, 1, 4))
            return array.reshape(*array.shape[:3], -1)
        return array.transpose((0, 2, 3, 1)) if self.channels_first else array


def find(space: Any, cnn: Any, key: str) -> dict[str, Image]:
    """Return the images among the leaves of a space, by path; `key` is the dotted name of the network's settings.

    A Box of two or three dimensions is one if it holds bytes, 0 to 255, or has bounds 0 and 1; any other Box of floats only if
    `cnn` names layers. Of four dimensions it is a stack of frames, whose channels go side by side. Raises ConfigError if `cnn`
    names layers and there is none, or if they don't fit.
    """
    if cnn == "none":
        return {}
    images = {}
    for path, leaf in spaces.leaves(space).items():
        scale = _scale(leaf, named=cnn != "auto")
        if scale is None:
            continue
        shape = tuple(leaf.shape)
        height, width, channels = _sizes(shape)
        if cnn == "auto" and min(height, width) < 3:
            continue
        layers = _layers(cnn, height, width, channels, f"{key}.cnn", f"{path + ' ' if path else ''}{shape}")
        images[path] = Image(shape, _channels_first(shape), scale, layers)
    if not images and cnn != "auto":
        raise ConfigError(f"{key}.cnn", cnn, f"reads images, but the observation {space} has none; leave it at auto")
    return images


def _scale(leaf: Any, *, named: bool) -> float | None:
    """Return what pixels are divided by, or None for what is no image."""
    import gymnasium

    if not isinstance(leaf, gymnasium.spaces.Box) or len(leaf.shape) not in (2, 3, 4) or 0 in leaf.shape:
        return None
    low, high = float(leaf.low.min()), float(leaf.high.max())
    if leaf.dtype == np.uint8 and (low, high) == (0, 255):
        return 255.0
    is_unit = np.issubdtype(leaf.dtype, np.floating) and (low, high) == (0, 1)
    return 1.0 if is_unit or leaf.dtype == np.bool_ or named else None


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Tell whether channels stand before height and width, in a stack of frames in each of them: where they are the fewest."""
    frame = shape[-3:]
    return len(shape) > 2 and frame[0] < min(frame[1:])


def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return height, width and channels."""
    if len(shape) == 4:
        height, width, channels = _sizes(shape[1:])
        return height, width, channels * shape[0]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    return (shape[1], shape[2], shape[0]) if _channels_first(shape) else (shape[0], shape[1], shape[2])


def _layers(cnn: Any, height: int, width: int, channels: int, key: str, what: str) -> tuple[Layer, ...]:
    if cnn == "auto":
        cnn = "nature" if min(height, width) >= NATURE_FROM else "minatar"
    if cnn == "impala":
        return _impala(height, width, channels)
    named: dict[str, list[Any]] = {"nature": NATURE, "minatar": MINATAR}
    layers: list[Layer] = []
    size: tuple[int, ...] = (height, width)
    for how in named[cnn] if isinstance(cnn, str) else cnn:
        if isinstance(how, int):
            inputs = layers[-1].shape[0] if layers and len(layers[-1].shape) == 2 else channels * math.prod(size)
            layers.append(Layer((how, inputs)))
            continue
        outputs, kernel, stride = how
        layers.append(Layer((outputs, channels, kernel, kernel), stride))
        size = tuple((n - kernel) // stride + 1 for n in size)
        if min(size) < 1:
            raise ConfigError(key, cnn, f"its layers need a larger image than {what}; use minatar or a list of layers")
        channels = outputs
    return tuple(layers)


def _impala(height: int, width: int, channels: int) -> tuple[Layer, ...]:
    layers = []
    for outputs in IMPALA[0]:
        layers.append(Layer((outputs, channels, 3, 3), padding=1, pools=True))
        for _ in range(2):
            layers += [Layer((outputs, outputs, 3, 3), padding=1, residual=part) for part in ("first", "second")]
        height, width, channels = (height + 1) // 2, (width + 1) // 2, outputs
    return (*layers, Layer((IMPALA[1], channels * height * width)))


def check_layers(layers: Any, key: str) -> None:
    """Raise ConfigError unless a list of layers is [channels, kernel, stride] each, then sizes of linear layers."""
    remedy = "give [channels, kernel, stride] for each convolution, then at least one number, the units of a linear layer"
    kinds = [
        "linear"
        if _is_count(layer)
        else "convolution"
        if isinstance(layer, list | tuple) and len(layer) == 3 and all(map(_is_count, layer))
        else ""
        for layer in layers
    ]
    if "" in kinds or not kinds or kinds[-1] != "linear" or "convolution" in kinds[kinds.index("linear") :]:
        raise ConfigError(key, layers, remedy)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65536
