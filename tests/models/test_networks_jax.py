"""Networks in JAX: what they cost; the same numbers in NumPy, row by row and unrolled."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rltrain.models.config import ACTIVATIONS, ActorCriticsConfig, NetworkConfig, QNetworkConfig
from rltrain.models.networks.jax import ActorCritic, Critics, FeedForward, Policy, QNetwork

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


INPUTS = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
ACTIONS = np.random.default_rng(2).normal(size=(20, 2)).astype(np.float32)
CFG = {"policy_sizes": [8, 6]}


def fresh(network: Any) -> dict[str, np.ndarray]:
    """Return parameters of which nothing is zero or one."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return {name: generator.normal(0.5, 0.3, shape.shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("activation", "layer_norm"), [*((name, False) for name in ACTIVATIONS), ("tanh", True)])
def test_acting_in_numpy_gives_the_compiled_numbers(activation, layer_norm):
    network = ActorCritic(4, 4, 3, NetworkConfig(activation=activation, layer_norm=layer_norm, shared=True, **CFG))
    parameters = fresh(network)
    in_numpy = network.forward(parameters, INPUTS, INPUTS)
    compiled = jax.jit(network.forward)(parameters, INPUTS, INPUTS)
    for one, other in zip(in_numpy, compiled, strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


class Halves:
    """An encoder of two leaves."""

    size = 4

    def init(self, key: Any) -> dict[str, Any]:
        """Return fresh parameters."""
        return {"scale": jax.numpy.float32(0.5)}

    def forward(self, parameters: dict[str, Any], inputs: dict[str, Any]) -> Any:
        """Return features (B, 4)."""
        return jax.numpy.concatenate((inputs["a"] * parameters["scale"], inputs["b"]), 1)


def networks() -> dict[str, tuple[FeedForward, bool]]:
    """Return the feed-forward parts of every network, and whether they read actions."""
    shared, apart = (ActorCritic(4, 4, 3, NetworkConfig(shared=shared, **CFG)) for shared in (True, False))
    critics = ActorCriticsConfig(critic_sizes=[8], policy_sizes=[8])
    return {
        "shared": (shared.shared, False), "policy": (apart.policy, False), "value": (apart.value, False),
        "values of choices": (QNetwork(4, 3, QNetworkConfig(sizes=[8], dueling=True)).q, False),
        "a critic": (Critics(2, 6, 1, critics).networks[1], True),
        "an encoder": (Policy(4, 3, critics, Halves()).policy, False),
    }  # fmt: skip


@pytest.mark.parametrize("kind", networks())
def test_unrolled_rows_are_those_of_steps_and_of_forward(kind):
    network, reads_actions = networks()[kind]
    parameters = {name: jax.numpy.asarray(array) for name, array in fresh(network).items()}
    rows = jax.numpy.asarray(INPUTS[:18].reshape(6, 3, 4))  # T, N
    actions = jax.numpy.asarray(ACTIONS[:18].reshape(6, 3, 2)) if reads_actions else None
    read = (lambda x: {"a": x[..., :1], "b": x[..., 1:]}) if network.encoder is not None else (lambda x: x)
    starts, carry = np.zeros((6, 3), bool), network.init_carry(3)
    outputs, last, changes = jax.jit(network.unroll)(parameters, read(rows), starts, carry, actions=actions)
    assert outputs.shape[:2] == (6, 3) and last is None and changes == {}
    step, forward = jax.jit(network.step), jax.jit(network.forward)
    for t in range(6):
        now = None if actions is None else actions[t]
        found, carry = step(parameters, read(rows[t]), carry, actions=now)
        np.testing.assert_allclose(found, outputs[t], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(forward(parameters, read(rows[t]), now), outputs[t], rtol=1e-6, atol=1e-6)
