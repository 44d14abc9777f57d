"""What a trainer keeps beside the loop: the clock, the best evaluations, rows of metrics."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain.agents.base import Agent
from rltrain.runs import Run
from rltrain.structures import mean


@dataclass
class Best:
    """An agent's best evaluation so far: mean return, and after how many timesteps."""

    score: float
    timestep: int


@dataclass
class Clock:
    """Seconds of training, without evaluations and without compiling, which is counted apart."""

    compiling: Callable[[], float] = lambda: 0.0  # seconds of it so far
    seconds: float = 0.0
    compile_seconds: float = 0.0
    _since: float | None = field(default=None)
    _compiled: float = 0.0

    def start(self) -> None:
        """Go on counting."""
        self._since, self._compiled = time.perf_counter(), self.compiling()

    def stop(self) -> float:
        """Stop counting; return the seconds so far."""
        self.seconds = self.read()
        self.compile_seconds += self.compiling() - self._compiled
        self._since, self._compiled = None, self.compiling()
        return self.seconds

    def read(self) -> float:
        """Return the seconds so far."""
        if self._since is None:
            return self.seconds
        return self.seconds + max(0.0, time.perf_counter() - self._since - (self.compiling() - self._compiled))


def write_rows(
    run: Run, agents: Sequence[Agent], timestep: int, rate: float, evaluation: Mapping[str, Mapping[str, Any]] | None
) -> None:
    """Write each agent's row of metrics and move the screen; `evaluation` holds results by agent, if there were any just now."""
    returns = []
    for agent in agents:
        statistics = agent.statistics.summary()
        row = {f"rollout/{key}": statistics[key] for key in ("episode_return_mean", "episode_length_mean")}
        for name, member in statistics.get("members", {}).items():
            row |= {f"members/{name}/{key}": member[key] for key in ("episode_return_mean", "episode_length_mean")}
        row = {tag: value for tag, value in row.items() if value is not None}
        row |= agent.statistics.read_info()
        row |= {"rollout/episodes": agent.statistics.episodes, **agent.read_metrics(), "time/env_steps_per_second": rate}
        if evaluation is not None:
            results = evaluation[agent.name]
            row["evaluation/episode_return_mean"] = mean(results["returns"])
            row["evaluation/episode_return_std"] = float(np.std(results["returns"]))
            row["evaluation/episode_length_mean"] = float(np.mean(results["lengths"]))
            if "cut" in results:
                row["evaluation/cut_episodes"] = sum(results["cut"])
            for name, own in results.get("members", {}).items():
                if own["returns"]:
                    row[f"members/{name}/evaluation_return_mean"] = mean(own["returns"])
        run.write_metrics(agent.name, timestep, agent.statistics.env_steps, row)
        if statistics["episode_return_mean"] is not None:
            returns.append(statistics["episode_return_mean"])
    if run.screen is not None:
        run.screen.update(timestep, rate, float(np.mean(returns)) if returns else None)


def select_infos(infos: Mapping[str, Any], group: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of `infos` to record: those in the dict `group`, and those named in `keys`; a.b is b within a.

    Each comes with what Gymnasium says, under `_name`, of which copies gave one.
    """
    found = dict(infos[group]) if isinstance(infos.get(group), Mapping) else {}
    for key in keys:
        inside: Any = infos
        *path, name = key.split(".")
        for part in path:
            inside = inside.get(part) if isinstance(inside, Mapping) else None
        if isinstance(inside, Mapping) and name in inside and np.asarray(inside[name]).dtype.kind in "biuf":
            found[key] = inside[name]
            if f"_{name}" in inside:
                found[f"_{key}"] = inside[f"_{name}"]
    return found


def overrides(instance: Any, base: type, methods: Sequence[str]) -> bool:
    """Tell whether an instance has its own form of one of these methods of a base class."""
    return any(getattr(type(instance), method) is not getattr(base, method) for method in methods)
