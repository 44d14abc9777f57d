"""rltrain for scripts: environments and agents in one call each, trainers, and runs loaded and evaluated from their directories.

Everything here is `rltrain.NAME`. Settings are keywords with the names that they have in YAML, checked as those are; what is
wrong raises ConfigError before anything is made.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rltrain import assemble, modules
from rltrain import config as configuration
from rltrain.agents.base import Agent
from rltrain.backends.base import Backend, BackendConfig, prepare
from rltrain.checks import build
from rltrain.commands.evaluate import EvalOptions, play, write
from rltrain.commands.plans import add_plugins, load_config, load_plugins
from rltrain.commands.reading import beside_training, hold_each, hold_found, load_policies
from rltrain.commands.train import read_parts
from rltrain.config import CHOICES, Checked, Config
from rltrain.config.schema import Choice
from rltrain.envs.base import EnvWrapper
from rltrain.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFailure,
    NonFiniteError,
    RltrainError,
    RunError,
    StorageError,
    nearest,
)
from rltrain.runs import Run
from rltrain.seeding import EVALUATION_ENVIRONMENTS, TRAINING_ENVIRONMENTS, draw_seed
from rltrain.trainers import ParallelTrainer, SequentialTrainer, StepResult, StepTrainer, Trainer
from rltrain.trainers.wrapped import remedy

__all__ = [
    "Agent",
    "CheckpointError",
    "ConfigError",
    "EnvWrapper",
    "EnvironmentFailure",
    "Loaded",
    "NonFiniteError",
    "ParallelTrainer",
    "RltrainError",
    "Run",
    "RunError",
    "SequentialTrainer",
    "StepResult",
    "StepTrainer",
    "StorageError",
    "Trainer",
    "evaluate",
    "load",
    "make_agent",
    "make_env",
]
BY_CALL = ("gymnasium", "pettingzoo")  # kinds of environments that a class or a function can make


def make_env(
    env: str | Callable[..., Any],
    num_envs: int = 8,
    *,
    kind: str = "gymnasium",
    seed: int | None = None,
    evaluation: bool = False,
    render_mode: str | None = None,
    **settings: Any,
) -> EnvWrapper:
    """Return `num_envs` copies of an environment, as trainers take them.

    Example::

        env = rltrain.make_env("Pendulum-v1", num_envs=4, seed=1, kwargs={"g": 9.0})

    Args:
        env: an id, as on the command line; or a class, or a function that makes one copy.
        num_envs: copies that are stepped together.
        kind: what the id belongs to: gymnasium, pettingzoo, gymnax, brax, jaxmarl, or a plugin's own; `env=` in YAML.
        seed: of all copies, each of which gets a stream of its own; None: not reproducible.
        evaluation: other streams than those of training, from the same seed: for a trainer's `evaluation_env`.
        render_mode: how the copies are drawn, as Gymnasium has it.
        settings: the others of `env.*` in YAML: `kwargs`, `vectorization`, `timeout`, `on_nonfinite`, ...

    Raises:
        ConfigError: an unknown id (with the nearest one), a setting that there isn't, a value out of range.
        EnvironmentFailure: a copy can't be made.
    """
    choice = _choose("env", kind)
    how: dict[str, Any] = {"seed": seed, "role": EVALUATION_ENVIRONMENTS if evaluation else TRAINING_ENVIRONMENTS}
    name: Any = env
    if not isinstance(env, str):
        name = _name_of(env, kind)
        kwargs = {**settings.get("kwargs", {}), **({} if render_mode is None else {"render_mode": render_mode})}
        how["make"] = functools.partial(env, **kwargs) if kwargs else env
    cfg: Any = build(choice.cfg, {"id": name, "num_envs": num_envs, **settings}, "env")
    prepare(BackendConfig())  # before JAX starts, where the environment is written in it
    made: EnvWrapper = assemble.follow(choice.target, _packages(choice.target))(cfg, render_mode=render_mode, **how)
    made.run_seed = seed
    return made


def make_agent(
    algorithm: str,
    env: EnvWrapper,
    *,
    seed: int | None = None,
    backend: str | Mapping[str, Any] | Backend = "torch",
    name: str | None = None,
    num_envs: int | None = None,
    index: int = 0,
    **settings: Any,
) -> Agent:
    """Return an agent for an environment: its spaces, states, named members and copies are taken from there.

    Example::

        network = {"policy_sizes": [64, 64], "activation": "relu"}
        agent = rltrain.make_agent("ppo", env, learning_rate=1e-3, network=network)

    Args:
        algorithm: ppo, a2c, dqn, ddqn, ddpg, td3, sac; for environments with named members ippo, mappo; or a plugin's own.
        env: what it acts in.
        seed: of its networks, its actions and its minibatches; None: that of the environment, or a new one if that has none.
        backend: torch, jax, its settings as in `{"name": "torch", "device": "cuda:0"}`, or a backend that is made.
        name: in metrics and checkpoints; None: the algorithm's.
        num_envs: its copies; None: all of the environment. Of several agents each is made for those of its scope.
        index: its number among several agents, which gives it random streams of its own.
        settings: of the algorithm, those of `agents.NAME.*` in YAML; nested ones are dicts.

    Raises:
        ConfigError: no such algorithm or setting, a value out of range, spaces that the algorithm can't act in.
    """
    if not hasattr(env, "reset_done"):
        raise ConfigError("env", type(env).__name__, f"is no environment of rltrain; wrap it: {remedy(env)}")
    choice, name = _choose("agents", algorithm), name or algorithm
    copies = env.num_envs if num_envs is None else num_envs
    checked = Checked(choice.target, build(choice.cfg, settings, f"agents.{name}"), f"agents.{name}")
    if hasattr(checked.cfg, "check_copies"):
        checked.cfg.check_copies(copies, checked.key)
    made = _make_backend(backend)
    kind = assemble.follow(choice.target.replace("${backend.name}", made.name), _packages(choice.target))
    seed = env.run_seed if seed is None else seed
    seed = draw_seed() if seed is None else seed
    return assemble.make_agent(kind, checked, env, made, name=name, num_envs=copies, seed=seed, index=index)


@dataclass
class Loaded:
    """A run as `load` found it; a context manager that closes its environments.

    Attributes:
        checkpoint: the directory that it was loaded from.
        config: the run's configuration, checked.
        env: the environment that it trains on.
        evaluation_env: other copies of it, so that `trainer.eval()` leaves `env` alone.
        agents: by name.
        trainer: with all of these; it writes nothing to the run's directory.
    """

    checkpoint: Path
    config: Config
    env: EnvWrapper
    evaluation_env: EnvWrapper
    agents: dict[str, Agent]
    trainer: Trainer

    def close(self) -> None:
        """Close the environments."""
        self.trainer.close()

    def __enter__(self) -> "Loaded":
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the environments."""
        self.close()


