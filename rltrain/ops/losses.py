"""Losses, their gradients and the numbers around them, written once: `xp` is torch or jax.numpy.

Every argument is a row per transition, (B,). `weights` (B,) are 1 where the row happened and 0 where not, or None: all happened.
"""

from typing import Any, NamedTuple

from rltrain.structures import Array


def mean(xp: Any, x: Array, weights: Array | None = None) -> Array:
    """Return the mean over the rows that happened: sum(w x) / max(sum(w), 1)."""
    if weights is None:
        return xp.mean(x)
    return xp.sum(x * weights) / xp.clip(xp.sum(weights), 1, None)


def shares(xp: Any, rows: Array, weights: Array | None = None) -> Array:
    """Return each row's share in a mean over the rows that happened, w / max(sum(w), 1); they add up to 1."""
    if weights is None:
        return xp.full_like(rows, 1.0 / rows.shape[0])
    return weights / xp.clip(xp.sum(weights), 1, None)


def standardize(xp: Any, x: Array, weights: Array | None = None, epsilon: float = 1e-8) -> Array:
    """Return (x - mean) / (standard deviation + epsilon), both over the rows that happened."""
    centred = x - mean(xp, x, weights)
    return centred / (xp.sqrt(mean(xp, centred * centred, weights)) + epsilon)


class Gradients(NamedTuple):
    """Of a loss, with respect to what the networks say about each row, (B,) each."""

    log_probs: Array
    values: Array
    entropies: Array


def actor_critic_loss(policy: Array, value: Array, entropy: Array, value_scale: float, entropy_scale: float) -> Array:
    """Return L = L_policy + value_scale x L_value - entropy_scale x H (Schulman et al. 2017, equation 9), of means or rows."""
    return policy + value_scale * value - entropy_scale * entropy


def actor_critic_gradients(policy: Array, value: Array, shares: Array, value_scale: float, entropy_scale: float) -> Gradients:
    """Return the gradients of the mean of `actor_critic_loss` over rows with these shares in it.

    `policy` is that of each row's L_policy with respect to log p(a), `value` that of L_value with respect to V.
    """
    return Gradients(log_probs=policy * shares, values=value * (value_scale * shares), entropies=-entropy_scale * shares)


def clipped_surrogate(xp: Any, ratios: Array, advantages: Array, ratio_clip: float) -> tuple[Array, Array]:
    """Return PPO's policy loss per row, -min(r A, clip(r, 1 - c, 1 + c) A) (Schulman et al. 2017, equation 7), and its gradient.

    That is with respect to log p: -r A where the first term is the smaller, 0 where the clipped one is.
    """
    plain = ratios * advantages
    clipped = xp.clip(ratios, 1 - ratio_clip, 1 + ratio_clip) * advantages
    return -xp.minimum(plain, clipped), xp.where(plain <= clipped, -plain, 0.0)


def squared_error(xp: Any, values: Array, old_values: Array, returns: Array, value_clip: float | None) -> tuple[Array, Array]:
    """Return (V - R)^2 per row and its gradient with respect to V, 2 (V - R).

    With `value_clip` c: max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2), as in OpenAI's baselines; the gradient is 0
    where the second term is the larger and clipped.
    """
    difference = values - returns
    errors = difference * difference
    if value_clip is None:
        return errors, 2 * difference
    change = values - old_values
    clipped = (old_values + xp.clip(change, -value_clip, value_clip) - returns) ** 2
    moves = (errors >= clipped) | (xp.abs(change) <= value_clip)  # unclipped, both terms are one, but for rounding
    return xp.maximum(errors, clipped), xp.where(moves, 2 * difference, 0.0)


def temporal_difference_loss(xp: Any, differences: Array, kind: str) -> tuple[Array, Array]:
    """Return the loss of d = Q - target per row, and its gradient with respect to Q.

    squared: d^2 and 2 d; huber: d^2 / 2 and d up to |d| = 1, |d| - 1/2 and the sign of d beyond (Mnih et al. 2015).
    """
    if kind == "squared":
        return differences * differences, 2 * differences
    gradients = xp.clip(differences, -1.0, 1.0)
    return gradients * (differences - 0.5 * gradients), gradients


def sequence_errors(xp: Any, errors: Array, happened: Array | None = None) -> Array:
    """Return what the priority of each sequence follows, (S,), of errors (L, S): .9 max + .1 mean of their sizes.

    Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning", section 2.3. Rows that didn't
    happen, 0 in `happened` (L, S), don't count.
    """
    sizes = xp.abs(errors)
    if happened is None:
        return 0.9 * xp.amax(sizes, 0) + 0.1 * sizes.mean(0)
    sizes = sizes * happened
    return 0.9 * xp.amax(sizes, 0) + 0.1 * sizes.sum(0) / xp.clip(happened.sum(0), 1, None)


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
