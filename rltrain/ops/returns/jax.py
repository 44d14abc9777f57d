"""Returns and advantages in JAX."""

import jax.numpy as jnp

from rltrain.structures import Array


def generalized_advantages(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    discount_factor: float,
    gae_lambda: float,
) -> Array:
    """Return GAE's advantages, every argument (T, N) -> (T, N) (Schulman et al. 2016, equation 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t), with s' the true successor;
    A_t = delta_t + gamma lambda (1 - (terminated_t or truncated_t)) A_{t+1}.
    """
    deltas = rewards + discount_factor * next_values * ~terminated - values
    return _scan_back(deltas, (discount_factor * gae_lambda) * ~(terminated | truncated))


def running_returns(rewards: Array, done: Array, before: Array, discount_factor: float) -> tuple[Array, Array]:
    """Return the discounted sums of the rewards so far in each episode, (T, N), and those to go on from, (N,).

    G_t = r_t + gamma G_{t-1} within an episode; `before` (N,) are the sums that the rewards go on from, `done` (T, N) ends one.
    """
    starts = jnp.concatenate((jnp.zeros_like(done[:1]), done[:-1]))
    first = rewards[:1] + discount_factor * before
    sums = _scan_back(jnp.concatenate((first, rewards[1:]))[::-1], (discount_factor * ~starts)[::-1])[::-1]
    return sums, sums[-1] * ~done[-1]


def _scan_back(x: Array, coefficients: Array) -> Array:
    """Return A_t = x_t + c_t A_{t+1}, (T, N); the last coefficient is not used.

    Solved in log2(T) steps over whole arrays: after a step of stride s, row t holds the sum of its next 2 s terms and c_t the
    product that leads to the term after them (Hillis and Steele 1986).
    """
    stride, length = 1, x.shape[0]
    while stride < length:
        head = x[:-stride] + coefficients[:-stride] * x[stride:]
        x = jnp.concatenate((head, x[-stride:]))
        head = coefficients[:-stride] * coefficients[stride:]
        coefficients = jnp.concatenate((head, jnp.zeros_like(coefficients[-stride:])))
        stride *= 2
    return x