def load(run: str | Path, checkpoint: str = "latest", *, overrides: Sequence[str] = (), trust: bool = False) -> Loaded:
    """Return environment, agents and trainer of a run, from its directory or one of its checkpoints; nothing is written.

    From the latest checkpoint, or one that `run` names, everything is restored: `trainer.train()` goes on as `rltrain train
    resume=RUN` does. From the best one the policies are, each agent's own best: to act by, or to train on from anew.

    Example::

        with rltrain.load("outputs/latest", "best") as run:
            observations = run.env.reset()
            now = {"timestep": 0, "timesteps": 1}
            actions = run.agents["ppo"].act(observations, **now, explore=False)

    Args:
        run: a run's directory, `latest` for the last one started here, or a folder under a run's `checkpoints/`.
        checkpoint: latest or best.
        overrides: of the run's configuration, as `rltrain train resume=RUN` takes them: `["total_env_steps=200000"]`.
        trust: also import from the current directory what the run's configuration names.

    Raises:
        ConfigError: no such run; an override that it can't have; a module that only the current directory has, without `trust`.
        CheckpointError: the checkpoint is corrupt, incomplete, or of another architecture.
    """
    name = _checkpoint_name(run, checkpoint)
    with _gated("load", run, trust, overrides):
        others, plugins = load_plugins(overrides)
        first = hold_found(name, key="run")
        cfg = load_config(first.path, first.config)
        add_plugins(cfg, plugins)
        before = configuration.check(cfg)
        config = configuration.check(configuration.apply_overrides(cfg, others, allowed_groups=("trainer", "backend")))
        configuration.check_resumable(before, config)
        trainer = assemble.make_trainer(config)
        try:
            if trainer.evaluation_env is None:
                trainer.evaluation_env = assemble.make_env(config, role=EVALUATION_ENVIRONMENTS)
            trainer.run.tracking, trainer.run.evaluation = config.tracking, config.evaluation
            if Path(name).name == "best":
                path = first.path
                load_policies(trainer.agents, hold_each(name, list(config.agents), first))
            else:
                path, parts = beside_training(
                    lambda: assemble.find_checkpoint(name, key="run"), lambda found: (found, read_parts(found, trainer.agents))
                )
                trainer.restore(parts, keep_horizon=config.schedule.horizon is None)
        except BaseException:
            trainer.close()
            raise
    agents = {agent.name: agent for agent in trainer.agents}
    return Loaded(path, config, trainer.env, trainer.evaluation_env, agents, trainer)


