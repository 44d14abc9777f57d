"""How groups stand: their numbers on each task, over tasks, and two of them against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rltrain.errors import ConfigError, nearest
from rltrain.results import statistics
from rltrain.results.curves import Curve
from rltrain.results.groups import Group
from rltrain.results.normalizing import Scale

Interval = tuple[float, float]


@dataclass(frozen=True)
class Standing:
    """The numbers of a group on a task, or over tasks; None where there is nothing to say."""

    name: str
    n: int  # runs that count
    so_far: bool  # none is finished, so those that count are still under way
    mean: float | None = None
    median: float | None = None
    iqm: float | None = None
    interval: Interval | None = None  # 95 %, of the interquartile mean
    best: float | None = None
    optimality_gap: float | None = None
    env_steps_per_second: float | None = None
    failures: int = 0
    tasks: int = 1


def counting(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves whose ends are compared: of finished runs, or, where none is, of all that have not failed."""
    there = [curve for curve in curves if len(curve.values)]
    finished = [curve for curve in there if curve.record.state == "finished"]
    return finished or [curve for curve in there if curve.record.state != "failed"]


def finals(curves: Sequence[Curve]) -> np.ndarray:
    """Return the scores of the curves that count (n,)."""
    return np.array([curve.final for curve in counting(curves)], np.float64)


def stand(group: Group, task: str) -> Standing:
    """Return how a group stands on a task."""
    curves = group.of(task)
    counted = counting(curves)
    failures = len({curve.record.directory for curve in curves if curve.record.state in ("failed", "unfinished")})
    so_far = bool(counted) and counted[0].record.state != "finished"
    if not counted:
        return Standing(group.name, 0, so_far, failures=failures)
    scores = [finals(curves)]
    rates = [rate for curve in counted if (rate := curve.record.env_steps_per_second) is not None]
    return Standing(
        group.name,
        len(counted),
        so_far,
        mean=float(statistics.mean(scores)),
        median=float(np.median(scores[0])),  # over runs: there is one task
        iqm=float(statistics.iqm(scores)),
        interval=_interval(scores),
        best=max(curve.best for curve in counted if curve.best is not None),
        env_steps_per_second=float(np.mean(rates)) if rates else None,
        failures=failures,
    )


def stand_over_tasks(group: Group, tasks: Sequence[str], scales: Mapping[str, Scale]) -> Standing | None:
    """Return how a group stands over the tasks that have a scale and that it was run on; None if there is none."""
    scores = normalized(group, tasks, scales)
    if not scores:
        return None
    return Standing(
        group.name,
        sum(map(len, scores)),
        False,
        mean=float(statistics.mean(scores)),
        median=float(statistics.median(scores)),
        iqm=float(statistics.iqm(scores)),
        interval=_interval(scores),
        optimality_gap=float(statistics.optimality_gap(scores)),
        tasks=len(scores),
    )


def normalized(group: Group, tasks: Sequence[str], scales: Mapping[str, Scale]) -> list[np.ndarray]:
    """Return the scores of a group by task, 0 for random actions and 1 for the reference."""
    found = [scales[task].normalize(finals(group.of(task))) for task in tasks if task in scales]
    return [scores for scores in found if len(scores)]


def _interval(scores: list[np.ndarray]) -> Interval | None:
    """Return the interval of the interquartile mean, if there are runs enough to claim one."""
    if min(map(len, scores)) < statistics.FEWEST:
        return None
    low, high = statistics.interval(statistics.iqm, scores)
    return float(low), float(high)


# -- one against another ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of `ours` beats one of `theirs`; on equal seeds, too, where there are some."""

    ours: str
    theirs: str
    tasks: list[str]
    runs: tuple[int, int]
    probability: float
    interval: Interval | None
    pairs: int = 0
    paired: float | None = None
    paired_interval: Interval | None = None


def improvement(ours: Group, theirs: Group, tasks: Sequence[str]) -> Improvement | None:
    """Return how two groups compare over the tasks that both have scores of; None if there is none."""
    common = [task for task in tasks if len(finals(ours.of(task))) and len(finals(theirs.of(task)))]
    if not common:
        return None
    a, b = ([finals(group.of(task)) for task in common] for group in (ours, theirs))
    pairs = [_pairs(ours.of(task), theirs.of(task)) for task in common]
    wins = (
        statistics.wins(*zip(*((p[0], p[1]) for p in pairs if len(p[0])), strict=True)) if any(len(p[0]) for p in pairs) else []
    )
    enough = all(len(scores) >= statistics.FEWEST for scores in [*a, *b])
    return Improvement(
        ours.name,
        theirs.name,
        common,
        (sum(map(len, a)), sum(map(len, b))),
        float(statistics.probability_of_improvement(a, b)),
        _ends(statistics.probability_of_improvement, a, b) if enough else None,
        pairs=sum(map(len, wins)),
        paired=float(statistics.mean(wins)) if wins else None,
        paired_interval=_ends(statistics.mean, wins) if wins and min(map(len, wins)) >= statistics.FEWEST else None,
    )


def _ends(estimate: Callable[..., object], *groups: list[np.ndarray]) -> Interval:
    low, high = statistics.interval(estimate, *groups)
    return float(low), float(high)


def _pairs(ours: Sequence[Curve], theirs: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of runs of equal seeds, each (pairs,)."""
    a, b = by_seed(counting(ours)), by_seed(counting(theirs))
    seeds = [seed for seed in a if seed in b]
    return np.array([a[seed].final for seed in seeds]), np.array([b[seed].final for seed in seeds])


def by_seed(curves: Sequence[Curve]) -> dict[tuple[int | None, int], Curve]:
    """Return curves by seed, and by place among the agents of one run that are alike."""
    found: dict[tuple[int | None, int], Curve] = {}
    for curve in curves:
        if curve.record.seed is None:
            continue
        same = [one for one in found.values() if one.record is curve.record]
        found.setdefault((curve.record.seed, len(same)), curve)
    return found


def choose_pair(groups: Sequence[Group], wanted: Sequence[str]) -> tuple[Group, Group]:
    """Return the two groups that `compare` names: by their names, or by parts of them that no other name has.

    Raises ConfigError.
    """
    names = {group.name: group for group in groups}
    given = f"[{','.join(wanted)}]"
    if len(wanted) != 2:
        raise ConfigError("compare", given, f"must be two groups, as in compare=[A,B]; {nearest('', names)}")
    found = []
    for word in wanted:
        exact = [names[word]] if word in names else [g for g in groups if word in _values(g)]
        within = exact or [group for group in groups if word and word in group.name]
        if len(within) != 1:
            what = "means several groups" if within else "no such group"
            raise ConfigError("compare", word, f"{what}; {nearest(word, [g.name for g in within] or names)}")
        found.append(within[0])
    if found[0] is found[1]:
        raise ConfigError("compare", given, f"is one group twice; {nearest('', names)}")
    return found[0], found[1]


def _values(group: Group) -> list[str]:
    return [word.partition("=")[2] for word in group.name.split() if "=" in word]
