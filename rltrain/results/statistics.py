"""What can be said of a few runs: estimates that a single lucky seed doesn't move, and how sure they are.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv:2108.13264). Scores are a
list of arrays, one per task, (..., runs); tasks may have different numbers of runs. Functions reduce the last axis.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Scores = Sequence[np.ndarray]
Indices = Sequence[np.ndarray]  # of one group: by task, (resamples, runs)

FEWEST = 5  # runs; below that no interval is claimed
RESAMPLES = 10_000
CHUNK = 2**22  # numbers held at once


# -- estimates -------------------------------------------------------------------------------------------------------------


def iqm(scores: Scores) -> Any:
    """Return the interquartile mean: of all runs of all tasks, without the lowest and the highest 25 %."""
    pooled = np.sort(_pooled(scores), axis=-1)
    cut = int(0.25 * pooled.shape[-1])
    return pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)


def mean(scores: Scores) -> Any:
    """Return the mean over tasks of the means over runs."""
    return _task_means(scores).mean(axis=-1)


def median(scores: Scores) -> Any:
    """Return the median over tasks of the means over runs; of one task it is that mean."""
    return np.median(_task_means(scores), axis=-1)


def optimality_gap(scores: Scores, *, optimum: float = 1.0) -> Any:
    """Return how far below `optimum` runs are on average, those above it counted as there."""
    return optimum - np.minimum(_pooled(scores), optimum).mean(axis=-1)


def performance_profile(scores: Scores, thresholds: np.ndarray) -> Any:
    """Return the share of runs with a score above each threshold (K,): (..., runs) -> (..., K)."""
    pooled = _pooled(scores)
    return np.stack([(pooled > threshold).mean(axis=-1) for threshold in thresholds], axis=-1)


def probability_of_improvement(ours: Scores, theirs: Scores) -> Any:
    """Return the probability that a run of ours beats one of theirs on the same task, mean over tasks; a tie counts half."""
    return np.stack([_won(a[..., :, None], b[..., None, :]).mean(axis=(-2, -1)) for a, b in _tasks(ours, theirs)], -1).mean(-1)


def wins(ours: Scores, theirs: Scores) -> list[np.ndarray]:
    """Return for each pair of runs, of equal seeds, whether ours won: 1, 0, or 1/2 for a tie.

    Their `mean` is the probability of improvement on equal seeds; pairs are resampled whole.
    """
    return [_won(a, b) for a, b in _tasks(ours, theirs)]


def _pooled(scores: Scores) -> np.ndarray:
    return np.concatenate(list(scores), axis=-1)


def _task_means(scores: Scores) -> np.ndarray:
    return np.stack([task.mean(axis=-1) for task in scores], axis=-1)


def _tasks(ours: Scores, theirs: Scores) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(ours, theirs, strict=True)


def _won(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (ours > theirs) + 0.5 * (ours == theirs)


# -- how sure they are -----------------------------------------------------------------------------------------------------


def interval(
    estimate: Callable[..., Any],
    *groups: Scores,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    indices: Sequence[Indices] | None = None,
) -> tuple[Any, Any]:
    """Return the ends of the percentile interval of `estimate(*groups)` by a stratified bootstrap.

    In each resample every task keeps its number of runs, drawn anew with replacement; groups are drawn independently. Of
    arrays (..., runs) a run is drawn whole, so a curve's intervals belong together. `indices` replaces the drawing.
    """
    if indices is None:
        generator = np.random.default_rng(seed)
        indices = [_draw(generator, group, resamples) for group in groups]
    found = []
    for part in _parts(groups, len(indices[0][0])):
        drawn = [
            [_take(task, chosen[part]) for task, chosen in zip(group, chosen_of, strict=True)]
            for group, chosen_of in zip(groups, indices, strict=True)
        ]
        found.append(np.asarray(estimate(*drawn)))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail], axis=0)
    return low, high


def _draw(generator: np.random.Generator, group: Scores, resamples: int) -> Indices:
    return [generator.integers(0, task.shape[-1], (resamples, task.shape[-1])) for task in group]


def _take(task: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return (resamples, ..., runs) of a task's (..., runs)."""
    return np.moveaxis(task[..., chosen], -2, 0)


def _parts(groups: Sequence[Scores], resamples: int) -> list[slice]:
    """Return slices of the resamples, so that no array becomes huge; pairs of runs need the product of their numbers."""
    size = max(sum(task.size for task in group) for group in groups)
    size *= max((task.shape[-1] for group in groups[1:] for task in group), default=1)
    step = max(1, CHUNK // max(1, size))
    return [slice(start, start + step) for start in range(0, resamples, step)]