def evaluate(
    run: str | Path,
    episodes: int = 100,
    *,
    checkpoint: str = "latest",
    seed: int | None = None,
    random: bool | None = None,
    overrides: Sequence[str] = (),
    directory: str | Path | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Return the figures that `rltrain eval` prints, of each agent of a run; nothing is written unless `directory` is given.

    Example::

        figures = rltrain.evaluate("outputs/latest", episodes=100, checkpoint="best")
        ppo = figures["agents"]["ppo"]
        print(ppo["mean"], ppo["mean_interval"])

    Args:
        run: a run's directory, `latest` for the last one started here, or a folder under a run's `checkpoints/`.
        episodes: per agent.
        checkpoint: latest or best.
        seed: of environments and sampling; None: the run's. The episodes are others than those of training.
        random: also play random actions on the same starts; None: beside teams.
        overrides: as `rltrain eval` takes them: `["env.num_envs=16", "trainer.stochastic_evaluation=true"]`.
        directory: where `eval.json` is written, with every episode; outside of runs.
        trust: also import from the current directory what the run's configuration names.

    Returns:
        A dict with the figures of each agent under `agents`, by name, and with those of random actions under `random`. They are
        `episodes`, `mean`, `mean_interval` (95 %), `std`, `median`, `iqm` (interquartile mean), `min`, `max`, `length_mean` and
        `success_rate`; a team's have `sum_mean` and `members` too.

    Raises:
        ConfigError: no such run or override; a module that only the current directory has, without `trust`.
        CheckpointError: the checkpoint is corrupt or of another architecture.
    """
    given = {"checkpoint": _checkpoint_name(run, checkpoint), "episodes": episodes, "seed": seed, "random": random, "json": True}
    options, place = build(EvalOptions, given), None if directory is None else str(directory)
    with _gated("evaluate", run, trust, overrides):
        played = play(options, list(overrides), place=place, key="run")
    played.run.answer_signal()
    figures = played.figures()
    if place is not None:
        write(played, figures, options, place)
    return figures


def _choose(group: str, name: str) -> Choice:
    """Return a registered choice."""
    choices = CHOICES[group]
    if not isinstance(name, str) or name not in choices:
        key = {"env": "kind", "agents": "algorithm"}[group]
        raise ConfigError(key, name, f"no such choice; {nearest(str(name), choices)}")
    return choices[name]


def _packages(target: str) -> list[str]:
    """Return the package that a target lies in: who registered it is in this process."""
    return [target.partition(".")[0]]


def _make_backend(backend: str | Mapping[str, Any] | Backend) -> Any:
    if not isinstance(backend, str | Mapping):
        return backend
    cfg = build(BackendConfig, {"name": backend} if isinstance(backend, str) else backend, "backend")
    prepare(cfg)
    return assemble.follow(CHOICES["backend"][cfg.name].target, [])(cfg)


def _name_of(env: Any, kind: str) -> str:
    """Return what to call an environment that a class or a function makes."""
    if hasattr(env, "reset_done"):
        raise ConfigError("env", type(env).__name__, "is an environment of rltrain already; hand it to the trainer")
    if not callable(env) or (not isinstance(env, type) and hasattr(env, "reset") and hasattr(env, "step")):
        what = "is made already, and each copy has to be made and seeded by itself"
        raise ConfigError(
            "env", type(env).__name__, f"{what}; give its id, its class or a function that makes one: {remedy(env)}"
        )
    if kind == "gymnasium" and any(base.__module__.startswith("pettingzoo") for base in getattr(env, "__mro__", ())):
        raise ConfigError("env", env.__name__, 'is an environment of PettingZoo; add kind="pettingzoo"')
    if kind not in BY_CALL:
        raise ConfigError("env", getattr(env, "__name__", env), f"environments of kind={kind} are made by id")
    inner = env.func if isinstance(env, functools.partial) else env
    return str(getattr(inner, "__name__", type(inner).__name__))


def _checkpoint_name(run: str | Path, checkpoint: str) -> str:
    if checkpoint not in ("latest", "best"):
        raise ConfigError("checkpoint", checkpoint, "latest or best; any other by its path: run=RUN/checkpoints/NUMBER")
    given = Path("outputs/latest") if str(run) == "latest" else Path(run)
    return str(given / "best") if checkpoint == "best" else str(run)


def _gated(function: str, run: str | Path, trust: bool, overrides: Sequence[str]) -> Any:
    return modules.gated(overrides, trusted=trust, again=f'rltrain.{function}("{run}", trust=True)')
