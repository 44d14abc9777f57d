"""`rltrain report`: runs in groups, compared: curves, final scores with intervals, a page, the data behind them."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rltrain import __version__
from rltrain.checks import build, option
from rltrain.commands.layout import table_that_fits, width
from rltrain.errors import CommandError, ConfigError, masked_argument, nearest
from rltrain.results import figures, pages, telling, tidy, writing
from rltrain.results.records import read_runs
from rltrain.results.report import Report, Wanted, draw, make_report
from rltrain.results.saved import of_type
from rltrain.screen import print_out

MOST_TOLD = 12  # runs that have something to be said of
LEFT_OUT = ("median", "steps/s", "mean", "best")  # where a terminal is too narrow for them, these first


@dataclass
class ReportOptions:
    """What `rltrain report` takes besides runs."""

    by: list[str] = option([], "settings to group by, such as agents.ppo.learning_rate; without: all in which runs differ")
    metric: str | None = option(None, "what to compare, members/*/episode_return_mean too; null: evaluations, else returns")
    x: str = option("env_steps", "what curves stand over", choices=["env_steps", "wall_time"])
    compare: list[str] = option([], "two groups, [A,B]: how probable it is that A beats B")
    aggregate: str = option("iqm", "what the lines and diamonds show", choices=["iqm", "mean"])
    scores: str | None = option(None, "a YAML file of random and reference scores of tasks, besides those that are known")
    data: str = option("csv", "how the numbers behind it are written", choices=["csv", "parquet"])
    out: str | None = option(None, "directory; null: a new one under outputs/reports")


OPTIONS = tuple(ReportOptions.__dataclass_fields__)
LISTS = ("by", "compare")


def report(arguments: Sequence[str]) -> int:
    """Write a report on runs, and print its numbers."""
    places, options = _read(arguments)
    figures.check_installed()
    if options.data == "parquet":
        tidy.check_parquet()
    directory = writing.find_place(options.out)
    records = read_runs(places)
    if not records:
        raise ConfigError("runs", " ".join(places), "holds no run; name runs, or directories that hold some")
    wanted = Wanted(options.by, options.metric, options.x, options.compare, options.aggregate, options.scores)
    made = make_report(records, wanted)
    command = shlex.join(["rltrain", "report", *map(masked_argument, arguments)])
    writing.write(directory, *_files(made, command, options.data))
    _print(made)
    print_out(
        f"saved in {directory}", *(f"  {directory / name}" for name in ("report.html", "report.md", f"data.{options.data}"))
    )
    return 0


def _read(arguments: Sequence[str]) -> tuple[list[str], ReportOptions]:
    """Split arguments into places of runs and options."""
    places: list[str] = []
    given: dict[str, Any] = {}
    for argument in arguments:
        key, has_value, value = argument.partition("=")
        if has_value and key in OPTIONS:
            given[key] = _split(value) if key in LISTS else value.strip("'\"")
        elif has_value and not os.path.exists(argument):
            raise ConfigError(key, value, f"no such option; {nearest(key, OPTIONS)}")
        else:
            places.append(argument)
    if not places:
        raise CommandError(["rltrain report", *arguments], "say what to report on: runs, or directories that hold some")
    given = {key: None if value in ("null", "") else value for key, value in given.items()}
    return places, build(ReportOptions, given)


def _split(value: str) -> list[str]:
    """Return the items of [a,b], whose own brackets stay whole."""
    inside = value[1:-1] if re.fullmatch(r"\[[^\[\]]*(\[[^\[\]]*\][^\[\]]*)*\]", value) else value
    return [word.strip(" '\"") for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", inside)]


def _files(made: Report, command: str, data: str) -> tuple[dict[str, bytes], Mapping[str, Any]]:
    """Return a report's files, and what it says of itself."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    starts = [record.starts[-1] for record in made.records if record.starts]
    versions = sorted({str(of_type(str, start, "versions", "rltrain")) for start in starts})
    software = f"rltrain {__version__}" + (f" on runs of {', '.join(versions)}" if versions else "")
    files = draw(made, {"Software": software, "Description": command, "Date": time})
    blocks = telling.tell(made, command, f"Made {time} by {software}.")
    files["report.md"] = pages.as_markdown(blocks).encode()
    files["report.html"] = pages.as_html(blocks, files, telling.title_of(made)).encode()
    files[f"data.{data}"] = (tidy.as_parquet if data == "parquet" else tidy.as_csv)(made.groups, made.metric)
    about = {
        "command": command,
        "time": time,
        "software": software,
        "metric": made.metric,
        "tasks": {task: [asdict(one) for one in standings] for task, standings in made.standings.items()},
        "over_tasks": [asdict(one) for one in made.over_tasks],
        "improvements": [asdict(one) for one in made.improvements],
    }
    return files, about


def _lines(shown: pages.Table) -> list[str]:
    """Return a table in as many columns as fit."""
    cells = {name: [row[i] for row in shown.rows] for i, name in enumerate(shown.head)}
    return table_that_fits(cells.__getitem__, shown.head, LEFT_OUT, width(), right=shown.head[1:])


def _print(made: Report) -> None:
    """Print the numbers, and what is to be known of them."""
    print_out(telling.summary_of(made))
    for task, standings in made.standings.items():
        print_out("", task, *_lines(telling.standings_table(standings)), "")
    for one in made.improvements:
        print_out(f"P({one.ours} > {one.theirs}) = {telling.number(one.probability)}, 95 % interval {telling.span(one.interval)}")
    told = [(curve, marks) for curve, marks in made.marks.items() if marks]
    lines = [f"{curve.record.name}: {'; '.join(marks)}" for curve, marks in told[:MOST_TOLD]]
    more = [f"... and {len(told) - MOST_TOLD:,} more in report.md"] if len(told) > MOST_TOLD else []
    print_out(*(f"- {note}" for note in telling.notes_of(made)), *lines, *more)
