"""Convolutions and pooling in JAX that are quick on a CPU; images (B, height, width, channels), weights as in PyTorch.

Letters: B rows, C inputs, O outputs, K kernel.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from rltrain.models.images import Layer
from rltrain.structures import Array

BLOCK = 2**20  # numbers in the patches of rows that are convolved at once: those of more rows leave the caches


def convolve(x: Array, weight: Array, layer: Layer, scale: float = 1.0) -> Array:
    """Return images (B, height, width, C), divided by `scale`, convolved with (O, C, K, K)."""
    in_blocks = functools.partial(_in_blocks, layer=layer, scale=scale)
    directly = functools.partial(_directly, layer=layer, scale=scale)
    return jax.lax.platform_dependent(x, weight, cpu=in_blocks, default=directly)


def pool(x: Array) -> Array:
    """Return the maximum of every 3 x 3 pixels, with stride 2 and an edge of one; the first of equal ones gets the gradient."""

    def directly(x: Array) -> Array:
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    return jax.lax.platform_dependent(x, cpu=lambda x: _pool(_pool(x, 2), 1), default=directly)


def numbers(x: Array, scale: float) -> Array:
    """Return pixels as numbers."""
    x = x.astype(jnp.float32)
    return x / scale if scale != 1 else x


def _directly(x: Array, weight: Array, layer: Layer, scale: float) -> Array:
    padding = [(layer.padding, layer.padding)] * 2
    form = ("NHWC", "OIHW", "NHWC")
    return jax.lax.conv_general_dilated(numbers(x, scale), weight, (layer.stride,) * 2, padding, dimension_numbers=form)


# -- on a CPU ----------------------------------------------------------------------------------------------------------
#
# Inside a loop XLA takes twenty to fifty times as long for a convolution whose dimensions are in another order than
# `_convolve`'s, as those of gradients are; only outside of loops does it put them into that order itself.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _in_blocks(x: Array, weight: Array, layer: Layer, scale: float) -> Array:
    """Convolve a few rows at a time."""
    by, padding = weight.transpose(2, 3, 1, 0), [(layer.padding, layer.padding)] * 2

    def forward(block: Array) -> Array:
        block = numbers(block, scale)
        return _by_patches(block, by, layer) if _suits_patches(layer) else _convolve(block, by, padding, stride=layer.stride)

    return _map(forward, _rows(x, layer), x)


def _save(x: Array, weight: Array, layer: Layer, scale: float) -> tuple[Array, tuple[Array, Array]]:
    return _in_blocks(x, weight, layer, scale), (x, weight)


def _differentiate(layer: Layer, scale: float, saved: tuple[Array, Array], back: Array) -> tuple[Array | None, Array]:
    """Return the gradients of images, of which bytes have none, and of weights, from that of the outcome."""
    x, weight = saved
    edge, kernel, stride = layer.padding, layer.shape[2], layer.stride
    unread = [n + 2 * edge - kernel - (m - 1) * stride for n, m in zip(x.shape[1:3], back.shape[1:3], strict=True)]
    rows = _rows(x, layer)

    def of_weight(block: Array, back: Array) -> Array:
        padding = [(edge, edge - n) for n in unread]
        block = numbers(block.transpose(3, 1, 2, 0), scale)
        return _convolve(block, back.transpose(1, 2, 0, 3), padding, apart=stride)  # (C, K, K, O)

    weights = _sum(of_weight, rows, x, back).transpose(3, 0, 1, 2)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return None, weights
    by = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) / scale
    padding = [(kernel - 1 - edge, kernel - 1 - edge + n) for n in unread]
    return _map(lambda block: _convolve(block, by, padding, spread=stride), rows, back).astype(x.dtype), weights


_in_blocks.defvjp(_save, _differentiate)


def _convolve(
    x: Array, by: Array, padding: Sequence[tuple[int, int]], *, stride: int = 1, spread: int = 1, apart: int = 1
) -> Array:
    """Convolve (B, height, width, C) with (K, K, C, O); `spread` dilates the first, `apart` the second."""
    form = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, by, (stride,) * 2, padding, (spread,) * 2, (apart,) * 2, dimension_numbers=form)


def _suits_patches(layer: Layer) -> bool:
    """Tell whether XLA's own convolution takes one and a half times to three times as long as a product of patches."""
    outputs, inputs, _, _ = layer.shape
    return inputs in (3, 5, 7) or (inputs < 8 and outputs < 32)


