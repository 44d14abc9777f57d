"""Which runs are listed, in which order, and what is said of each."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from rltrain.errors import ConfigError, nearest
from rltrain.results.records import STATES, Record

FILTERS: dict[str, Callable[[Record], Iterable[str]]] = {  # what a pattern may match
    "env": lambda record: [record.env or ""],
    "agents": lambda record: [name for agent in record.agents for name in (agent.name, agent.kind)],
    "backend": lambda record: [record.backend or ""],
    "seed": lambda record: ["" if record.seed is None else str(record.seed)],
    "state": lambda record: [record.state],
}
NEGATIVE = ("return", "best", "speed", "size", "progress")  # the largest first


def keep(records: Iterable[Record], filters: Mapping[str, str]) -> list[Record]:
    """Return the records that match every filter: one of the patterns `a,b*`, of agents by name or algorithm.

    Raises ConfigError for a state that there is not.
    """
    patterns = {key: _patterns(text) for key, text in filters.items()}
    for pattern in patterns.get("state", []):
        if not any(fnmatchcase(state, pattern) for state in STATES):
            raise ConfigError("state", pattern, f"no such state; {nearest(pattern, STATES)}")
    return [
        record
        for record in records
        if all(any(fnmatchcase(text, p) for text in FILTERS[key](record) for p in own) for key, own in patterns.items())
    ]


def _patterns(text: str) -> list[str]:
    return [part.strip(" '\"") for part in text.strip("[]").split(",")]


def order(records: Iterable[Record], by: str) -> list[Record]:
    """Return records by a key of `SORTS`, what isn't known last; `-best` turns the order round.

    Raises ConfigError for a key that there is not.
    """
    key = SORTS.get(by.removeprefix("-"))
    if key is None:
        raise ConfigError("sort", by, f"no such order; {nearest(by.removeprefix('-'), SORTS)}; -best turns it round")
    records = sorted(records, key=lambda record: record.name)
    known = [record for record in records if key(record) is not None]
    backwards = (by.removeprefix("-") in NEGATIVE) != by.startswith("-")
    return [*sorted(known, key=key, reverse=backwards), *(record for record in records if key(record) is None)]


def _progress(record: Record) -> float | None:
    return None if record.env_steps is None or not record.total_env_steps else record.env_steps / record.total_env_steps


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


SORTS: dict[str, Callable[[Record], Any]] = {
    "id": lambda record: record.name,
    "env": lambda record: record.env,
    "agents": lambda record: shown_agents(record) or None,
    "backend": lambda record: record.backend,
    "seed": lambda record: record.seed,
    "progress": _progress,
    "state": lambda record: STATES.index(record.state),
    "return": lambda record: _finite(record.last_return),
    "best": lambda record: _finite(record.best_return),
    "speed": lambda record: record.env_steps_per_second,
    "size": lambda record: record.size,
    "age": lambda record: None if record.started is None else -record.started,
}


# -- what is shown -------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[Record], str]] = {
    "run": lambda record: record.name,
    "env": lambda record: record.env or "-",
    "agents": lambda record: shown_agents(record) or "-",
    "backend": lambda record: record.backend or "-",
    "seed": lambda record: "-" if record.seed is None else str(record.seed),
    "env steps": lambda record: "/".join(short(count) for count in (record.env_steps, record.total_env_steps)),
    "state": lambda record: record.state,
    "return": lambda record: "-" if record.last_return is None else f"{record.last_return:.1f}",
    "best": lambda record: "-" if record.best_return is None else f"{record.best_return:.1f}",
    "steps/s": lambda record: short(record.env_steps_per_second),
    "size": lambda record: shown_bytes(record.size),
    "age": lambda record: "-" if record.started is None else shown_seconds(time.time() - record.started),
}
RIGHT = ("seed", "env steps", "return", "best", "steps/s", "size", "age")  # numbers
LEFT_OUT = (
    "backend",
    "size",
    "steps/s",
    "agents",
    "seed",
    "env",
    "age",
    "best",
    "env steps",
)  # first to last, where it is narrow


def shown_agents(record: Record) -> str:
    """Return a run's agents as they are given: `ppo`, `fast:ppo+slow:a2c`; several alike once, `ppo x3`."""
    sections: dict[str, list[str]] = {}
    for agent in record.agents:
        sections.setdefault(agent.key.removeprefix("agents."), []).append(agent.kind)
    return "+".join(
        (name if kinds[0] in ("", name) else f"{name}:{kinds[0]}") + (f" x{len(kinds)}" if len(kinds) > 1 else "")
        for name, kinds in sections.items()
    )


def left_out(records: Sequence[Record]) -> list[str]:
    """Return the columns in the order in which they are left out: first those that every run's path tells already."""
    told = [
        name
        for name, own in {"env": lambda r: r.env, "agents": lambda r: shown_agents(r), "seed": lambda r: f"_s{r.seed}"}.items()
        if all(own(record) is not None and own(record) in record.name for record in records)
    ]
    return [*told, *(name for name in LEFT_OUT if name not in told)]


def as_plain(record: Record) -> dict[str, Any]:
    """Return what is told of a run as JSON has it."""
    return {
        "run": record.name,
        "env": record.env,
        "agents": [{"name": agent.name, "algorithm": agent.kind} for agent in record.agents],
        "backend": record.backend,
        "seed": record.seed,
        "state": record.state,
        "reason": record.reason,
        "env_steps": record.env_steps,
        "total_env_steps": record.total_env_steps,
        "return": _finite(record.last_return),
        "best": _finite(record.best_return),
        "env_steps_per_second": record.env_steps_per_second,
        "bytes": record.size,
        "started": _as_date(record.started),
        "updated": _as_date(record.updated),
        "problems": list(record.problems),
    }


def _as_date(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def short(number: float | None) -> str:
    """Return a count in three digits: `950`, `82.9k`, `400k`, `1.25M`."""
    if number is None:
        return "-"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            return f"{number / size:.3g}{unit}" if abs(number) < 999.5 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def shown_bytes(count: int) -> str:
    """Return an amount of memory: `4 KiB`, `1.2 GiB`."""
    size, unit = count / 1024, "KiB"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1023.5 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 9.95 or unit == "KiB" else f"{size:.1f} {unit}"


def shown_seconds(seconds: float) -> str:
    """Return a span of time: `12 s`, `5 min`, `3 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
