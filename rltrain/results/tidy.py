"""The numbers behind a report, one per row, for whatever one wants to do with them: CSV or Parquet."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from rltrain import installing
from rltrain.errors import ConfigError, shown
from rltrain.results.curves import Curve, read_curves
from rltrain.results.groups import Group
from rltrain.results.records import EVALUATION, RETURN

BEFORE = ("run", "seed", "agent", "env", "backend", "group")
AFTER = ("env_steps", "wall_time", "metric", "value")
NUMBERS = {"seed": int, "env_steps": int, "wall_time": float, "value": float}


def columns_of(groups: Sequence[Group]) -> list[str]:
    """Return the columns: run, seed ..., the settings in which groups differ, then what was measured."""
    return [*BEFORE, *(key for key in groups[0].settings if key not in BEFORE), *AFTER]


def rows_of(groups: Sequence[Group], metric: str) -> Iterator[list[Any]]:
    """Return a row per value of the metric, and of the returns of training and of evaluations."""
    for group in groups:
        settings = {key: value for key, value in group.settings.items() if key not in BEFORE}
        for curve in group.curves:
            record = curve.record
            about: list[Any] = [record.name, record.seed, curve.agent.name, record.env, record.backend, group.name]
            about += [value if isinstance(value, int | float | None) else shown(value) for value in settings.values()]
            for one in [curve, *_returns(curve, metric)]:
                for steps, seconds, value in zip(one.steps, one.seconds, one.values, strict=True):
                    yield [*about, int(steps), round(float(seconds), 3), one.tag, float(value)]


def _returns(curve: Curve, metric: str) -> list[Curve]:
    """Return the returns of the same agent, those that a report isn't about; of a team's members none."""
    there = curve.record.columns.get(curve.agent.name, {})
    tags = [] if "*" in metric else [tag for tag in (RETURN, EVALUATION) if tag != metric and tag in there]
    return [one for tag in tags for one in read_curves([curve.record], tag) if one.agent.name == curve.agent.name]


def as_csv(groups: Sequence[Group], metric: str) -> bytes:
    """Return the rows as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns_of(groups))
    writer.writerows(rows_of(groups, metric))
    return text.getvalue().encode("utf-8", "backslashreplace")


def as_parquet(groups: Sequence[Group], metric: str) -> bytes:
    """Return the rows as a table that keeps its types."""
    check_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    names = columns_of(groups)
    columns = list(zip(*rows_of(groups, metric), strict=True))
    arrays = [pa.array(_alike(name, column)) for name, column in zip(names, columns, strict=True)]
    file = io.BytesIO()
    parquet.write_table(pa.table(arrays, names=names), file)
    return file.getvalue()


def check_parquet() -> None:
    """Raise ConfigError with the command that installs pyarrow where there is none."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        remedy = f"pyarrow is not installed; {installing.command_for('parquet')}, or choose data=csv"
        raise ConfigError("data", "parquet", remedy) from None


def _alike(name: str, column: Sequence[Any]) -> list[Any]:
    """Return a column as numbers, or, unless all are, as text."""
    kinds = {type(value) for value in column if value is not None}
    if name in NUMBERS or kinds <= {int, float} or kinds == {bool}:
        return [float(value) if kinds == {int, float} else value for value in column]
    return [None if value is None else str(value) for value in column]
