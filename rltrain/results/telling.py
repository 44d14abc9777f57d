"""A report in words and tables."""

from collections.abc import Iterator, Sequence

from rltrain.results import pictures, statistics
from rltrain.results.groups import brief, differing, label_keys
from rltrain.results.marks import state_of
from rltrain.results.normalizing import SHIPPED
from rltrain.results.pages import Block, Code, Heading, Items, Picture, Table, Text
from rltrain.results.report import Report
from rltrain.results.standing import Improvement, Interval, Standing

HEAD = ("group", "n", "mean", "median", "IQM", "95 % interval", "best", "steps/s", "failures")
ESTIMATES = {"iqm": "interquartile mean", "mean": "mean"}
PAPER = "Agarwal et al. 2021, arXiv:2108.13264"


def tell(report: Report, command: str, made: str) -> list[Block]:
    """Return the whole report; `made` says when and by what."""
    blocks: list[Block] = [Heading(title_of(report), 1), Text(summary_of(report)), Text(made), Code(command)]
    notes = notes_of(report)
    blocks += [Heading("To know first"), Items(notes)] if notes else []
    blocks += [Heading("Curves"), Picture("curves", _curves_caption(report))]
    blocks += [Heading("Final scores"), *_finals(report), Picture("final", _final_caption(report))]
    if len(report.tasks) > 1:
        blocks += [Heading("Over tasks"), *_over_tasks(report)]
    if report.profiles:
        blocks.append(Picture("profile", "Performance profile: the share of runs above each score; bands are 95 % intervals."))
    if report.improvements:
        blocks += [Heading("One against another"), improvements_table(report.improvements), Picture("improvement", _beats())]
    if any(group.settings for group in report.groups):
        keys = list(report.groups[0].settings)
        rows = [[group.name, *(brief(group.settings[key]) for key in keys)] for group in report.groups]
        blocks += [Heading("Settings in which groups differ"), Table(["group", *keys], rows, ["group"])]
    return [*blocks, Heading("Runs"), _runs(report), Heading("How the numbers are made"), Items(list(_method(report)))]


def title_of(report: Report) -> str:
    """Return the title."""
    tasks = ", ".join(report.tasks[:4]) + (f" and {len(report.tasks) - 4} more" if len(report.tasks) > 4 else "")
    return f"{_counted(len(report.groups), 'group')} on {tasks}"


def summary_of(report: Report) -> str:
    """Return what was compared by what."""
    curves = sum(len(group.curves) for group in report.groups)
    agents = f" with {_counted(curves, 'curve')}" if curves != len(report.records) else ""
    return f"{_counted(len(report.records), 'run')}{agents}, compared by {report.metric}: {report.why}."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


# -- notes -----------------------------------------------------------------------------------------------------------------


def notes_of(report: Report) -> list[str]:
    """Return what a reader should know before the numbers."""
    notes = []
    states = [record.state for record in report.records]
    open_ones = [f"{states.count(s)} {s}" for s in ("running", "stopped", "failed", "unfinished") if s in states]
    if open_ones:
        notes.append(
            f"Not finished: {', '.join(open_ones)} of {len(states)} runs. Where some are, final scores are of those alone."
        )
    every = [(task, standing) for task, standings in report.standings.items() for standing in standings]
    if report.unknown:
        names = ", ".join(record.name for record in report.unknown[:3]) + (", ..." if len(report.unknown) > 3 else "")
        notes.append(
            f"Without a configuration that can be read, so in no group: {_counted(len(report.unknown), 'run')}, {names}."
        )
    for task, standing in every:
        if standing.so_far:
            notes.append(f"{standing.name} on {task}: no run is finished, so its numbers are of {standing.n} under way (*).")
    few = sorted({standing.n for _, standing in every if 0 < standing.n < statistics.FEWEST})
    if few:
        counts = ", ".join(map(str, few))
        notes.append(f"Fewer than {statistics.FEWEST} runs (n = {counts}): each is drawn, and no interval is claimed.")
    pooled = list(dict.fromkeys(key for group in report.groups for key in differing(group.curves))) if report.wanted.by else []
    if pooled:
        notes.append(f"Runs of one group also differ in {', '.join(label_keys(pooled, report.groups[0].curves))}.")
    unlike = [mark for curve, marks in report.marks.items() if curve.record.state == "finished" for mark in marks]
    if unlike:
        notes.append(f"Some finished runs are not like the others of their group, which the table of runs says: {unlike[0]}.")
    missing = [task for task in report.tasks if task not in report.scales]
    if len(report.tasks) > 1 and missing:
        notes.append(
            f"No random and reference score is known for {', '.join(missing)}: left out over tasks; scores=FILE.yaml adds some."
        )
    if report.pair and report.improvements and not report.improvements[0].pairs:
        notes.append("The two groups share no seed, so runs can't be compared in pairs of equal seeds, only all with all.")
    return notes


# -- tables ----------------------------------------------------------------------------------------------------------------


def _finals(report: Report) -> Iterator[Block]:
    for task, standings in report.standings.items():
        if len(report.tasks) > 1:
            yield Heading(task, 3)
        yield standings_table(standings)


