"""Heads in JAX where they differ from their PyTorch twins, which tests/agents/test_twins.py compares."""

import numpy as np
import pytest
from gymnasium import spaces

jnp = pytest.importorskip("jax.numpy")

from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.jax import make_distribution


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([3, 2])], ids=str)
def test_noise_of_zero_draws_nothing_that_is_forbidden(space, xp):
    """An exponential number is 0 once in ten million draws."""
    head = make_distribution(space, NetworkConfig(), "network")
    logits = head.mask(xp.zeros((1, head.size)), xp.asarray([[False, True, True, True, True][: head.size]]))
    noise = np.ones(head.noise_shape(1), np.float32)
    noise[..., 0] = 0.0  # of the masked choice
    noise[..., -1] = 0.0 if head.size == 5 else 1.0  # of a value that the second choice doesn't have
    actions = np.asarray(head.sample(logits, xp.asarray(noise))).ravel()
    assert actions[0] in (1, 2)
    assert space.contains(actions if actions.size > 1 else actions[0])