def _by_patches(x: Array, by: Array, layer: Layer) -> Array:
    """Convolve by one product of all patches with the weights."""
    kernel, stride, edge = layer.shape[2], layer.stride, (layer.padding, layer.padding)
    x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))
    rows, columns = ((n - kernel) // stride * stride + 1 for n in x.shape[1:3])
    patches = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(kernel) for j in range(kernel)]
    return jnp.concatenate(patches, -1) @ by.reshape(-1, by.shape[-1])


def _rows(x: Array, layer: Layer) -> int:
    """Return how many rows to convolve at once, a power of two."""
    _, inputs, kernel, _ = layer.shape
    height, width = ((n + 2 * layer.padding - kernel) // layer.stride + 1 for n in x.shape[1:3])
    fit = BLOCK // (height * width * kernel * kernel * inputs)
    return 1 << max(fit, 1).bit_length() - 1


def _map(function: Callable[[Array], Array], rows: int, x: Array) -> Array:
    """Apply a function to blocks of rows; return all its rows. Where their number isn't known yet, all are one block."""
    if not isinstance(x.shape[0], int) or x.shape[0] <= rows:
        return function(x)
    (blocks,), (rest,) = _split(rows, x)
    outcome = jax.lax.map(function, blocks)
    outcome = outcome.reshape(-1, *outcome.shape[2:])
    return jnp.concatenate((outcome, function(rest))) if len(rest) else outcome


def _sum(function: Callable[..., Array], rows: int, *arrays: Array) -> Array:
    """Apply a function to blocks of rows; return the sum of what it makes of them."""
    if len(arrays[0]) <= rows:
        return function(*arrays)
    blocks, rest = _split(rows, *arrays)
    start = function(*(rest if len(rest[0]) else [array[0] for array in blocks]))
    others = blocks if len(rest[0]) else [array[1:] for array in blocks]
    total, _ = jax.lax.scan(lambda total, block: (total + function(*block), None), start, others)
    return total


def _split(rows: int, *arrays: Array) -> tuple[list[Array], list[Array]]:
    """Return blocks (blocks, rows, ...) and the rows that are left, of each array."""
    whole = len(arrays[0]) // rows * rows
    blocks = [array[:whole].reshape(-1, rows, *array.shape[1:]) for array in arrays]
    return blocks, [array[whole:] for array in arrays]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x: Array, axis: int) -> Array:
    """Return the maximum of every three along an axis; XLA takes 20 to 50 times as long for the gradient of its own."""
    before, at, after = _threes(x, axis)
    return jnp.maximum(jnp.maximum(before, at), after)


def _save_pool(x: Array, axis: int) -> tuple[Array, tuple[Array, Array]]:
    outcome = _pool(x, axis)
    return outcome, (x, outcome)


def _differentiate_pool(axis: int, saved: tuple[Array, Array], back: Array) -> tuple[Array]:
    """Give each gradient to the first of the three that is the maximum: the one at 2i - 1, 2i or 2i + 1."""
    x, outcome = saved
    before, at, _ = _threes(x, axis)
    is_before = before == outcome
    is_at = ~is_before & (at == outcome)
    to_before = jnp.where(is_before, back, 0)
    widths = [(0, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    to_before = jax.lax.slice_in_dim(jnp.pad(to_before, widths), 1, None, axis=axis)
    odd = jnp.where(is_before | is_at, 0, back) + to_before
    both = jnp.stack((jnp.where(is_at, back, 0), odd), axis + 1)
    both = both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return (jax.lax.slice_in_dim(both, 0, x.shape[axis], axis=axis),)


_pool.defvjp(_save_pool, _differentiate_pool)


def _threes(x: Array, axis: int) -> list[Array]:
    """Return the first, second and third of every three along an axis, two apart, beyond the edges minus infinity."""
    size = x.shape[axis]
    count = (size + 1) // 2
    widths = [(1, 2 * count - size) if i == axis else (0, 0) for i in range(x.ndim)]
    x = jnp.pad(x, widths, constant_values=-jnp.inf)
    return [jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3)]
