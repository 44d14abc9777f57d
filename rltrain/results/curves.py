"""Runs as curves: a metric of each agent over its env steps and over time, and where the curve ends."""

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from rltrain.errors import ConfigError, nearest
from rltrain.results.records import EVALUATION, RETURN, AgentRecord, Record
from rltrain.trainers.scopes import even_scopes

OWN = "agent."  # before an agent's settings, whatever its section is called


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric of one agent of one run; of a team with `members/*/...` one of each member."""

    record: Record
    agent: AgentRecord
    tag: str
    part: str  # what `*` in the metric stands for here
    steps: np.ndarray  # (T,) env steps of the agent
    seconds: np.ndarray  # (T,) since the run's start, pauses between a stop and a resume left out
    values: np.ndarray  # (T,) finite

    @property
    def task(self) -> str:
        """What is to be learned."""
        return self.record.env or "unknown environment"

    @property
    def final(self) -> float | None:
        """The last value."""
        return float(self.values[-1]) if len(self.values) else None

    @property
    def best(self) -> float | None:
        """The highest value."""
        return float(self.values.max()) if len(self.values) else None

    def over(self, x: str) -> np.ndarray:
        """Return what the values stand over: env_steps or wall_time."""
        return self.steps if x == "env_steps" else self.seconds

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that this agent was trained with, its own ones as `agent.KEY`."""
        own = f"{self.agent.key}."
        found = {key: value for key, value in self.record.settings.items() if not key.startswith(("agents.", "agents_scope."))}
        found |= {OWN + k.removeprefix(own): value for k, value in self.record.settings.items() if k.startswith(own)}
        copies = _copies(self.record, self.agent)
        return {**found, "env.num_envs": copies} if copies is not None else found


def _copies(record: Record, agent: AgentRecord) -> int | None:
    """Return how many copies of the environment an agent has to itself."""
    if record.num_envs is None or len(record.agents) < 2:
        return record.num_envs
    place = record.agents.index(agent)
    sizes = record.settings.get("agents_scope.sizes")
    try:
        return (list(sizes) if sizes else even_scopes(record.num_envs, len(record.agents)))[place]
    except (ConfigError, IndexError, TypeError):
        return None


# -- which metric ----------------------------------------------------------------------------------------------------------


def choose_metric(records: Sequence[Record]) -> tuple[str, str]:
    """Return the metric to compare runs by, and why: evaluations where every run that is over has them, else training."""
    ended = [tags for record in records if record.state != "running" for tags in record.columns.values()]
    there = ended or [tags for record in records for tags in record.columns.values()]
    evaluated = sum(EVALUATION in tags for tags in there)
    if there and evaluated == len(there):
        return EVALUATION, "evaluations during training"
    if evaluated:
        why = f"returns of training episodes, since only {evaluated} of {len(there)} were evaluated"
        return RETURN, f"{why}; metric={EVALUATION} compares those"
    return RETURN, "returns of training episodes, since there are no evaluations"


def read_curves(records: Sequence[Record], metric: str) -> list[Curve]:
    """Return the curves of every agent, empty ones where an agent has no such metric; `*` in it stands for any text.

    Raises ConfigError if no agent of any run has it.
    """
    curves = [curve for record in records for agent in record.agents for curve in _read(record, agent, metric)]
    if any(len(curve.values) for curve in curves):
        return curves
    there = {tag for record in records for columns in record.columns.values() for tag in columns}
    there -= {"wall_time", "timestep", "env_steps"}
    if not there:
        states = Counter(record.state for record in records)
        said = ", ".join(f"{count} {state}" for state, count in states.items())
        raise ConfigError("metric", metric, f"no run has written metrics yet ({said}); wait for the first rows")
    raise ConfigError("metric", metric, f"no run has values of it; {nearest(metric, there, limit=60)}")


def _read(record: Record, agent: AgentRecord, metric: str) -> list[Curve]:
    columns = record.columns.get(agent.name, {})
    tags = [tag for tag in columns if fnmatch.fnmatchcase(tag, metric)] if "*" in metric else [metric]
    curves = []
    for tag in tags or [metric]:
        empty = np.empty(0)
        values = columns.get(tag, empty)
        known = np.isfinite(values)
        steps, wall = (columns.get(key, empty)[known] for key in ("env_steps", "wall_time")) if known.any() else (empty, empty)
        curves.append(Curve(record, agent, tag, _part(tag, metric), steps, _seconds(record, wall), values[known]))
    return curves


def _part(tag: str, metric: str) -> str:
    head, star, tail = metric.partition("*")
    return tag[len(head) : len(tag) - len(tail)] if star and "*" not in tail and tag != metric else ""


def _seconds(record: Record, wall: np.ndarray) -> np.ndarray:
    """Return seconds since the run's start, without the time between its sessions."""
    if not len(wall):
        return wall
    passed = wall - (record.started if record.started is not None else wall[0])
    for start in record.starts[1:]:
        try:
            time = datetime.fromisoformat(str(start.get("time"))).timestamp()
        except ValueError:
            continue
        if (wall < time).any():
            passed = np.where(wall >= time, passed - (time - wall[wall < time].max()), passed)
    return np.maximum(passed, 0.0)


# -- a common grid ---------------------------------------------------------------------------------------------------------


def on_grid(curves: Sequence[Curve], x: str, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid (T,) and the curves on it (n, T), NaN before a curve's start and after its end; nothing is smoothed.

    The grid has every point that a curve has, or, of more than `most`, that many at equal distances. Over time, which no two runs
    take alike, it spans what all finished runs have in common.
    """
    over = [curve.over(x) for curve in curves]
    grid = np.unique(np.concatenate(over))
    ends = [(own[0], own[-1]) for own, curve in zip(over, curves, strict=True) if curve.record.state == "finished"]
    if x == "wall_time" and ends and max(first for first, _ in ends) < min(last for _, last in ends):
        grid = grid[(grid >= max(first for first, _ in ends)) & (grid <= min(last for _, last in ends))]
    if len(grid) > most:
        grid = np.linspace(grid[0], grid[-1], most)
    values = [np.interp(grid, own, c.values, left=np.nan, right=np.nan) for own, c in zip(over, curves, strict=True)]
    return grid, np.stack(values)
