"""Encoders in PyTorch: convolutions over images, images beside vectors, modules of one's own; observations in, (B, F) out."""

import math
from typing import Any

import torch
from torch import nn

from rltrain.models.config import AnyNetworkConfig
from rltrain.models.encoders.own.torch import make_own
from rltrain.models.images import Image
from rltrain.models.images import find as images_of
from rltrain.models.inputs.torch import Inputs
from rltrain.models.layers.torch import fill


class CNN(nn.Module):
    """Convolutions, then linear layers, each followed by ReLU: (B, *image) -> (B, F).

    Residual blocks and pooling as in IMPALA (Espeholt et al. 2018). Weights are (outputs, inputs, kernel, kernel) in both
    backends, and features are flattened channel by channel, so that parameters mean the same in both.
    """

    def __init__(self, image: Image, cfg: AnyNetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.image, self.size = image, image.size
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(layer.shape)) for layer in image.layers])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(layer.shape[0])) for layer in image.layers])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            fill(weight, bias, [(len(weight), math.sqrt(2))], cfg.initialization, generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, F)."""
        image = self.image
        x = images[:, None] if len(image.shape) == 2 else images if image.channels_first else images.movedim(-1, -3)
        x = x.flatten(1, 2) if len(image.shape) == 4 else x  # (B, channels, height, width)
        x = x.contiguous(memory_format=torch.channels_last).float()  # a fifth to a third less time on a CPU
        x = x / image.scale if image.scale != 1 else x
        before = x
        for layer, weight, bias in zip(image.layers, self.weights, self.biases, strict=True):
            if len(layer.shape) == 2:
                x = torch.relu(nn.functional.linear(torch.relu(x.flatten(1)), weight, bias))
            elif layer.residual:
                before = x if layer.residual == "first" else before
                x = nn.functional.conv2d(torch.relu(x), weight, bias, padding=layer.padding)
                x = x + before if layer.residual == "second" else x
            else:
                x = nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding)
                x = nn.functional.max_pool2d(x, 3, 2, 1) if layer.pools else torch.relu(x)
        return x


class Leaves(nn.Module):
    """Images beside numbers: a dict of images (B, ...) by path, and of all other leaves as one vector, -> (B, F)."""

    def __init__(self, images: dict[str, Image], numbers: int, cfg: AnyNetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.paths, self.has_numbers = list(images), numbers > 0
        self.images = nn.ModuleList([CNN(image, cfg, generator) for image in images.values()])
        self.size = numbers + sum(image.size for image in images.values())

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return features (B, F): the images' in order, then the numbers."""
        parts = [encode(inputs[path]) for path, encode in zip(self.paths, self.images, strict=True)]
        return torch.cat([*parts, inputs[Inputs.NUMBERS]] if self.has_numbers else parts, 1)


class Beside(nn.Module):
    """An encoder's features, and beside them the actions before: what `Inputs.join` gives -> (B, F)."""

    def __init__(self, encoder: Any, actions: int) -> None:
        super().__init__()
        self.encoder, self.size = encoder, encoder.size + actions

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return features (B, F): the encoder's, then the actions' numbers."""
        return torch.cat((self.encoder(self.observed(inputs)), inputs[Inputs.ACTIONS]), 1)

    def observed(self, inputs: dict[str, torch.Tensor]) -> Any:
        """Return what the encoder reads."""
        observations = {path: array for path, array in inputs.items() if path != Inputs.ACTIONS}
        return observations.get(Inputs.ALONE, observations)


def make_inputs(
    space: Any,
    device: torch.device,
    cfg: AnyNetworkConfig,
    key: str,
    *,
    normalize: bool,
    module: nn.Module | None = None,
    space_key: str = "env.observation_space",
) -> Inputs:
    """Return what turns observations into what an encoder, or the first layer, reads; see `make_encoder`."""
    is_own = module is not None or cfg.encoder is not None
    images = images_of(space, "auto" if is_own else cfg.cnn, key)
    return Inputs(space, device, normalize=normalize, images=images, apart=is_own, key=space_key)


def make_encoder(
    inputs: Inputs,
    cfg: AnyNetworkConfig,
    generator: torch.Generator,
    key: str,
    module: nn.Module | None = None,
    *,
    actions: int = 0,
) -> nn.Module | None:
    """Return what makes features of these inputs, or None where they are rows of numbers; `size` is how many it makes.

    `module` is a ready-made one, of which each network gets a copy. With `actions` inputs are joined with as many numbers of
    actions. Raises ConfigError if one's own can't be used.
    """
    encoder = _make_encoder(inputs, cfg, generator, key, module)
    return Beside(encoder, actions) if actions and encoder is not None else encoder


def _make_encoder(
    inputs: Inputs, cfg: AnyNetworkConfig, generator: torch.Generator, key: str, module: nn.Module | None
) -> nn.Module | None:
    if module is not None or cfg.encoder is not None:
        return make_own(inputs, cfg, key, module)
    if not inputs.images:
        return None
    if inputs.size == 0 and list(inputs.images) == [""]:
        return CNN(inputs.images[""], cfg, generator)
    return Leaves(inputs.images, inputs.size, cfg, generator)


def features(encoder: nn.Module | None, inputs: Inputs, actions: int = 0) -> int:
    """Return how many numbers the first layer, or a cell, reads."""
    return inputs.size + actions if encoder is None else int(encoder.size)  # type: ignore[arg-type]
