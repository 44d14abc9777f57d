"""Pictures of a report: curves, final scores, performance profile, probability of improvement."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rltrain.results import statistics
from rltrain.results.curves import Curve, on_grid
from rltrain.results.figures import HEIGHT, TEXT, Drawn, figure, is_wide, key_size, saved, style_of, unit_of, write_key
from rltrain.results.groups import Group
from rltrain.results.labels import wrapped, write_labels
from rltrain.results.standing import Improvement, Interval, finals

RESAMPLES = 1000  # of a curve, at each of its points
MOST_LINES = 18  # of names beside a panel
NAME = 24  # characters of a name's line beside a row
BAND = 0.8  # opacity of all bands of a panel together, each 0.2 at most


# -- curves ----------------------------------------------------------------------------------------------------------------


def draw_curves(groups: Sequence[Group], tasks: Sequence[str], drawn: Drawn) -> dict[str, bytes]:
    """Return curves.png and .svg: a panel per task, the groups' lines with their intervals; of few seeds each one's line.

    Names stand at the lines' ends; of many, or where panels stand side by side, in a key below them.
    """
    there = {task: [(i, g, [c for c in g.of(task) if len(c.values)]) for i, g in enumerate(groups)] for task in tasks}
    counts = [(i, g.name, [len(there[task][i][2]) for task in tasks if there[task][i][2]]) for i, g in enumerate(groups)]
    key = drawn.key([one for one in counts if one[2]])
    lines = sum(wrapped(name).count("\n") + 1 for name, *_ in key)
    with_key = is_wide(len(tasks)) or lines > MOST_LINES
    height = HEIGHT if with_key else max(HEIGHT, 0.11 * lines + 0.5)
    with figure(len(tasks), height, key_size(key, len(tasks))[1] if with_key else 0) as (made, panels):
        for panel, task in zip(panels, tasks, strict=True):
            over = [one for one in there[task] if one[2]]
            last = max(curve.over(drawn.x)[-1] for *_, curves in over for curve in curves) if over else 1.0
            unit, name = unit_of(drawn.x, last)
            ends = [_draw_group(panel, i, g, curves, drawn, unit, len(over)) for i, g, curves in over]
            panel.set_title(task if len(tasks) > 1 else "", loc="left")
            panel.set_xlabel(name)
            panel.set_ylabel(drawn.metric if panel.get_subplotspec().is_first_col() else "")
            panel.margins(x=0.01)
            if not with_key:
                write_labels(panel, ends, TEXT - 0.5, drawn.heading)
        if with_key:
            write_key(made, key, len(tasks), drawn.heading)
        return saved(made, "curves", drawn)


def _draw_group(
    panel: Any, index: int, group: Group, curves: Sequence[Curve], drawn: Drawn, unit: float, count: int
) -> tuple[float, float, str, Any]:
    """Draw one of `count` groups, its line or its lines; return where its name belongs: (x, y, name, color)."""
    color, dashes = style_of(index)
    name = wrapped(drawn.named(group.name, len(curves)))
    for curve in curves:
        if curve.record.state != "finished":
            x, y = curve.over(drawn.x)[-1] / unit, curve.values[-1]
            panel.plot([x], [y], ">" if curve.record.state == "running" else "x", color=color, ms=3.5, mew=0.9)
    if len(curves) < statistics.FEWEST:
        for curve in curves:
            panel.plot(curve.over(drawn.x) / unit, curve.values, color=color, ls=dashes, lw=0.7, marker=_dot(curve), ms=2)
        longest = max(curves, key=lambda curve: curve.over(drawn.x)[-1])
        ended = [curve for curve in curves if curve.over(drawn.x)[-1] >= 0.99 * longest.over(drawn.x)[-1]]
        middle_one = sorted(ended, key=lambda curve: curve.values[-1])[(len(ended) - 1) // 2]
        return middle_one.over(drawn.x)[-1] / unit, float(middle_one.values[-1]), name, color
    grid, values = on_grid(curves, drawn.x)
    middle, low, high = summarize(values, drawn)
    whole = np.isfinite(values).all(axis=0)
    panel.fill_between(grid / unit, low, high, color=color, alpha=min(0.2, BAND / count), lw=0)
    panel.plot(grid / unit, np.where(whole, middle, np.nan), color=color, ls=dashes, lw=1.4)
    beside = ~whole | ~np.append(whole[1:], True) | ~np.append(True, whole[:-1])
    panel.plot(grid / unit, np.where(beside, middle, np.nan), color=color, ls=dashes, lw=0.6)  # where not all have come to
    end = np.flatnonzero(np.isfinite(middle))[-1]
    return grid[end] / unit, float(middle[end]), name, color


def _dot(curve: Curve) -> str | None:
    return "." if len(curve.values) == 1 else None


def summarize(values: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the estimate over runs (n, T) -> (T,), and its interval, NaN where fewer than five runs have come to."""
    there = np.isfinite(values)
    middle, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    for pattern in np.unique(there, axis=1).T:
        columns = (there == pattern[:, None]).all(axis=0)
        scores = [values[pattern][:, columns].T]
        if not pattern.any():
            continue
        middle[columns] = drawn.estimate(scores)
        if pattern.sum() >= statistics.FEWEST:
            low[columns], high[columns] = statistics.interval(drawn.estimate, scores, resamples=RESAMPLES)
    return middle, low, high


