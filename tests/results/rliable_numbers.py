"""Writes rliable.json, the numbers of rliable 1.2.0 that test_statistics.py compares with.

Needs an environment of its own: pip install rliable==1.2.0 "pandas<3"; python tests/results/rliable_numbers.py
"""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

RESAMPLES, MANY = 400, 20_000
THRESHOLDS = [-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5]
ESTIMATES = {
    "iqm": metrics.aggregate_iqm,
    "mean": metrics.aggregate_mean,
    "median": metrics.aggregate_median,
    "optimality_gap": metrics.aggregate_optimality_gap,
}


def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pairs of scores, each (runs, tasks)."""
    rng = np.random.RandomState(7)
    normal = rng.normal(0.6, 0.4, (10, 4)).round(4), rng.normal(0.4, 0.5, (10, 4)).round(4)
    return {
        "four tasks, ten seeds": normal,
        "one task, five seeds": (rng.normal(0.5, 0.3, (5, 1)).round(4), rng.normal(0.7, 0.3, (5, 1)).round(4)),
        "odd counts": (rng.gamma(2.0, 0.4, (7, 3)).round(4), rng.gamma(2.0, 0.3, (3, 3)).round(4)),
        "ties": (rng.randint(0, 4, (6, 2)) / 4, rng.randint(0, 4, (6, 2)) / 4),
        "equal": (normal[0][:5, :2], normal[0][:5, :2]),
        "one seed": (rng.normal(0.5, 0.3, (1, 3)).round(4), rng.normal(0.5, 0.3, (2, 3)).round(4)),
    }


def interval(scores: object, function: object, seed: int) -> list[list[float]]:
    np.random.seed(seed)
    _, found = library.get_interval_estimates({"a": scores}, function, reps=RESAMPLES)
    return np.asarray(found["a"]).T.tolist()  # of each number: low, high


def case(ours: np.ndarray, theirs: np.ndarray) -> dict[str, object]:
    estimates = {name: float(function(ours)) for name, function in ESTIMATES.items()}
    improvement = metrics.probability_of_improvement
    every = lambda scores: np.array([function(scores) for function in ESTIMATES.values()])  # noqa: E731
    return {
        "ours": ours.tolist(),
        "theirs": theirs.tolist(),
        "estimates": estimates,
        "intervals": dict(zip(ESTIMATES, interval(ours, every, 1), strict=True)),
        "profile": library.score_distributions(ours, THRESHOLDS).tolist(),
        "profile_intervals": interval(ours, lambda scores: library.score_distributions(scores, THRESHOLDS), 2),
        "improvement": float(improvement(ours, theirs)),
        "improvement_interval": interval([ours, theirs], lambda a, b: np.array([improvement(a, b)]), 3)[0],
    }


def many(scores: np.ndarray) -> dict[str, list[float]]:
    """Return where the ends of an interval by MANY resamples lie, give or take four standard errors of the drawing."""
    np.random.seed(4)
    bootstrap = library.StratifiedBootstrap(scores)
    found = bootstrap.apply(lambda drawn: np.array([function(drawn) for function in ESTIMATES.values()]), MANY)
    error = 400 * np.sqrt(0.025 * 0.975 / MANY) * np.sqrt(2)  # in per cent; both sides draw
    shares = [2.5 - error, 2.5 + error, 97.5 - error, 97.5 + error]
    return {name: np.percentile(found[:, i], shares).tolist() for i, name in enumerate(ESTIMATES)}


if __name__ == "__main__":
    pairs = arrays()
    saved = {
        "about": "rliable 1.2.0; written by rliable_numbers.py, which says how",
        "resamples": RESAMPLES,
        "many": MANY,
        "thresholds": THRESHOLDS,
        "cases": {name: case(*pair) for name, pair in pairs.items()},
        "ends": {name: many(pairs[name][0]) for name in ("four tasks, ten seeds", "one task, five seeds")},
    }
    Path(__file__).with_name("rliable.json").write_text(json.dumps(saved) + "\n")
