"""Pictures of a report: curves, final scores, performance profile, probability of improvement."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rltrain.results import statistics
from rltrain.results.curves import Curve, on_grid
from rltrain.results.figures import HEIGHT, TEXT, Drawn, figure, saved, style_of, unit_of
from rltrain.results.groups import Group
from rltrain.results.labels import wrapped, write_labels
from rltrain.results.standing import Improvement, Interval, finals

RESAMPLES = 1000  # of a curve, at each of its points


# -- curves ----------------------------------------------------------------------------------------------------------------


def draw_curves(groups: Sequence[Group], tasks: Sequence[str], drawn: Drawn) -> dict[str, bytes]:
    """Return curves.png and .svg: a panel per task, the groups' lines with their intervals; of few seeds each one's line."""
    lines = max(sum(wrapped(drawn.named(g.name, 10)).count("\n") + 1 for g in groups if g.of(task)) for task in tasks)
    with figure(len(tasks), max(HEIGHT, 0.11 * lines + 0.5)) as (made, panels):
        for panel, task in zip(panels, tasks, strict=False):
            over = [(i, g, [c for c in g.of(task) if len(c.values)]) for i, g in enumerate(groups)]
            last = max((curve.over(drawn.x)[-1] for *_, curves in over for curve in curves), default=1.0)
            unit, name = unit_of(drawn.x, last)
            ends = [_draw_group(panel, i, g, curves, drawn, unit) for i, g, curves in over if curves]
            panel.set_title(task if len(tasks) > 1 else "", loc="left")
            panel.set_xlabel(name)
            panel.set_ylabel(drawn.metric)
            panel.margins(x=0.01)
            write_labels(panel, ends, TEXT - 0.5, drawn.heading)
        return saved(made, "curves", drawn)


def _draw_group(panel: Any, index: int, group: Group, curves: Sequence[Curve], drawn: Drawn, unit: float) -> tuple:
    """Draw a group's line or lines; return where its name belongs: (x, y, name, color)."""
    color, dashes = style_of(index)
    name = wrapped(drawn.named(group.name, len(curves)))
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
    panel.fill_between(grid / unit, low, high, color=color, alpha=0.2, lw=0)
    panel.plot(grid / unit, middle, color=color, ls=dashes, lw=0.6)  # thin where not all of the runs have come to
    panel.plot(grid / unit, np.where(whole, middle, np.nan), color=color, ls=dashes, lw=1.4)
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
    with figure(len(tasks), 0.55 + 0.2 * len(groups), shared=True) as (made, panels):
        for panel, task in zip(panels, tasks, strict=False):
            for i, group in enumerate(groups):
                scores = finals(group.of(task))
                if not len(scores):
                    continue
                color, _ = style_of(i)
                panel.plot(scores, np.full(len(scores), i + 0.18), "o", ms=2.2, mfc="none", mec=color, mew=0.6)
                enough = len(scores) >= statistics.FEWEST
                interval = statistics.interval(drawn.estimate, [scores]) if enough else None
                _point(panel, float(drawn.estimate([scores])), interval, i - 0.1, color)
            _rows(panel, [drawn.named(group.name, len(finals(group.of(task)))) for group in groups], drawn.metric, drawn.heading)
            panel.set_title(task if len(tasks) > 1 else "", loc="left")
        return saved(made, "final", drawn)


def _point(panel: Any, x: float, interval: Interval | None, y: float, color: str) -> None:
    if interval is not None:
        panel.plot(interval, [y, y], color=color, lw=2.2, alpha=0.45, solid_capstyle="butt")
    panel.plot([x], [y], "D", ms=3.6, color=color)


def _rows(panel: Any, names: Sequence[str], x: str, heading: str = "") -> None:
    """Make a panel of rows from the top down."""
    panel.set_yticks(range(len(names)), [wrapped(name, 24) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", lw=0.4, color="0.85")
    panel.set_axisbelow(True)
    panel.set_xlabel(x)
    panel.margins(x=0.08)
    if heading:
        panel.annotate(
            wrapped(heading, 24),
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
    with figure(1, HEIGHT) as (made, panels):
        every = np.concatenate([task for *_, tasks in scores for task in tasks])
        pad = 0.03 * (np.ptp(every) or 1)
        thresholds = np.linspace(every.min() - pad, every.max() + pad, 101)
        lines = []
        for i, name, tasks in scores:
            color, dashes = style_of(i)
            shares = statistics.performance_profile(tasks, thresholds)
            if min(map(len, tasks)) >= statistics.FEWEST:
                low, high = statistics.interval(
                    lambda one: statistics.performance_profile(one, thresholds), tasks, resamples=RESAMPLES
                )
                panels[0].fill_between(thresholds, low, high, color=color, alpha=0.2, lw=0, step="post")
            panels[0].plot(thresholds, shares, color=color, ls=dashes, lw=1.4, drawstyle="steps-post")
            lines.append((wrapped(drawn.named(name, sum(map(len, tasks)))), color, dashes))
        panels[0].set_xlabel(x)
        panels[0].set_ylabel("share of runs above it")
        panels[0].set_ylim(-0.02, 1.02)
        _legend(panels[0], lines, drawn.heading)
        return saved(made, "profile", drawn)


def _legend(panel: Any, lines: Sequence[tuple[str, str, Any]], heading: str) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, ls=dashes, lw=1.4) for _, color, dashes in lines]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": TEXT - 0.5}
    panel.legend(handles, [name for name, *_ in lines], title=wrapped(heading) or None, title_fontsize=TEXT - 0.5, **place)


def draw_improvement(pairs: Sequence[Improvement], drawn: Drawn) -> dict[str, bytes]:
    """Return improvement.png and .svg: how probable it is that the one beats the other."""
    rows: list[tuple[str, float, Interval | None]] = []
    for pair in pairs:
        name = f"{drawn.named(pair.ours)} beats {drawn.named(pair.theirs)}"
        rows.append((name, pair.probability, pair.interval))
        if pair.paired is not None:
            rows.append((f"{name}, equal seeds", pair.paired, pair.paired_interval))
    with figure(1, 0.5 + 0.36 * len(rows), shared=True) as (made, panels):
        for i, (_, probability, interval) in enumerate(rows):
            _point(panels[0], probability, interval, i, style_of(0)[0])
        _rows(panels[0], [name for name, *_ in rows], "probability", drawn.heading)
        panels[0].axvline(0.5, color="0.4", lw=0.6, ls=(0, (2, 2)))
        panels[0].set_xlim(-0.03, 1.03)
        return saved(made, "improvement", drawn)
