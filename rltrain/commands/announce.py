"""What a training says before it begins: what will run, what it goes on from, that it is finished already; a preset to use."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rltrain import modules
from rltrain.agents.base import Agent
from rltrain.commands import history
from rltrain.commands.plans import Plan
from rltrain.config import CHOICES, Config, directories
from rltrain.screen import print_out
from rltrain.trainers.base import Trainer
from rltrain.trainers.sharing import settings


def announce(plan: Plan, trainer: Trainer, directory: Path) -> None:
    """Say what will run, on the screen and in `train.log`."""
    config = plan.config
    total, copies = trainer.timesteps, trainer.env.num_envs
    lines = [f"skipped: {line}" for line in plan.skipped]
    lines += [
        f"run: {directory}",
        f"seed: {config.seed}",
        str(trainer),
        f"{total:,} timesteps x {copies} copies = {total * copies:,} env steps",
        *trainer.env.notes(),
    ]
    for agent in trainer.agents:
        if total < agent.algorithm.schedule.first():
            lines.append(
                f"warning: agents.{agent.name} learns nothing: its first update would come after "
                f"{agent.algorithm.schedule.first():,} timesteps"
            )
    if config.total_env_steps and config.total_env_steps % copies:
        lines.append(f"total_env_steps={config.total_env_steps:,} is rounded up to whole timesteps")
    if plan.checkpoint is not None:
        lines.append(f"going on from {plan.checkpoint}")
    elif plan.directory is not None:
        lines.append("the run has no checkpoint yet: starting from the beginning")
    elif plan.presets:
        one = len(plan.presets) == 1
        lines.append(f"{'a preset' if one else 'presets'} for this environment: experiment={', '.join(plan.presets)}")
    lines += plan.taken
    if plan.changes:
        verb = "resumed" if plan.checkpoint is not None else "started anew"
        lines.append(f"{verb} at {trainer.timestep:,}: {history.describe(plan.changes)}")
    trainer.run.open_log()
    for line in lines:
        trainer.run.say(line)


def tell_finished(trainer: Trainer, directory: Path, timestep: int) -> None:
    """Say that a run has nothing left to train, and how to train on."""
    copies = trainer.env.num_envs
    done = f"{timestep:,} of {trainer.timesteps:,} timesteps are made, {timestep * copies:,} env steps"
    trust = ["trust=true"] if modules.is_here_needed() else []
    longer = shlex.join(["rltrain", "train", f"resume={directory}", f"total_env_steps={2 * timestep * copies}", *trust])
    print_out(f"{directory} is finished: {done}; nothing was trained. To train on:", f"  {longer}")


def say_horizon(trainer: Trainer) -> None:
    """Say that schedules don't follow a new length, where there are any."""
    if trainer.horizon != trainer.timesteps and any(map(_has_schedule, trainer.agents)):
        trainer.run.say(
            f"schedules keep their horizon of {trainer.horizon:,} timesteps (schedule.horizon): "
            "this is not equal to one run of the new length"
        )


def _has_schedule(agent: Agent) -> bool:
    """Tell whether something changes over the horizon, as settings say; an agent of one's own without any may have it."""
    kinds = list(_kinds(vars(settings(agent) or object)))
    return not kinds or any(kind != "constant" for kind in kinds)


def _kinds(cfg: Any) -> Iterator[str]:
    for name, value in cfg.items():
        if isinstance(value, dict):
            yield from _kinds(value)
        elif name.endswith("_schedule") and (cfg.get("prioritized", True) or not name.startswith("importance")):
            yield value


def find_presets(config: Config, typed: Sequence[str]) -> list[str]:
    """Return the names of the presets for an environment that was typed without one, with the agents that were chosen.

    Where no agents were typed and no preset has those that are chosen then, all presets for the environment.
    """
    keys = {override.lstrip("+").partition("=")[0] for override in typed}
    if "experiment" in keys or not keys & {"env", "env.id"}:
        return []
    wanted = config.env.cfg.id, _choice("env", config.env.target, config)
    agents = sorted({_choice("agents", agent.target, config) for agent in config.agents.values()})
    there = {path.stem: preset for path, preset in _presets() if _read(preset)[:2] == wanted and not _is_wrapped(preset)}
    same = [name for name, preset in there.items() if _read(preset)[2] == agents]
    return sorted(same or ([] if "agents" in keys else there))


def _choice(group: str, target: str, config: Config) -> str:
    """Return the name of a choice by its class."""
    targets = {choice.target.replace("${backend.name}", config.backend.name): name for name, choice in CHOICES[group].items()}
    return targets.get(target, target)


def _is_wrapped(preset: dict[str, Any]) -> bool:
    """Tell whether a preset changes the environment by wrappers: it is another task."""
    return bool((preset.get("env") or {}).get("wrappers"))


def _presets() -> Iterator[tuple[Path, dict[str, Any]]]:
    import yaml

    for path in (path for directory in directories() for path in sorted((directory / "experiment").glob("*.yaml"))):
        try:
            preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # a plugin's, and not what was asked for
        if isinstance(preset, dict):
            yield path, preset


def _read(preset: dict[str, Any]) -> tuple[Any, str, list[str]]:
    """Return what a preset sets: the environment's id, its group's choice, the agents'."""
    chosen: dict[str, Any] = {"env": "gymnasium", "agents": ["ppo"]}
    for entry in preset.get("defaults") or []:
        if isinstance(entry, dict):
            chosen |= {str(key).removeprefix("override ").strip().lstrip("/"): value for key, value in entry.items()}
    env, agents = preset.get("env"), chosen["agents"]
    return (
        env.get("id") if isinstance(env, dict) else None,
        str(chosen["env"]),
        sorted(map(str, agents if isinstance(agents, list) else [agents])),
    )
