"""Convolutions in JAX on a CPU, against XLA's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rltrain.models.convolutions import jax as convolutions
from rltrain.models.images import Layer

LAYERS = {
    "pixels that no kernel reads": (Layer((6, 2, 3, 3), 2), (12, 10, 2)),
    "padding and stride": (Layer((32, 8, 3, 3), 2, padding=1), (8, 7, 8)),
    "three channels": (Layer((32, 3, 4, 4), 2), (13, 12, 3)),
    "few outputs, padding": (Layer((4, 4, 3, 3), padding=1), (6, 7, 4)),
}
IN_ORDER = "dim_labels=b01f_01io->b01f"


def draw(layer: Layer, shape: tuple[int, ...], rows: int = 7) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return images, weights, and a gradient of what comes of them."""
    generator = np.random.default_rng(0)
    sizes = [(n + 2 * layer.padding - layer.shape[2]) // layer.stride + 1 for n in shape[:2]]
    shapes = ((rows, *shape), layer.shape, (rows, *sizes, layer.shape[0]))
    x, weight, back = (jnp.asarray(generator.standard_normal(each), jnp.float32) for each in shapes)
    return x, weight, back


def reference(x: jax.Array, weight: jax.Array, layer: Layer) -> jax.Array:
    padding = [(layer.padding, layer.padding)] * 2
    form = ("NHWC", "OIHW", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, (layer.stride,) * 2, padding, dimension_numbers=form)


def close(one: jax.Array, other: jax.Array) -> None:
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


CASES = [pytest.param(2, *case, id=f"{name}, blocks and a rest") for name, case in LAYERS.items()]
CASES += [pytest.param(rows, *LAYERS["padding and stride"], id=name) for rows, name in ((7, "one block"), (1, "blocks"))]


@pytest.mark.parametrize(("rows_at_once", "layer", "shape"), CASES)
def test_outcome_and_gradients_are_those_of_xlas_own(rows_at_once, layer, shape, monkeypatch):
    monkeypatch.setattr(convolutions, "_rows", lambda x, layer: rows_at_once)

    @jax.jit
    def run(x, weight, back):
        found = []
        for convolve in (convolutions.convolve, reference):
            outcome, vjp = jax.vjp(lambda x, weight, convolve=convolve: convolve(x, weight, layer), x, weight)
            found.append((outcome, *vjp(back)))
        return found

    ours, theirs = run(*draw(layer, shape))
    jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize(("kind", "scale"), [("uint8", 255.0), ("bool", 1.0), ("float32", 4.0)])
def test_pixels_are_divided_by_the_scale(kind, scale):
    layer = Layer((32, 4, 4, 4), 2)
    x, weight, back = draw(layer, (12, 12, 4))
    pixels = jnp.abs(x * 100).astype(kind)

    def ours(pixels, weight):
        return (convolutions.convolve(pixels, weight, layer, scale) * back).sum()

    def theirs(pixels, weight):
        return (reference(pixels.astype(jnp.float32) / scale, weight, layer) * back).sum()

    learned = (0, 1) if kind == "float32" else 1  # bytes have no gradient
    one, other = (jax.jit(jax.value_and_grad(each, learned))(pixels, weight) for each in (ours, theirs))
    jax.tree.map(close, one, other)


@pytest.mark.parametrize(("size", "rows"), [(84, 8), (44, 32), (400, 1)])
def test_a_block_is_of_as_many_rows_as_fit_or_of_one(size, rows):
    assert convolutions._rows(np.zeros((1, size, size, 4)), Layer((32, 4, 8, 8), 4)) == rows


def test_in_a_loop_every_convolution_has_the_order_that_xla_is_quick_with(monkeypatch):
    monkeypatch.setattr(convolutions, "_rows", lambda x, layer: 2)
    layer = Layer((32, 4, 4, 4), 2)
    x, weight, _ = draw(layer, (12, 12, 4))

    def compiled(convolve):
        def step(weight, x):
            of_both = jax.grad(lambda x, weight: jnp.square(convolve(x, weight, layer)).sum(), (0, 1))(x, weight)
            return weight - of_both[1], of_both[0]

        text = jax.jit(lambda weight, xs: jax.lax.scan(step, weight, xs)).lower(weight, x[None].repeat(3, 0)).compile().as_text()
        return re.findall(r" convolution\(.*?(dim_labels=\S+?)[,\s]", text)

    ours = compiled(convolutions.convolve)
    assert len(ours) >= 3 and set(ours) == {IN_ORDER}
    assert set(compiled(reference)) - {IN_ORDER}, "XLA puts them into order itself now: let it"


@pytest.mark.parametrize("sizes", [(6, 5), (5, 8)])
def test_maxima_and_their_gradients_are_those_of_flaxs_pool_also_where_several_are_equal(sizes):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.integers(-2, 2, (3, *sizes, 4)), jnp.float32)

    @jax.jit
    def run(x, back):
        found = []
        for pool in (convolutions.pool, lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))):
            outcome, vjp = jax.vjp(pool, x)
            found.append((outcome, *vjp(back)))
        return found

    ours, theirs = run(x, jnp.asarray(generator.standard_normal((3, *[(n + 1) // 2 for n in sizes], 4)), jnp.float32))
    jax.tree.map(close, ours, theirs)
