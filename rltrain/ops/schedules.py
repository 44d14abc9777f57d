"""Values that change over a run, written once: `xp` is numpy or jax.numpy."""

from typing import Any

from rltrain.structures import Array, Progress

KINDS = ["constant", "linear", "cosine", "exponential"]
END = "what is left of it at the horizon, as a part of its first value"  # of a setting's last value


def fraction(xp: Any, progress: Progress, every: int) -> Array:
    """Return the part of the horizon that was over when the rollout of `every` timesteps began, in [0, 1].

    The first update has 0, update k of K has k / K; what is trained beyond the horizon has 1.
    """
    done = (progress.timestep + 1 - every) / progress.timesteps
    return min(max(done, 0.0), 1.0) if isinstance(done, float) else xp.clip(done, 0.0, 1.0)  # NumPy takes 10 us for a scalar


def scheduled(xp: Any, kind: str, initial: float, end: float, done: Array) -> Array:
    """Return the value at fraction `done` of the horizon, from `initial` to `end` x `initial`.

    linear: initial (1 + (end - 1) done); cosine: half a wave, initial (end + (1 - end) (1 + cos(pi done)) / 2);
    exponential: initial end^done.
    """
    if kind == "linear":
        return initial * (1 + (end - 1) * done)
    if kind == "cosine":
        return initial * (end + (1 - end) * (1 + xp.cos(xp.pi * done)) / 2)
    if kind == "exponential":
        return initial * end**done
    return initial


def adapted(xp: Any, learning_rate: Array, kl: Array, target: float) -> Array:
    """Return the learning rate for the next steps: divided by 1.5 if kl > 2 target, multiplied if kl < target / 2.

    What changes stays within 1e-6 ... 1e-2 (Rudin et al. 2022, "Learning to walk in minutes", the rule and the factor).
    """
    factor = xp.where(kl > 2 * target, 1 / 1.5, xp.where(kl < target / 2, 1.5, 1.0))
    return xp.where(factor == 1, learning_rate, xp.clip(learning_rate * factor, 1e-6, 1e-2))
