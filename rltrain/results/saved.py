"""Files of a run as data, whoever wrote them or was killed while writing: what can't be read is said, never raised."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.checkpoints import MAX_CONFIG_BYTES
from rltrain.errors import RltrainError
from rltrain.files import MissingFile, open_regular, read_small
from rltrain.tracking import MAX_ROW_BYTES

MAX_JSON_BYTES = 64 * 2**20  # of a summary: it has every start of the run
TAIL_BYTES = 2**17
ENTRY = re.compile(r"^(?=[^\s-])", re.MULTILINE)  # where an entry of a mapping begins
NESTED = re.compile(r"(\w+:)\n((?:  .*\n|\n)+)")  # an entry that is a mapping, or a text over several lines
INDENT = re.compile(r"^  ", re.MULTILINE)

Columns = dict[str, np.ndarray]


def read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where there is none, or, with a problem noted, none that can be read."""
    try:
        found = json.loads(read_small(path, MAX_JSON_BYTES, "a file of a run"))
    except MissingFile:
        return {}
    except (OSError, ValueError, RecursionError, RltrainError):
        found = None
    if isinstance(found, dict):
        return found
    problems.append(f"{path.name} can't be read")
    return {}


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return a configuration as it was saved, its references not followed; what it holds is shared, and not to be changed."""
    try:
        found = _load(read_small(path, MAX_CONFIG_BYTES, "a configuration").decode())
    except MissingFile:
        return {}
    except Exception:  # whatever a foreign file makes a parser raise
        found = None
    if isinstance(found, dict):
        return found
    problems.append(f"{path.name} can't be read")
    return {}


def _load(text: str) -> Any:
    """Return what a YAML text holds."""
    if "&" in text:  # perhaps an anchor, whose aliases may grow beyond reason
        from rltrain.config.plain import load_plain

        return load_plain(text, "configuration")
    try:
        return _load_entries(text)
    except Exception:
        return _load_text(text)  # not of the form that rltrain writes


def _load_entries(text: str) -> dict[str, Any]:
    """Return a mapping, each entry of it read once, however many runs have it alike, as most have most: ten times as quick."""
    found: dict[str, Any] = {}
    for entry in filter(None, ENTRY.split(text)):
        nested = NESTED.fullmatch(entry)
        if nested is None:
            found |= _load_text(entry)
        else:
            found[next(iter(_load_text(nested[1])))] = _load_entries(INDENT.sub("", nested[2]))
    return found


@lru_cache(maxsize=2**14)
def _load_text(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def flatten(node: Any, key: str = "") -> dict[str, Any]:
    """Return settings by dotted key: `{"env": {"id": "a"}}` is `{"env.id": "a"}`; lists are values."""
    if not isinstance(node, Mapping) or not node:
        return {key: node} if key else {}
    return {
        name: value for part, inside in node.items() for name, value in flatten(inside, f"{key}.{part}" if key else part).items()
    }


def last_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the last timestep, one per agent; a line that is half-written doesn't count."""
    rows: list[dict[str, Any]] = []
    for line in reversed(_tail(path)):
        row = _row(line)
        if row and rows and row["timestep"] != rows[0]["timestep"]:
            break
        rows += [row] if row else []
    return rows[::-1]


def _tail(path: Path) -> list[bytes]:
    try:
        with open(open_regular(path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            lines = file.read(TAIL_BYTES).split(b"\n")
    except OSError:
        return []
    return lines[1:] if start else lines


def last_line(path: Path) -> str | None:
    """Return the last line of a text that isn't indented: of a traceback, the error."""
    lines = [line for line in _tail(path) if line[:1].strip()]
    return lines[-1].decode("utf-8", "replace") if lines else None


def read_rows(path: Path, only: bytes = b"") -> Iterator[dict[str, Any]]:
    """Return the rows of `metrics.jsonl` that hold `only`, in the order they were written, but for those that can't be read."""
    try:
        with open(open_regular(path), "rb") as file:
            for line in iter(lambda: file.readline(MAX_ROW_BYTES), b""):
                if only in line and (row := _row(line)):
                    yield row
    except OSError:
        return


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        good = isinstance(row["agent"], str) and type(row["timestep"]) is int
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return row if good else None


def as_columns(rows: Iterator[dict[str, Any]]) -> dict[str, Columns]:
    """Return rows by agent as a column of float64 per tag, NaN where a row has none or it was not finite."""
    of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(row.pop("agent"), []).append(row)
    return {
        agent: {tag: _column(own, tag) for tag in dict.fromkeys(tag for row in own for tag in row)} for agent, own in of.items()
    }


def _column(rows: list[dict[str, Any]], tag: str) -> np.ndarray:
    values = (row.get(tag) for row in rows)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


# -- plain data of whatever form -----------------------------------------------------------------------------------------


def of_type(kind: type, node: Any, *path: str) -> Any:
    """Return what stands at a path of a tree if it is of a kind, else None."""
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, kind) and not isinstance(node, bool) else None


def number(value: Any) -> float | None:
    """Return a value as a float if it is a number, else None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None where there is nothing, or one of them isn't known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
