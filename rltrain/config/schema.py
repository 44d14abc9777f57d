"""What a configuration holds: each section's dataclass stands beside its owner; choices of a group are registered here."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltrain import modules
from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.agents.ddqn.config import DDQNConfig
from rltrain.agents.dqn.config import DQNConfig
from rltrain.agents.ippo.config import IPPOConfig
from rltrain.agents.mappo.config import MAPPOConfig
from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.sac.config import SACConfig
from rltrain.agents.td3.config import TD3Config
from rltrain.backends.base import BackendConfig
from rltrain.checkpoints import CheckpointsConfig
from rltrain.checks import option, section
from rltrain.envs.atari import AtariConfig
from rltrain.envs.functional import BraxConfig, FunctionalConfig, JaxMARLConfig
from rltrain.envs.gymnasium import GymnasiumConfig
from rltrain.envs.pettingzoo import PettingZooConfig
from rltrain.errors import ConfigError, nearest, said
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import RunConfig
from rltrain.seeding import MAX_SEED
from rltrain.signals import comes_from_signal
from rltrain.tracking import TrackingConfig
from rltrain.trainers.config import ParallelConfig, StepConfig, TrainerConfig

GROUPS = ("trainer", "backend", "env", "agents", "agents_scope", "experiment")


@dataclass
class ScopeConfig:
    """How many copies each agent owns, in the order of agents."""

    sizes: list[int] | None = option(
        None, "copies per agent; null: the same number for each, the last takes the remainder", low=1, fixed=True
    )


@dataclass
class ScheduleConfig:
    """What schedules over time run over."""

    horizon: int | None = option(None, "timesteps; null: those of the run, and a longer resume keeps the first run's", low=1)


@dataclass
class Config:
    """A whole run, checked."""

    seed: int | None = option(None, "of every random stream; null draws one and prints it", low=0, high=MAX_SEED, fixed=True)
    total_env_steps: int | None = option(100_000, "steps of all copies together, rounded up to whole timesteps", low=1)
    plugins: list[str] = option(
        [], "packages of your own to import first: their agents, environments and trainers are then choices"
    )
    dry_run: bool = option(False, "show parameters, memory, timesteps and updates, train nothing")
    resume: str | None = option(None, "a run to go on with, or auto: run.dir if it holds one, else a fresh run")
    init_from: str | None = option(None, "a checkpoint whose weights to start from; everything else starts fresh")
    init_from_partial: bool = option(
        False, "take what fits of it by name and shape: another head, another observation, another algorithm"
    )
    run: RunConfig = section(RunConfig, "where the run lands")
    tracking: TrackingConfig = section(TrackingConfig, "what is written while training")
    checkpoints: CheckpointsConfig = section(CheckpointsConfig, "when checkpoints are written")
    evaluation: EvaluationConfig = section(EvaluationConfig, "evaluations during training")
    schedule: ScheduleConfig = section(ScheduleConfig, "what schedules over time run over")
    agents_scope: ScopeConfig = section(ScopeConfig, "copies per agent")
    backend: BackendConfig = section(BackendConfig, "where the numbers are computed")
    # these are chosen by group, so their dataclasses depend on the choice
    trainer: Any = None
    env: Any = None
    agents: dict[str, Any] = field(default_factory=dict, metadata={"doc": "agents by name, in the order of scopes"})


@dataclass(frozen=True)
class Choice:
    """One option of a group: the class to make and the dataclass that holds its settings."""

    target: str  # may contain ${backend.name}
    cfg: type


CHOICES: dict[str, dict[str, Choice]] = {
    "trainer": {
        "parallel": Choice("rltrain.trainers.ParallelTrainer", ParallelConfig),
        "sequential": Choice("rltrain.trainers.SequentialTrainer", TrainerConfig),
        "step": Choice("rltrain.trainers.StepTrainer", StepConfig),
    },
    "backend": {
        "jax": Choice("rltrain.backends.jax.JaxBackend", BackendConfig),
        "torch": Choice("rltrain.backends.torch.TorchBackend", BackendConfig),
    },
    "env": {
        "atari": Choice("rltrain.envs.atari.AtariEnv", AtariConfig),
        "gymnasium": Choice("rltrain.envs.gymnasium.GymnasiumEnv", GymnasiumConfig),
        "gymnax": Choice("rltrain.envs.gymnax.GymnaxEnv", FunctionalConfig),
        "brax": Choice("rltrain.envs.brax.BraxEnv", BraxConfig),
        "jaxmarl": Choice("rltrain.envs.jaxmarl.JaxMARLEnv", JaxMARLConfig),
        "pettingzoo": Choice("rltrain.envs.pettingzoo.PettingZooEnv", PettingZooConfig),
    },
    "agents": {
        "a2c": Choice("rltrain.agents.a2c.${backend.name}.A2C", A2CConfig),
        "ddpg": Choice("rltrain.agents.ddpg.${backend.name}.DDPG", DDPGConfig),
        "ddqn": Choice("rltrain.agents.ddqn.${backend.name}.DDQN", DDQNConfig),
        "dqn": Choice("rltrain.agents.dqn.${backend.name}.DQN", DQNConfig),
        "ippo": Choice("rltrain.agents.ippo.${backend.name}.IPPO", IPPOConfig),
        "mappo": Choice("rltrain.agents.mappo.${backend.name}.MAPPO", MAPPOConfig),
        "ppo": Choice("rltrain.agents.ppo.${backend.name}.PPO", PPOConfig),
        "sac": Choice("rltrain.agents.sac.${backend.name}.SAC", SACConfig),
        "td3": Choice("rltrain.agents.td3.${backend.name}.TD3", TD3Config),
    },
}
plugin_options: set[tuple[str, str]] = set()  # (group, name) of choices that no YAML file stands for
plugin_packages: set[str] = set()


def register(group: str, name: str, target: str, cfg: type) -> None:
    """Make a class of one's own a choice: `rltrain train <group>=<name>`; for packages named in `plugins`.

    `target` is its dotted path (for agents, `${backend.name}` in it stands for torch or jax), `cfg` the dataclass of its
    settings.
    """
    if group not in CHOICES:
        raise ConfigError("group", group, f"unknown; {nearest(group, CHOICES)}")
    CHOICES[group][name] = Choice(target, cfg)
    plugin_options.add((group, name))


def options(group: str) -> list[str]:
    """Return the options of a group."""
    from_files = [path.stem for directory in directories() for path in (directory / group).glob("*.yaml")]
    return sorted({*from_files, *(name for g, name in plugin_options if g == group)})


def load_plugins(names: Any) -> None:
    """Import the packages named in `plugins`, a list or text as on the command line: a, b or [a, b].

    Raises ConfigError for one that can't be imported.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.strip("[]").split(",") if name.strip()]
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError("plugins", names, "must be a list of package names")
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise ConfigError("plugins", name, "is not the name of a Python package")
        try:
            modules.import_named(name, "plugins", name)
        except BaseException as error:  # whatever the package's own code raises
            if isinstance(error, modules.Refused) or comes_from_signal(error):
                raise
            reason = said(error)
            raise ConfigError("plugins", name, f"can't be imported ({reason}); is it installed or in this directory?") from error
        plugin_packages.add(name)


def conf_directory() -> Path:
    """Return where the YAML files are: in an installed package, or in the checkout."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def directories() -> list[Path]:
    """Return the folders of YAML files: rltrain's, then the plugins'."""
    files = [getattr(sys.modules[name], "__file__", None) for name in sorted(plugin_packages)]
    plugins = [Path(file).parent / "conf" for file in files if file]
    return [conf_directory(), *(path for path in plugins if path.is_dir())]
