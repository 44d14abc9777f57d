"""Directories of runs as `rltrain train` leaves them, made in no time: of which one knows every number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RETURN, EVALUATION = "rollout/episode_return_mean", "evaluation/episode_return_mean"
START = 1_800_000_000  # seconds since 1970
HOUR = "2027-01-15T08:00:00+00:00"  # the same


def make_run(
    directory: Path,
    *,
    seed: int = 1,
    env: str = "CartPole-v1",
    agents: dict[str, dict[str, Any]] | None = None,
    scores: dict[str, Sequence[float]] | Sequence[float] = (1.0, 2.0, 3.0),
    tag: str = EVALUATION,
    reason: str | None = "finished",
    steps: int = 300,
    every: int = 100,
    host: str = "here",
    version: str = "1.0",
    starts: Sequence[dict[str, Any]] = (),
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write a run that got `scores` (of each agent) every `every` env steps, one second each."""
    agents = agents or {"ppo": {"learning_rate": 0.001}}
    names = [name for key, own in agents.items() for name in _named(key, own.get("count", 1))]
    by_agent = scores if isinstance(scores, dict) else dict.fromkeys(names, scores)
    directory.mkdir(parents=True)
    sections = {
        name: {"_target_": f"rltrain.agents.{own.get('kind', 'ppo')}.${{backend.name}}.X", "count": own.get("count", 1)}
        | {key: value for key, value in own.items() if key not in ("kind", "count")}
        for name, own in agents.items()
    }
    config = {
        "seed": seed,
        "total_env_steps": steps,
        "run": {"dir": str(directory)},
        "backend": {"name": "torch", "threads": 1},
        "evaluation": {"interval": 100, "episodes": 10},
        "trainer": {"_target_": "rltrain.trainers.SequentialTrainer", "timesteps": None},
        "env": {"id": env, "num_envs": 4, "kwargs": {}},
        "agents": sections,
        "agents_scope": {"sizes": None},
        **(settings or {}),
    }
    (directory / "config.yaml").write_text(json.dumps(config))  # which is YAML, too
    rows = [
        {"wall_time": START + 1 + i, "timestep": (i + 1) * every, "env_steps": (i + 1) * every, "agent": name}
        | {tag: values[i], RETURN: values[i] / 2, "time/env_steps_per_second": 100.0}
        for name, values in by_agent.items()
        for i in range(len(values))
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda r: r["timestep"])))
    versions = {"rltrain": version, "torch": "2", "device": "cpu"}
    history = [{"start": 1, "time": HOUR, "host": host, "versions": versions, "changed": {}}]
    history += [{"start": i, "host": host, "versions": versions, "changed": {}} | start for i, start in enumerate(starts, 2)]
    if reason is not None:
        about = {"exit_reason": reason, "history": history, "env_steps_per_second": 100.0, "env_steps": len(rows) * every}
        about |= {"agents": {name: {"env_steps": len(values) * every, "best": None} for name, values in by_agent.items()}}
        (directory / "summary.json").write_text(json.dumps(about))
    else:
        (directory / "starts").mkdir()
        for start in history:
            (directory / f"starts/{start['start']}.json").write_text(json.dumps(start))
    return directory


def _named(key: str, count: int) -> list[str]:
    return [key] if count == 1 else [f"{key}_{i}" for i in range(count)]


def make_sweep(root: Path, rates: Sequence[float] = (0.001, 0.01), seeds: Sequence[int] = (1, 2, 3, 4, 5), **how: Any) -> Path:
    """Write a run per learning rate and seed; the last score is 100 times the rate, plus the seed."""
    for rate in rates:
        for seed in seeds:
            scores = [0.0, seed / 2, 100 * rate + seed]
            make_run(root / f"{rate}_{seed}", seed=seed, agents={"ppo": {"learning_rate": rate}}, scores=scores, **how)
    return root
