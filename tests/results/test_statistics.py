"""Estimates and intervals are those of rliable 1.2.0; rliable_numbers.py wrote its numbers down."""

import json
from pathlib import Path

import numpy as np
import pytest

from rltrain.results import statistics

RLIABLE = json.loads(Path(__file__).with_name("rliable.json").read_text())
CASES = RLIABLE["cases"]
THRESHOLDS = np.array(RLIABLE["thresholds"])
ESTIMATES = (statistics.iqm, statistics.mean, statistics.median, statistics.optimality_gap)


def tasks(rows: list[list[float]]) -> list[np.ndarray]:
    """Return (runs, tasks) as a list of tasks."""
    return list(np.array(rows).T)


def drawn(scores: list[np.ndarray], random: np.random.RandomState) -> list[np.ndarray]:
    """Return what rliable draws of scores in one resample, by task."""
    runs = len(scores[0])
    return list(random.choice(runs, (runs, len(scores)), replace=True).T)


def indices(seed: int, *groups: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Return what rliable draws in all resamples: by group, by task, (resamples, runs)."""
    random = np.random.RandomState(seed)
    resamples = [[drawn(group, random) for group in groups] for _ in range(RLIABLE["resamples"])]
    return [[np.array([one[g][m] for one in resamples]) for m in range(len(group))] for g, group in enumerate(groups)]


def assert_equal(ours: object, theirs: object) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_estimates(case):
    ours, theirs = tasks(CASES[case]["ours"]), tasks(CASES[case]["theirs"])
    for estimate in ESTIMATES:
        assert_equal(estimate(ours), CASES[case]["estimates"][estimate.__name__])
    assert_equal(statistics.performance_profile(ours, THRESHOLDS), CASES[case]["profile"])
    assert_equal(statistics.probability_of_improvement(ours, theirs), CASES[case]["improvement"])


@pytest.mark.parametrize("case", CASES)
def test_intervals_of_the_same_resamples(case):
    ours, theirs = tasks(CASES[case]["ours"]), tasks(CASES[case]["theirs"])
    same = indices(1, ours)
    for estimate in ESTIMATES:
        assert_equal(statistics.interval(estimate, ours, indices=same), CASES[case]["intervals"][estimate.__name__])
    low, high = statistics.interval(
        lambda drawn: statistics.performance_profile(drawn, THRESHOLDS), ours, indices=indices(2, ours)
    )
    assert_equal(np.stack([low, high], 1), CASES[case]["profile_intervals"])
    improvement = statistics.interval(statistics.probability_of_improvement, ours, theirs, indices=indices(3, ours, theirs))
    assert_equal(improvement, CASES[case]["improvement_interval"])


@pytest.mark.parametrize("case", RLIABLE["ends"])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_intervals_of_resamples_of_our_own(case, estimate):
    """Ends lie between rliable's percentiles four standard errors of 20,000 resamples below and above 2.5 % and 97.5 %."""
    low, high = statistics.interval(estimate, tasks(CASES[case]["ours"]), resamples=RLIABLE["many"])
    ends = RLIABLE["ends"][case][estimate.__name__]
    assert ends[0] <= low <= ends[1] and ends[2] <= high <= ends[3]


def test_by_hand():
    one = [np.array([0.0, 10.0, 20.0, 30.0, 1000.0])]  # int(0.25 * 5) = 1 falls away at each end
    assert statistics.iqm(one) == (10 + 20 + 30) / 3
    two = [np.array([1.0, 3.0]), np.array([10.0])]  # unequal numbers of seeds
    assert statistics.iqm(two) == (1 + 3 + 10) / 3  # int(0.75) = 0
    assert (statistics.mean(two), statistics.median(two)) == ((2 + 10) / 2, 6.0)
    assert statistics.optimality_gap([np.array([0.25, 3.0])]) == 1 - (0.25 + 1) / 2
    # 2 beats 1 and loses to 3; 3 beats 1 and ties with 3: (1 + 0 + 1 + 1/2) / 4
    assert statistics.probability_of_improvement([np.array([2.0, 3.0])], [np.array([1.0, 3.0])]) == 2.5 / 4
    assert statistics.mean(statistics.wins([np.array([2.0, 3.0])], [np.array([1.0, 3.0])])) == (1 + 0.5) / 2


def test_pairs_are_resampled_whole():
    """Every seed gains a little: sure on equal seeds, unsure where seeds are drawn apart."""
    base = np.array([0.0, 10.0, 20.0, 30.0, 40.0])
    pairs = statistics.wins([base + 1], [base])
    assert statistics.interval(statistics.mean, pairs) == (1.0, 1.0)
    low, high = statistics.interval(statistics.probability_of_improvement, [base + 1], [base])
    assert low < 0.3 and high > 0.8 and statistics.probability_of_improvement([base + 1], [base]) == 15 / 25


def test_curves_are_resampled_whole_and_in_parts(monkeypatch):
    """A curve that is another one plus 1 everywhere has its interval plus 1, however the resamples are cut."""
    scores = np.random.default_rng(0).normal(size=(3, 6))
    low, high = statistics.interval(statistics.iqm, [np.concatenate([scores, scores + 1])], resamples=500)
    assert low.shape == (6,) and (low < high).all()
    assert_equal(low[3:], low[:3] + 1)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    again = statistics.interval(statistics.iqm, [np.concatenate([scores, scores + 1])], resamples=500)
    assert_equal(again, (low, high))