# -- final scores ----------------------------------------------------------------------------------------------------------


def draw_finals(groups: Sequence[Group], tasks: Sequence[str], drawn: Drawn) -> dict[str, bytes]:
    """Return final.png and .svg: a circle per run, the estimate, and its interval where there are runs enough."""
    scores = {task: [finals(group.of(task)) for group in groups] for task in tasks}
    wide = is_wide(len(tasks))
    counts = [(i, g.name, [n for task in tasks if (n := len(scores[task][i]))] or [0]) for i, g in enumerate(groups)]
    common = [name for name, *_ in drawn.key(counts)]
    lines = max(wrapped(name, NAME).count("\n") + 1 for name in common)
    with figure(len(tasks), 0.55 + max(0.2, 0.11 * lines + 0.06) * len(groups)) as (made, panels):
        for panel, task in zip(panels, tasks, strict=True):
            for i, own in enumerate(scores[task]):
                if len(own):
                    color = style_of(i)[0]
                    panel.plot(own, np.full(len(own), i + 0.18), "o", ms=2.2, mfc="none", mec=color, mew=0.6)
                    interval = statistics.interval(drawn.estimate, [own]) if len(own) >= statistics.FEWEST else None
                    _point(panel, float(drawn.estimate([own])), interval, i - 0.1, color)
            first = panel.get_subplotspec().is_first_col()
            names = common if wide else [drawn.named(g.name, len(own)) for g, own in zip(groups, scores[task], strict=True)]
            _rows(panel, names if first else [""] * len(groups), drawn.metric, drawn.heading if first else "")
            panel.set_title(task if len(tasks) > 1 else "", loc="left")
        return saved(made, "final", drawn)


def _point(panel: Any, x: float, interval: Interval | None, y: float, color: str) -> None:
    if interval is not None:
        panel.plot(interval, [y, y], color=color, lw=2.2, alpha=0.45, solid_capstyle="butt")
    panel.plot([x], [y], "D", ms=3.6, color=color)


def _rows(panel: Any, names: Sequence[str], x: str, heading: str = "") -> None:
    """Make a panel of rows from the top down."""
    panel.set_yticks(range(len(names)), [wrapped(name, NAME) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", lw=0.4, color="0.85")
    panel.set_axisbelow(True)
    panel.set_xlabel(x)
    panel.margins(x=0.08)
    if heading:
        panel.annotate(
            wrapped(heading, NAME),
            (0, 1),
            (-4, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="baseline",
            fontsize=TEXT - 0.5,
            color="0.35",
        )


# -- over tasks, one against another ---------------------------------------------------------------------------------------


def draw_profile(scores: Sequence[tuple[int, str, statistics.Scores]], drawn: Drawn, x: str) -> dict[str, bytes]:
    """Return profile.png and .svg: the share of runs above each score, of (place among groups, name, scores)."""
    key = drawn.key([(i, name, [sum(map(len, tasks))]) for i, name, tasks in scores])
    every = np.concatenate([task for *_, tasks in scores for task in tasks])
    pad = 0.03 * (np.ptp(every) or 1)
    thresholds = np.linspace(every.min() - pad, every.max() + pad, 101)
    with figure(1, HEIGHT, key_size(key, 1)[1]) as (made, (panel,)):
        for i, _, tasks in scores:
            color, dashes = style_of(i)
            if min(map(len, tasks)) >= statistics.FEWEST:
                low, high = statistics.interval(
                    lambda one: statistics.performance_profile(one, thresholds), tasks, resamples=RESAMPLES
                )
                panel.fill_between(thresholds, low, high, color=color, alpha=min(0.2, BAND / len(scores)), lw=0, step="post")
            shares = statistics.performance_profile(tasks, thresholds)
            panel.plot(thresholds, shares, color=color, ls=dashes, lw=1.4, drawstyle="steps-post")
        panel.set_xlabel(x)
        panel.set_ylabel("share of runs above it")
        panel.set_ylim(-0.02, 1.02)
        write_key(made, key, 1, drawn.heading)
        return saved(made, "profile", drawn)


def draw_improvement(pairs: Sequence[Improvement], drawn: Drawn) -> dict[str, bytes]:
    """Return improvement.png and .svg: how probable it is that the one beats the other."""
    rows: list[tuple[str, float, Interval | None]] = []
    for pair in pairs:
        name = f"{drawn.named(pair.ours)} beats {drawn.named(pair.theirs)}"
        rows.append((name, pair.probability, pair.interval))
        if pair.paired is not None:
            rows.append((f"{name}, equal\u00a0seeds", pair.paired, pair.paired_interval))
    lines = max(wrapped(name, NAME).count("\n") + 1 for name, *_ in rows)
    with figure(1, 0.5 + (0.11 * lines + 0.1) * len(rows)) as (made, panels):
        for i, (_, probability, interval) in enumerate(rows):
            _point(panels[0], probability, interval, i, style_of(0)[0])
        _rows(panels[0], [name for name, *_ in rows], "probability", drawn.heading)
        panels[0].axvline(0.5, color="0.4", lw=0.6, ls=(0, (2, 2)))
        panels[0].set_xlim(-0.03, 1.03)
        return saved(made, "improvement", drawn)
