"""What a report is made of: runs in groups, their numbers, pictures and the rows behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from rltrain.errors import ConfigError
from rltrain.results import pictures, statistics
from rltrain.results.curves import Curve, choose_metric, read_curves
from rltrain.results.figures import Drawn
from rltrain.results.groups import Group, make_groups, short_names, tasks_of
from rltrain.results.marks import marks_of
from rltrain.results.normalizing import Scale, read_scales
from rltrain.results.records import EVALUATION, RETURN, Record
from rltrain.results.standing import (
    Improvement,
    Standing,
    choose_pair,
    finals,
    improvement,
    normalized,
    stand,
    stand_over_tasks,
)

IN_WORDS = {EVALUATION: "mean return, evaluation", RETURN: "mean return, training"}
MOST_PAIRS = 6  # that are compared unless somebody names two


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to know."""

    by: Sequence[str] = ()
    metric: str | None = None
    x: str = "env_steps"
    compare: Sequence[str] = ()
    aggregate: str = "iqm"
    scores: str | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """Runs, compared."""

    records: Sequence[Record]
    wanted: Wanted
    metric: str
    why: str  # this metric
    groups: list[Group]
    pair: tuple[Group, Group] | None
    scales: Mapping[str, Scale]

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks that any run was about."""
        return tasks_of(curve for group in self.groups for curve in group.curves)

    @property
    def unknown(self) -> list[Record]:
        """The runs of which nobody knows what they were to train, so that they are in no group."""
        return [record for record in self.records if not record.agents]

    @cached_property
    def standings(self) -> dict[str, list[Standing]]:
        """The numbers of each group that has runs on a task, by task."""
        return {task: [stand(group, task) for group in self.groups if group.of(task)] for task in self.tasks}

    @cached_property
    def over_tasks(self) -> list[Standing]:
        """The numbers of each group over tasks, of normalised scores; empty with one task."""
        if len(self.tasks) < 2:
            return []
        found = [stand_over_tasks(group, self.tasks, self.scales) for group in self.groups]
        return [standing for standing in found if standing is not None]

    @cached_property
    def improvements(self) -> list[Improvement]:
        """Groups against each other: the two that are named, or with several tasks all, unless they are many."""
        pairs = list(combinations(self.groups, 2)) if len(self.tasks) > 1 else []
        chosen = [self.pair] if self.pair else pairs if len(pairs) <= MOST_PAIRS else []
        found = [improvement(ours, theirs, self.tasks) for ours, theirs in chosen]
        return [one for one in found if one is not None]

    @cached_property
    def profiles(self) -> list[tuple[int, str, statistics.Scores]]:
        """Place, name and scores by task of each group: normalised with several tasks, as they are with one."""
        if len(self.tasks) > 1:
            scores = {group: normalized(group, self.tasks, self.scales) for group in self.groups}
        else:
            scores = {group: [finals(group.of(task)) for task in self.tasks] for group in self.pair or ()}
        places = [(i, group.name, scores.get(group, [])) for i, group in enumerate(self.groups)]
        return [one for one in places if one[2] and all(map(len, one[2]))]

    @cached_property
    def marks(self) -> dict[Curve, list[str]]:
        """What is to be said of each curve that isn't like the others of its group."""
        return {
            curve: marks_of(curve, curves, self.metric)
            for group in self.groups
            for task in self.tasks
            for curves in [group.of(task)]
            for curve in curves
        }


def make_report(records: Sequence[Record], wanted: Wanted) -> Report:
    """Return a report on runs.

    Raises ConfigError for what doesn't fit them.
    """
    if not records:
        raise ConfigError("runs", "", "there is no run; name runs, or directories that hold some")
    metric, why = (wanted.metric, "as asked") if wanted.metric else choose_metric(records)
    groups = make_groups(read_curves(records, metric), wanted.by)
    pair = choose_pair(groups, wanted.compare) if wanted.compare else None
    if pair is not None and not improvement(*pair, tasks_of(curve for group in pair for curve in group.curves)):
        both = f"[{','.join(group.name for group in pair)}]"
        raise ConfigError("compare", both, "have no task in common on which both have scores")
    tasks = tasks_of(curve for group in groups for curve in group.curves)
    return Report(records, wanted, metric, why, groups, pair, read_scales(tasks, wanted.scores))


def draw(report: Report, about: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of all pictures by name."""
    heading, names = short_names([group.name for group in report.groups])
    short = dict(zip((group.name for group in report.groups), names, strict=True))
    words = IN_WORDS.get(report.metric, report.metric)
    drawn = Drawn(words, report.wanted.x, report.wanted.aggregate, heading, short, about)
    found = pictures.draw_curves(report.groups, report.tasks, drawn)
    found |= pictures.draw_finals(report.groups, report.tasks, drawn)
    if report.profiles:
        found |= pictures.draw_profile(report.profiles, drawn, words if len(report.tasks) == 1 else "normalised score")
    if report.improvements:
        found |= pictures.draw_improvement(report.improvements, drawn)
    return found
