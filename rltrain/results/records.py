"""Runs as records: where they are, what they were to do, how they stand, what came out.

    read_runs(["outputs"])                 a Record of every run below these directories, in the order of their names
    read_run(Path("outputs/latest"))       that of one directory
    record.env, .backend, .seed, .agents   what it trains; record.config and record.settings have all of it
    record.state, .reason, .problems       running, finished, stopped, failed or unfinished; why; what can't be read
    record.env_steps, .total_env_steps, .last_return, .best_return, .env_steps_per_second
    record.columns["ppo"]["rollout/episode_return_mean"]     a column of metrics.jsonl beside ["env_steps"], ["wall_time"]
    record.starts, .started, .updated, .size

Empty, half-written, damaged and foreign directories have records too, with what is known of them. What a record tells is
read when it is asked for, and then kept; `state`, `config` and `summary` are those of the moment the record was made.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from rltrain.results.finding import JOB, disk_usage, find_runs
from rltrain.results.saved import (
    Columns,
    as_columns,
    flatten,
    last_line,
    last_rows,
    mean_known,
    number,
    of_type,
    read_config,
    read_json,
    read_rows,
)
from rltrain.runs import is_in_use

STATES = ("running", "finished", "stopped", "failed", "unfinished")
NOT_SETTINGS = ("seed", "run.dir", "resume", "dry_run")
RETURN, EVALUATION = "rollout/episode_return_mean", "evaluation/episode_return_mean"


@dataclass(frozen=True)
class AgentRecord:
    """An agent of a run."""

    name: str
    kind: str  # "ppo", or the name of a class of somebody's own
    key: str  # where its settings are, "agents.ppo": the same for all that `count` makes


@dataclass(frozen=True)
class Record:
    """A run's directory, read. None stands for what nobody knows."""

    directory: Path
    state: str  # one of STATES
    reason: str | None  # why it stopped or failed
    config: dict[str, Any]  # `config.yaml`, references as they were written; not to be changed
    summary: dict[str, Any]  # `summary.json`; empty until the run ends
    job: dict[str, Any]  # `job.json` of a sweep's job: "job", "overrides", "error"
    problems: tuple[str, ...]  # files that can't be read

    @cached_property
    def name(self) -> str:
        """The shortest path that leads to it from the current directory."""
        full = os.path.abspath(self.directory)
        return min((os.path.relpath(full), full), key=len)

    # -- what it was to do ---------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted key, but for the seed and the directory: equal in runs that differ in the seed alone."""
        return {key: value for key, value in flatten(self.config).items() if key not in NOT_SETTINGS}

    @property
    def env(self) -> str | None:
        """The id of the environment."""
        return of_type(str, self.config, "env", "id")

    @property
    def backend(self) -> str | None:
        """The backend's name: torch or jax."""
        return of_type(str, self.config, "backend", "name")

    @property
    def seed(self) -> int | None:
        """The seed."""
        return of_type(int, self.config, "seed")

    @property
    def num_envs(self) -> int | None:
        """The copies of the environment."""
        return of_type(int, self.config, "env", "num_envs")

    @cached_property
    def agents(self) -> tuple[AgentRecord, ...]:
        """The agents in the order of their scopes."""
        sections = of_type(dict, self.config, "agents")
        if not sections:
            names = [*(of_type(dict, self.summary, "agents") or {})] or [row["agent"] for row in self._last_rows]
            return tuple(AgentRecord(name, "", f"agents.{name}") for name in names)
        return tuple(
            AgentRecord(name, _kind(node), f"agents.{section}")
            for section, node in sections.items()
            for name in _names(str(section), of_type(int, node, "count") or 1)
        )

    @cached_property
    def total_env_steps(self) -> int | None:
        """The env steps that it was to make, of all copies together."""
        timesteps = of_type(int, self.summary, "timesteps") or of_type(int, self.config, "trainer", "timesteps")
        if timesteps is None or self.num_envs is None:
            return of_type(int, self.config, "total_env_steps")
        return timesteps * self.num_envs

    # -- how it stands -------------------------------------------------------------------------------------------------

    @cached_property
    def timestep(self) -> int | None:
        """The turns of the loop that are done, as far as they were written down."""
        timestep = of_type(int, self.summary, "timestep")
        return timestep if timestep is not None else next((row["timestep"] for row in self._last_rows), None)

    @cached_property
    def env_steps(self) -> int | None:
        """The env steps of all agents together that are done."""
        steps = of_type(int, self.summary, "env_steps")
        if steps is None and self._last_rows:
            return sum(int(number(row.get("env_steps")) or 0) for row in self._last_rows)
        return steps

    @cached_property
    def last_return(self) -> float | None:
        """The mean return of the last 100 episodes of training, over agents."""
        if not self.summary:
            return mean_known([number(row.get(RETURN)) for row in self._last_rows])
        return mean_known([number(agent.get("episode_return_mean")) for agent in self._summed_up])

    @cached_property
    def best_return(self) -> float | None:
        """The mean return of the best evaluation, over agents that were evaluated."""
        if self.summary:
            scores = [number((agent.get("best") or {}).get("score")) for agent in self._summed_up]
            return mean_known([score for score in scores if score is not None])
        best: dict[str, float] = {}
        for row in read_rows(self.directory / "metrics.jsonl", only=EVALUATION.encode()):
            score = number(row.get(EVALUATION))
            if score is not None:
                best[row["agent"]] = max(best.get(row["agent"], score), score)
        return mean_known(list(best.values()))

    @cached_property
    def env_steps_per_second(self) -> float | None:
        """The env steps per second of training."""
        if self.summary:
            return number(self.summary.get("env_steps_per_second"))
        return next((number(row.get("time/env_steps_per_second")) for row in self._last_rows), None)

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """The rows of metrics.jsonl by agent, a column of float64 per tag, NaN where a row has none: {"ppo": {tag: (T,)}}."""
        return as_columns(read_rows(self.directory / "metrics.jsonl"))

    # -- the directory -------------------------------------------------------------------------------------------------

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Every start of the run, the first one first: {"start", "time", "timestep", "changed", "command", "versions" ...}."""
        history = self.summary.get("history")
        if isinstance(history, list) and history:
            return [start for start in history if isinstance(start, dict)]
        folder = self.directory / "starts"
        numbers = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]
        return [read_json(folder / f"{one}.json", []) for one in sorted(numbers)]

    @cached_property
    def started(self) -> float | None:
        """When it was started first, in seconds since 1970."""
        times = [start.get("time") for start in self.starts[:1]]
        try:
            return datetime.fromisoformat(str(times[0])).timestamp()
        except (IndexError, ValueError):
            return _modified(self.directory / "config.yaml") or _modified(self.directory)

    @cached_property
    def updated(self) -> float | None:
        """When it wrote something last, in seconds since 1970."""
        times = [_modified(self.directory / name) for name in ("metrics.jsonl", "train.log", "summary.json", JOB, "")]
        return max((time for time in times if time is not None), default=None)

    @cached_property
    def size(self) -> int:
        """The bytes that it takes on the disk; what links lead to is not counted."""
        return disk_usage(self.directory)

    @cached_property
    def _last_rows(self) -> list[dict[str, Any]]:
        return last_rows(self.directory / "metrics.jsonl")

    @property
    def _summed_up(self) -> list[dict[str, Any]]:
        agents = of_type(dict, self.summary, "agents") or {}
        return [agent for agent in agents.values() if isinstance(agent, dict)]


# -- finding and reading -------------------------------------------------------------------------------------------------


def read_runs(places: Sequence[str | Path]) -> list[Record]:
    """Return a record of every run below `places`, each once, in the order of names. Raises as `find_runs`."""
    return [read_run(directory) for directory in find_runs(places)]


def read_run(directory: Path) -> Record:
    """Return the record of a directory, whatever it holds."""
    problems: list[str] = []
    held = is_in_use(directory)  # before its summary is read: a run that ends meanwhile has one by then
    summary = {} if held else read_json(directory / "summary.json", problems)
    job = read_json(directory / JOB, problems)
    state, reason = _judge(directory, summary, job)
    return Record(
        directory,
        "running" if held else state,
        None if held else reason,
        read_config(directory / "config.yaml", problems),
        summary,
        job,
        tuple(problems),
    )


def _judge(directory: Path, summary: dict[str, Any], job: dict[str, Any]) -> tuple[str, str | None]:
    """Return the state of a run that nobody holds, and why."""
    reason, error = summary.get("exit_reason"), job.get("error")
    if isinstance(reason, str):
        state = {"finished": "finished", "failed": "failed"}.get(reason.partition(":")[0], "stopped")
        return state, None if state == "finished" else reason.removeprefix("failed: ")
    if isinstance(error, str):
        return "failed", error
    if os.path.exists(directory / "error.log"):
        return "failed", last_line(directory / "error.log")
    return "unfinished", None


# -- parts of a record ---------------------------------------------------------------------------------------------------


def _names(section: str, count: int) -> list[str]:
    return [section] if count <= 1 else [f"{section}_{i}" for i in range(min(count, 1024))]


def _kind(node: Any) -> str:
    """Return which algorithm a section of agents is of, by its class."""
    parts = str(of_type(str, node, "_target_") or "").split(".")
    return parts[2] if parts[:2] == ["rltrain", "agents"] and len(parts) > 3 else parts[-1]


def _modified(path: Path) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None
