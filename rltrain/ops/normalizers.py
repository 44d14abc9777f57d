"""Running mean and variance, and what is done with them; written once: `xp` is torch or jax.numpy."""

from typing import Any, NamedTuple

from rltrain.structures import Array

EPSILON = 1e-8


class Moments(NamedTuple):
    """Statistics of all rows folded in so far."""

    mean: Array  # (*S,)
    variance: Array  # (*S,)
    count: Array  # ()


def fold(xp: Any, moments: Moments, rows: Array, weights: Array | None = None) -> Moments:
    """Return the moments with rows (B, *S) folded in (Chan et al. 1979); rows of weight 0 don't count."""
    if weights is None:
        count = xp.ones_like(moments.count) * rows.shape[0]
        mean = xp.mean(rows, axis=0)
        variance = xp.mean((rows - mean) ** 2, axis=0)
    else:
        w = weights.reshape(-1, *[1] * (rows.ndim - 1))
        count = xp.sum(weights)
        mean = xp.sum(rows * w, axis=0) / xp.clip(count, 1, None)
        variance = xp.sum((rows - mean) ** 2 * w, axis=0) / xp.clip(count, 1, None)
    total = moments.count + count
    share = count / xp.clip(total, 1, None)
    delta = mean - moments.mean
    return Moments(
        mean=moments.mean + delta * share,
        variance=moments.variance * (1 - share) + variance * share + delta**2 * share * (1 - share),
        count=total,
    )


def scale(xp: Any, moments: Moments) -> Array:
    """Return the standard deviation; 1 as long as fewer than two rows came in."""
    return xp.where(moments.count > 1, xp.sqrt(moments.variance + EPSILON), xp.ones_like(moments.variance))


def normalize(xp: Any, moments: Moments, x: Array, clip: float | None = None) -> Array:
    """Return (x - mean) / scale, clipped to [-clip, clip]."""
    normalized = (x - moments.mean) / scale(xp, moments)
    return normalized if clip is None else xp.clip(normalized, -clip, clip)


def denormalize(xp: Any, moments: Moments, x: Array) -> Array:
    """Return x * scale + mean."""
    return x * scale(xp, moments) + moments.mean
