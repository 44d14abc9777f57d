"""What a run tells when it ends: `summary.json`, the closing table, a sweep's objective; and a dry run's plan."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rltrain import checkpoints
from rltrain.config import Config
from rltrain.screen import print_out, table
from rltrain.trainers.base import Trainer


def summarize(trainer: Trainer, reason: str, versions: dict[str, str], started: float) -> dict[str, Any]:
    """Return what `summary.json` holds."""
    agents = {}
    for agent in trainer.agents:
        policy = checkpoints.learned(agent.snapshot()["policy"])
        agents[agent.name] = {
            **agent.statistics.summary(),
            "updates": agent.updates,
            "best": asdict(trainer.best[agent.name]) if agent.name in trainer.best else None,
            "parameters_sha256": checkpoints.tree_sha256(policy),
        }
    env_steps = sum(agent["env_steps"] for agent in agents.values())
    seconds = trainer.clock.read()
    return {
        "exit_reason": reason,
        "agents": agents,
        "timestep": trainer.timestep,
        "timesteps": trainer.timesteps,
        "env_steps": env_steps,
        "training_seconds": seconds,
        "compile_seconds": trainer.clock.compile_seconds,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "wall_seconds": time.time() - started,
        "environment": trainer.env.info(),
        "versions": versions,
    }


def objective(trainer: Trainer, summary: dict[str, Any]) -> float | None:
    """Return what a sweep compares: the best evaluation, else the mean return of the last 100 episodes, over agents."""
    if trainer.best:
        return sum(best.score for best in trainer.best.values()) / len(trainer.best)
    returns = [agent["episode_return_mean"] for agent in summary["agents"].values()]
    return None if None in returns else sum(returns) / len(returns)


def print_summary(trainer: Trainer, summary: dict[str, Any], directory: Path) -> None:
    """Print the closing table."""
    evaluated = ("best", "at timestep") if trainer.best else ()
    rows = []
    for name, agent in summary["agents"].items():
        mean, length = agent["episode_return_mean"], agent["episode_length_mean"]
        cells = ["-" if mean is None else f"{mean:.1f}", "-" if length is None else f"{length:.1f}"]
        if trainer.best:
            cells += [f"{agent['best']['score']:.1f}", f"{agent['best']['timestep']:,}"]
        rows.append([name, f"{agent['env_steps']:,}", f"{agent['episodes']:,}", *cells])
    lines = [
        f"{summary['exit_reason']} after {summary['training_seconds']:.1f} s, {summary['env_steps_per_second']:,.0f} env steps/s"
    ]
    lines += [f"saved in {directory}", f"  rltrain eval {directory}", f"  tensorboard --logdir {directory}"]
    print_out(table(["agent", "env steps", "episodes", "return (last 100)", "length", *evaluated], rows), *lines)


def print_plan(trainer: Trainer, config: Config) -> None:
    """Print what a run would do."""
    total, copies = trainer.timesteps, trainer.env.num_envs
    lines = [str(trainer), f"{total:,} timesteps x {copies} copies = {total * copies:,} env steps, seed {config.seed}"]
    for agent in trainer.agents:
        about = agent.algorithm.describe()
        schedule = agent.algorithm.schedule
        updates = max(0, total // schedule.every - schedule.learning_starts // schedule.every)
        lines.append(
            f"{agent.name}: {about['parameters']:,} parameters, {about['memory_bytes'] / 2**20:.2f} MiB of memory, "
            f"{updates:,} updates of {about['gradient_steps_per_update']} gradient steps"
        )
    print_out("\n".join(lines), "dry run: nothing was trained or written")
