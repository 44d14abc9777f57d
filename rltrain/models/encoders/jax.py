"""Encoders in JAX: convolutions over images, images beside vectors, modules of one's own; observations in, (B, F) out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rltrain.models.config import AnyNetworkConfig
from rltrain.models.convolutions.jax import convolve, numbers, pool
from rltrain.models.encoders.own.jax import Own, make_own
from rltrain.models.images import Image
from rltrain.models.images import find as images_of
from rltrain.models.inputs.jax import Inputs
from rltrain.models.layers.jax import fill
from rltrain.ops.trees.jax import Parameters, part, prefixed
from rltrain.structures import Array


class CNN:
    """Convolutions, then linear layers, each followed by ReLU: (B, *image) -> (B, F).

    Residual blocks and pooling as in IMPALA (Espeholt et al. 2018). Weights are (outputs, inputs, kernel, kernel) in both
    backends, and features are flattened channel by channel, so that parameters mean the same in both.
    """

    def __init__(self, image: Image, cfg: AnyNetworkConfig) -> None:
        self.image, self.size, self.cfg = image, image.size, cfg

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        found: Parameters = {}
        for i, (layer, k) in enumerate(zip(self.image.layers, jax.random.split(key, len(self.image.layers)), strict=True)):
            blocks = [(layer.shape[0], math.sqrt(2))]
            found[f"weights.{i}"], found[f"biases.{i}"] = fill(k, layer.shape, blocks, self.cfg.initialization)
        return found

    def forward(self, parameters: Parameters, images: Array) -> Array:
        """Return features (B, F)."""
        image = self.image
        x, scale = image.rows(jnp.asarray(images)), image.scale  # (B, height, width, channels)
        before = x
        for i, layer in enumerate(image.layers):
            weight, bias = parameters[f"weights.{i}"], parameters[f"biases.{i}"]
            if len(layer.shape) == 2:
                rows = x if x.ndim == 2 else numbers(x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1), scale)
                x = nn.relu(nn.relu(rows) @ weight.T + bias)
            elif layer.residual:
                before = x if layer.residual == "first" else before
                x = convolve(nn.relu(x), weight, layer) + bias
                x = x + before if layer.residual == "second" else x
            else:
                x = convolve(x, weight, layer, scale) + bias
                x = pool(x) if layer.pools else nn.relu(x)
            scale = 1.0
        return x


class Leaves:
    """Images beside numbers: a dict of images (B, ...) by path, and of all other leaves as one vector, -> (B, F)."""

    def __init__(self, images: dict[str, Image], numbers: int, cfg: AnyNetworkConfig) -> None:
        self.paths, self.has_numbers = list(images), numbers > 0
        self.images = [CNN(image, cfg) for image in images.values()]
        self.size = numbers + sum(image.size for image in images.values())

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        keys = jax.random.split(key, len(self.images))
        return {
            f"images.{i}.{name}": value
            for i, (k, encoder) in enumerate(zip(keys, self.images, strict=True))
            for name, value in encoder.init(k).items()
        }

    def forward(self, parameters: Parameters, inputs: dict[str, Array]) -> Array:
        """Return features (B, F): the images' in order, then the numbers."""
        parts = [
            encoder.forward(part(parameters, f"images.{i}"), inputs[path])
            for i, (path, encoder) in enumerate(zip(self.paths, self.images, strict=True))
        ]
        return jnp.concatenate([*parts, inputs[Inputs.NUMBERS]] if self.has_numbers else parts, 1)


class Beside:
    """An encoder's features, and beside them the actions before: what `Inputs.join` gives -> (B, F)."""

    def __init__(self, encoder: Any, actions: int) -> None:
        self.encoder, self.size = encoder, encoder.size + actions

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return prefixed("encoder", self.encoder.init(key))

    def forward(self, parameters: Parameters, inputs: dict[str, Array]) -> Array:
        """Return features (B, F): the encoder's, then the actions' numbers."""
        features = self.encoder.forward(part(parameters, "encoder"), self.observed(inputs))
        return jnp.concatenate((features, inputs[Inputs.ACTIONS]), 1)

    def observed(self, inputs: dict[str, Array]) -> Any:
        """Return what the encoder reads."""
        observations = {path: array for path, array in inputs.items() if path != Inputs.ACTIONS}
        return observations.get(Inputs.ALONE, observations)


Encoder = CNN | Leaves | Own | Beside


def make_inputs(
    space: Any,
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
    return Inputs(space, normalize=normalize, images=images, apart=is_own, key=space_key)


def make_encoder(
    inputs: Inputs, cfg: AnyNetworkConfig, key: str, module: nn.Module | None = None, *, actions: int = 0
) -> Encoder | None:
    """Return what makes features of these inputs, or None where they are rows of numbers; `size` is how many it makes.

    `module` is a ready-made one, of which each network has parameters of its own. With `actions` inputs are joined with as many
    numbers of actions. Raises ConfigError if one's own can't be used.
    """
    encoder = _make_encoder(inputs, cfg, key, module)
    return Beside(encoder, actions) if actions and encoder is not None else encoder


def _make_encoder(inputs: Inputs, cfg: AnyNetworkConfig, key: str, module: nn.Module | None) -> Encoder | None:
    if module is not None or cfg.encoder is not None:
        return make_own(inputs, cfg, key, module)
    if not inputs.images:
        return None
    if inputs.size == 0 and list(inputs.images) == [""]:
        return CNN(inputs.images[""], cfg)
    return Leaves(inputs.images, inputs.size, cfg)


def features(encoder: Encoder | None, inputs: Inputs, actions: int = 0) -> int:
    """Return how many numbers the first layer, or a cell, reads."""
    return inputs.size + actions if encoder is None else encoder.size
