"""Networks in JAX: what they cost."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rltrain.models.config import NetworkConfig
from rltrain.models.networks.jax import ActorCritic

FEW, MANY = 16_384, 131_072  # rows


def cpu_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the least of five times that the compiled function took on the CPU."""
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = []
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_time_grows_with_the_rows_and_not_with_their_square(layer_norm):
    network = ActorCritic(4, 4, 3, NetworkConfig(layer_norm=layer_norm))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    parameters = {name: np.full(shape.shape, 0.1, np.float32) for name, shape in shapes.items()}
    # 8 times the rows take 8 times as long and what memory beyond the caches costs; a product that is computed anew for every
    # part of a sum over its columns takes hundreds of times as long, with layer norm over a hundred
    few, many = (
        cpu_seconds(lambda p, x: jax.nn.log_softmax(network.logits(p, x)), parameters, np.ones((rows, 4), np.float32))
        for rows in (FEW, MANY)
    )
    assert many < 40 * few