def standings_table(standings: Sequence[Standing]) -> Table:
    """Return the table of groups on a task."""
    return Table(HEAD, [_row(standing) for standing in standings], ["group"])


def _row(standing: Standing) -> list[str]:
    numbers = [number(value) for value in (standing.mean, standing.median, standing.iqm)]
    rate = "-" if standing.env_steps_per_second is None else f"{standing.env_steps_per_second:,.0f}"
    n = f"{standing.n}*" if standing.so_far else str(standing.n)
    return [standing.name, n, *numbers, span(standing.interval), number(standing.best), rate, str(standing.failures)]


def _over_tasks(report: Report) -> Iterator[Block]:
    if not report.over_tasks:
        yield Text("No task has a random and a reference score, so scores can't be averaged over tasks.")
        return
    tasks = [task for task in report.tasks if task in report.scales]
    sources = dict.fromkeys(report.scales[task].source for task in tasks)
    yield Text(f"Scores are normalised: 0 is random actions, 1 the reference ({'; '.join(sources)}). Tasks: {', '.join(tasks)}.")
    head = ("group", "tasks", "n", "mean", "median", "IQM", "95 % interval", "optimality gap")
    rows = [
        [s.name, str(s.tasks), str(s.n), *map(number, (s.mean, s.median, s.iqm)), span(s.interval), number(s.optimality_gap)]
        for s in report.over_tasks
    ]
    yield Table(head, rows, ["group"])


def improvements_table(pairs: Sequence[Improvement]) -> Table:
    """Return the table of pairs of groups."""
    head = (
        "A",
        "B",
        "tasks",
        "n",
        "P(A > B)",
        "95 % interval",
        "pairs of equal seeds",
        "P(A > B), pairs",
        "95 % interval, pairs",
    )
    rows = [
        [
            *(p.ours, p.theirs, str(len(p.tasks)), f"{p.runs[0]}, {p.runs[1]}", number(p.probability), span(p.interval)),
            *(str(p.pairs), number(p.paired), span(p.paired_interval)),
        ]
        for p in pairs
    ]
    return Table(head, rows, ["A", "B"])


def _runs(report: Report) -> Table:
    head = ("run", "group", "task", "seed", "agent", "env steps", "final", "best", "to know")
    rows = [
        [
            curve.record.name,
            group.name,
            curve.task,
            brief(curve.record.seed),
            f"{curve.agent.name} {curve.part}".strip(),
            f"{int(curve.steps[-1]):,}" if len(curve.steps) else "-",
            number(curve.final),
            number(curve.best),
            "; ".join(report.marks[curve]),
        ]
        for group in report.groups
        for curve in group.curves
    ]
    rows += [[record.name, *["-"] * 7, "; ".join([state_of(record), *record.problems])] for record in report.unknown]
    return Table(head, rows, ["run", "group", "task", "agent", "to know"])


def number(value: float | None) -> str:
    """Return a number with about four digits."""
    if value is None:
        return "-"
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 10_000
        else f"{value:,.1f}"
        if size >= 10
        else f"{value:.3f}"
        if size >= 0.001 or not size
        else f"{value:.2e}"
    )


def span(interval: Interval | None) -> str:
    """Return an interval."""
    return "-" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


# -- captions and method ---------------------------------------------------------------------------------------------------


def _curves_caption(report: Report) -> str:
    name = ESTIMATES[report.wanted.aggregate]
    return (
        f"{report.metric}: {name} over runs with its pointwise 95 % interval; of fewer than {statistics.FEWEST} runs each one's "
        "curve. Not smoothed. A line is thin where not all runs of its group have values. A cross: a run stopped, failed or was "
        "killed there; a triangle: it goes on."
    )


def _final_caption(report: Report) -> str:
    name = ESTIMATES[report.wanted.aggregate]
    return f"Last value of each run (circles), their {name} (diamonds) and its 95 % interval (bars)."


def _beats() -> str:
    return "Probability that a run of one group beats one of the other on the same task, with its 95 % interval."


def _method(report: Report) -> Iterator[str]:
    yield "A group is of runs that differ in nothing but the seed" + (
        f"; here, of runs alike in {', '.join(report.wanted.by)}, whatever else they differ in." if report.wanted.by else "."
    )
    yield f"final: the last value of {report.metric} of a finished run; best: the highest one. Higher is taken as better."
    yield f"IQM: interquartile mean, the mean of runs without the lowest and highest quarter ({PAPER})."
    yield (
        f"Intervals: percentiles of {statistics.RESAMPLES:,} bootstrap resamples of runs within each task; "
        f"{pictures.RESAMPLES:,} at each point of curves and profiles. None below {statistics.FEWEST} runs."
    )
    yield "Probability of improvement: the share of pairs of runs in which A's final score is higher, ties half, mean over tasks."
    yield "failures: runs that failed, or were killed and not resumed. steps/s: env steps per second of training, mean over runs."
    if len(report.tasks) > 1:
        yield f"Random and reference scores, with their sources: {SHIPPED.name} of rltrain."
