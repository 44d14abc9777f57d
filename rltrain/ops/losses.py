"""Losses and the numbers around them, written once: `xp` is torch or jax.numpy.

Every argument is a row per transition, (B,). `weights` (B,) are 1 where the row happened and 0 where not, or None: all happened.
"""

from typing import Any

from rltrain.structures import Array


def mean(xp: Any, x: Array, weights: Array | None = None) -> Array:
    """Return the mean over the rows that happened: sum(w x) / max(sum(w), 1)."""
    if weights is None:
        return xp.mean(x)
    return xp.sum(x * weights) / xp.clip(xp.sum(weights), 1, None)


def standardize(xp: Any, x: Array, weights: Array | None = None, epsilon: float = 1e-8) -> Array:
    """Return (x - mean) / (standard deviation + epsilon), both over the rows that happened."""
    centred = x - mean(xp, x, weights)
    return centred / (xp.sqrt(mean(xp, centred * centred, weights)) + epsilon)


def clipped_surrogate(xp: Any, ratios: Array, advantages: Array, ratio_clip: float) -> Array:
    """Return PPO's policy loss per row, -min(r A, clip(r, 1 - c, 1 + c) A) (Schulman et al. 2017, equation 7)."""
    return -xp.minimum(ratios * advantages, xp.clip(ratios, 1 - ratio_clip, 1 + ratio_clip) * advantages)


def squared_error(xp: Any, values: Array, old_values: Array, returns: Array, value_clip: float | None) -> Array:
    """Return (V - R)^2 per row.

    With `value_clip` c: max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2), as in OpenAI's baselines.
    """
    errors = (values - returns) ** 2
    if value_clip is None:
        return errors
    clipped = old_values + xp.clip(values - old_values, -value_clip, value_clip)
    return xp.maximum(errors, (clipped - returns) ** 2)


def approximate_kl(ratios: Array, log_ratios: Array) -> Array:
    """Return an estimate of KL(old, new) per row, r - 1 - log r, never negative (Schulman 2020, "Approximating KL")."""
    return (ratios - 1) - log_ratios


def explained_variance(xp: Any, values: Array, returns: Array, weights: Array | None = None) -> Array:
    """Return 1 - Var(R - V) / Var(R); 0 where the returns don't vary."""
    error, spread = returns - values, returns - mean(xp, returns, weights)
    error = error - mean(xp, error, weights)
    variance = mean(xp, spread * spread, weights)
    ratio = mean(xp, error * error, weights) / xp.clip(variance, 1e-8, None)
    return xp.where(variance > 1e-8, 1 - ratio, xp.zeros_like(ratio))
