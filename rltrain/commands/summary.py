"""What a run tells when it ends: `summary.json`, the closing table, a sweep's objective; and a dry run's plan."""

import json
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rltrain import checkpoints, files, modules
from rltrain.config import Config
from rltrain.errors import RltrainError
from rltrain.screen import print_out, table
from rltrain.trainers.base import Trainer

MAX_BYTES = 64 * 2**20  # of a summary: it has every start of the run


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


def read_finished(directory: Path) -> dict[str, Any] | None:
    """Return a run's summary if it says that the run is finished, else None."""
    try:
        summary = json.loads(files.read_small(directory / "summary.json", MAX_BYTES, "a summary"))
        return summary if summary["exit_reason"] == "finished" and summary["agents"] else None
    except (OSError, ValueError, KeyError, TypeError, RltrainError):
        return None  # none, or none that can be read: it is written anew


def final(summary: dict[str, Any]) -> float | None:
    """Return the mean return of the last 100 episodes of training, over agents."""
    returns = [agent["episode_return_mean"] for agent in summary["agents"].values()]
    return None if None in returns else sum(returns) / len(returns)


def best(summary: dict[str, Any]) -> float | None:
    """Return the best evaluation's mean return, over agents."""
    scores = [agent["best"]["score"] for agent in summary["agents"].values() if agent["best"] is not None]
    return sum(scores) / len(scores) if scores else None


def objective(summary: dict[str, Any]) -> float | None:
    """Return what a sweep compares: the best evaluation, else the mean return of the last 100 episodes, over agents."""
    score = best(summary)
    return final(summary) if score is None else score


def print_summary(trainer: Trainer, summary: dict[str, Any], directory: Path) -> None:
    """Print the closing table."""
    evaluated = ("best evaluation", "at timestep") if trainer.best else ()
    rows = []
    for name, agent in summary["agents"].items():
        mean, length = agent["episode_return_mean"], agent["episode_length_mean"]
        cells = ["-" if mean is None else f"{mean:.1f}", "-" if length is None else f"{length:.1f}"]
        if trainer.best:
            own = agent["best"]
            cells += ["-", "-"] if own is None else [f"{own['score']:.1f}", f"{own['timestep']:,}"]
        rows.append([name, f"{agent['env_steps']:,}", f"{agent['episodes']:,}", *cells])
    lines = [
        f"{summary['exit_reason']} after {summary['training_seconds']:.1f} s, {summary['env_steps_per_second']:,.0f} env steps/s"
    ]
    longer = [] if trainer.timestep < trainer.timesteps else [f"total_env_steps={2 * trainer.timestep * trainer.env.num_envs}"]
    commands = [["tensorboard", "--logdir", str(directory)]] if trainer.run.tracking.tensorboard else []
    trust = ["trust=true"] if modules.is_here_needed() else []
    commands += [["rltrain", "train", f"resume={directory}", *longer, *trust], ["rltrain", "eval", str(directory), *trust]]
    lines += [f"saved in {directory}", *(f"  {shlex.join(command)}" for command in commands)]
    print_out(table(["agent", "env steps", "episodes", "return (last 100)", "length", *evaluated], rows), *lines)


def print_plan(trainer: Trainer, config: Config) -> None:
    """Print what a run would do."""
    total, copies = trainer.timesteps, trainer.env.num_envs
    lines = [str(trainer), f"{total:,} timesteps x {copies} copies = {total * copies:,} env steps, seed {config.seed}"]
    lines += trainer.env.notes()
    for agent in trainer.agents:
        about = agent.algorithm.describe()
        images = getattr(agent.algorithm, "images", {})
        lines += [f"{agent.name} reads {f'{path!r}, ' if path else ''}{image}" for path, image in images.items()]
        schedule = agent.algorithm.schedule
        updates = max(0, total // schedule.every - schedule.learning_starts // schedule.every)
        on_device = hasattr(trainer.env, "pure") and hasattr(agent.algorithm, "pure")  # each row has its successor
        memory = f"{about['memory_bytes'] * (1 + on_device) / 2**20:.2f} MiB of memory{' with successors' if on_device else ''}"
        lines.append(
            f"{agent.name}: {about['parameters']:,} parameters, {memory}, "
            f"{updates:,} updates of {about['gradient_steps_per_update']} gradient steps"
        )
    print_out("\n".join(lines), "dry run: nothing was trained or written")
