"""Perceptrons in JAX, and how fresh parameters are drawn."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rltrain.models.config import AnyNetworkConfig
from rltrain.models.engines import in_numpy
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Array

LAYER_NORM_EPSILON = 1e-5
MLP_PARAMETERS = ("weights", "biases", "scales", "shifts")

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "silu": nn.silu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


class MLP(nn.Module):
    """A multi-layer perceptron: (B, inputs) -> (B, sum of outputs).

    `outputs` are (size, gain) of each part of the last layer. Orthogonal weights with gain sqrt(2) and these, zero biases
    (Andrychowicz et al. 2021, "What matters in on-policy reinforcement learning"); or all uniform within 1 / sqrt(inputs of
    the layer). Layer norm (Ba et al. 2016) stands between a hidden layer's sum and its activation.
    """

    inputs: int
    sizes: Sequence[int]
    outputs: Sequence[tuple[int, float]]
    cfg: AnyNetworkConfig

    def setup(self) -> None:
        """Declare the parameters."""
        widths = [self.inputs, *self.sizes, sum(size for size, _ in self.outputs)]
        weights, biases = [], []
        for i, (m, n) in enumerate(itertools.pairwise(widths)):
            blocks = [(n, math.sqrt(2))] if i < len(self.sizes) else self.outputs
            weights.append(self.param(f"weights.{i}", _weights, (n, m), blocks, self.cfg.initialization))
            biases.append(self.param(f"biases.{i}", _biases, (n, m), self.cfg.initialization))
        self.layers = list(zip(weights, biases, strict=True))
        hidden = self.sizes if self.cfg.layer_norm else []
        self.scales = [self.param(f"scales.{i}", nn.initializers.ones, (n,)) for i, n in enumerate(hidden)]
        self.shifts = [self.param(f"shifts.{i}", nn.initializers.zeros, (n,)) for i, n in enumerate(hidden)]

    def __call__(self, x: Array) -> Array:
        """Return the last layer's outputs.

        Computed with a column per row: on a CPU XLA takes a fifth less time for such products and their gradients.
        """
        activate = ACTIVATIONS[self.cfg.activation]
        x = x.T
        for i, (weight, bias) in enumerate(self.layers[:-1]):
            x = weight @ x + bias[:, None]
            if self.scales:
                x = jax.lax.optimization_barrier(_layer_norm(_by_row(x)) * self.scales[i] + self.shifts[i]).T
            x = activate(x)
        weight, bias = self.layers[-1]
        return _by_row(weight @ x + bias[:, None])


def _by_row(columns: Array) -> Array:
    """Return a product (n, B) as rows (B, n), computed before what is made of them.

    On a CPU XLA puts a product and the reduction of each of its columns (log softmax, maximum, layer norm) into one loop over
    parts of the columns, and beyond 32,768 of them computes the product anew for every part: 65,536 took a second, not a
    hundredth. The barrier has it lay out rows, over which it makes no such loop.
    """
    return jax.lax.optimization_barrier(columns.T)


def fill(key: Array, shape: tuple[int, ...], blocks: Sequence[tuple[int, float]], initialization: str) -> tuple[Array, Array]:
    """Return a fresh layer's weight (n, ...) and bias (n,); `blocks` are (rows, gain) of an orthogonal one's parts."""
    return _weights(key, shape, blocks, initialization), _biases(jax.random.fold_in(key, 1), shape, initialization)


def _weights(key: Array, shape: tuple[int, ...], blocks: Sequence[tuple[int, float]], initialization: str) -> Array:
    m = math.prod(shape[1:])
    if initialization == "orthogonal":
        keys = jax.random.split(key, len(blocks))
        parts = [nn.initializers.orthogonal(gain)(k, (m, size)).T for k, (size, gain) in zip(keys, blocks, strict=True)]
        return jnp.concatenate(parts).reshape(shape)
    return jax.random.uniform(key, shape, minval=-(m**-0.5), maxval=m**-0.5)


def _biases(key: Array, shape: tuple[int, ...], initialization: str) -> Array:
    n, m = shape[0], math.prod(shape[1:])
    if initialization == "orthogonal":
        return jnp.zeros(n)
    return jax.random.uniform(key, (n,), minval=-(m**-0.5), maxval=m**-0.5)


def _layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x), also of NumPy's arrays, in a form that doesn't overflow."""
    return 0.5 * (xp_of(x).tanh(0.5 * x) + 1)


def perceive(mlp: MLP, parameters: dict[str, Array], features: Array) -> Array:
    """Return a perceptron's outputs (B, F), of NumPy's arrays in NumPy; of `parameters`, its own are read."""
    own = {name: array for name, array in parameters.items() if name.partition(".")[0] in MLP_PARAMETERS}
    if isinstance(features, np.ndarray):
        return in_numpy.forward(own, features, mlp.cfg.activation, ACTIVATIONS[mlp.cfg.activation])
    return mlp.apply({"params": own}, features)
