"""Makes the parts of a run from a checked configuration; the only place that follows a `_target_`."""

import inspect
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rltrain import config as configuration
from rltrain import generators, installing, modules, video
from rltrain.agents.base import Agent
from rltrain.backends.base import prepare
from rltrain.config import Checked, Config
from rltrain.envs.base import EnvWrapper
from rltrain.envs.gymnasium_ids import can_be_drawn, find_spec
from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.runs import Run
from rltrain.seeding import EVALUATION_ENVIRONMENTS, PROCESS_GENERATORS, TRAINING_ENVIRONMENTS, seed64
from rltrain.signals import comes_from_signal
from rltrain.trainers.base import Trainer
from rltrain.trainers.config import ParallelConfig, StepConfig
from rltrain.video import check_installed, video_format

PICTURES = "rgb_array"  # the render mode of environments that are filmed


def follow(target: str, plugins: list[str]) -> Any:
    """Return the class that `target` names, if it lies in rltrain or in a package named in `plugins`."""
    allowed = ("rltrain", *plugins)
    if not any(target.startswith(f"{package}.") for package in allowed):
        raise ConfigError("_target_", target, f"lies outside the allowed packages: {', '.join(allowed)}")
    module, _, name = target.rpartition(".")
    try:
        return getattr(modules.import_named(module, "_target_", target), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = {"torch": "torch", "jax": "jax", "flax": "jax", "optax": "jax"}.get(missing)
        remedy = installing.command_for(extra) if extra else f"install {missing or 'what is missing'}"
        raise ConfigError(
            "backend.name" if extra else "_target_", extra or target, f"{missing} is not installed; {remedy}"
        ) from None
    except AttributeError:
        raise ConfigError("_target_", target, f"{module} has no {name}") from None


def find_callback(config: Config) -> Callable[..., Any] | None:
    """Return the function that `trainer.callback` names, or None if it names none.

    Raises ConfigError if it isn't there or takes other arguments.
    """
    key, name = "trainer.callback", getattr(config.trainer.cfg, "callback", None)
    if not isinstance(config.trainer.cfg, StepConfig) or name is None:
        return None
    found = modules.find_named(name, key)
    try:
        inspect.signature(found).bind(None, None)
    except TypeError:
        raise ConfigError(key, name, "must take two arguments: the trainer and what the step brought") from None
    except ValueError:
        pass  # it doesn't say what it takes
    return found


def _leave_out_training(config: Config) -> None:
    """Take out what an evaluation never calls: it needn't even be there."""
    if isinstance(config.trainer.cfg, StepConfig):
        config.trainer.cfg.callback = None
    for checked in config.agents.values():
        for settings in (vars(checked.cfg), *getattr(checked.cfg, "overrides", {}).values()):
            if "reward_function" in settings:
                settings["reward_function"] = None


def make_backend(config: Config) -> Any:
    """Return the backend; raises ConfigError for a device that isn't there."""
    targets = {name: choice.target for name, choice in configuration.CHOICES["backend"].items()}
    return follow(targets[config.backend.name], config.plugins)(config.backend)


def make_env(config: Config, *, role: int = TRAINING_ENVIRONMENTS, render_mode: str | None = None) -> EnvWrapper:
    """Return the environment, its copies seeded from the run's seed in `role`."""
    env: Checked = config.env
    if render_mode is None and role == TRAINING_ENVIRONMENTS and not config.trainer.cfg.headless:
        check_display("trainer.headless", False)
        render_mode = "human"
    return follow(env.target, config.plugins)(env.cfg, seed=config.seed, role=role, render_mode=render_mode)


def make_evaluation_env(config: Config, *, filmed: bool) -> tuple[EnvWrapper, str]:
    """Return the environment for evaluations, and why it can't be drawn, if it is to be `filmed` and can't."""
    if not filmed:
        return make_env(config, role=EVALUATION_ENVIRONMENTS), ""
    env, why_not = drawn(config, lambda mode: make_env(config, role=EVALUATION_ENVIRONMENTS, render_mode=mode))
    env.is_filmed = not why_not
    return env, why_not


def drawn(config: Config, make: Callable[[str | None], Any]) -> tuple[Any, str]:
    """Return what `make` makes of a render mode: pictures, or none and why not, where the environment has none to give."""
    if not _is_gymnasium(config) or _asks(can_be_drawn, config):
        try:
            return make(PICTURES), ""
        except (ConfigError, EnvironmentFailure):
            pass  # where the reason is another one, it is told now
    return make(None), f"env.id={config.env.cfg.id} can't be drawn as pictures (render_mode={PICTURES})"


def check_video(config: Config, form: str) -> None:
    """Raise ConfigError where no video can come of it: a package is missing, or there are no evaluations."""
    check_installed(form, "evaluation.video")
    if not config.evaluation.interval:
        raise ConfigError("evaluation.video", config.evaluation.video, "there are no evaluations; set evaluation.interval too")


def without_display(config: Config) -> AbstractContextManager[str]:
    """Have the environment drawn without a display; yields why it can't be, or nothing."""
    return video.without_display(mujoco=_simulates_with_mujoco(config))


def _is_gymnasium(config: Config) -> bool:
    return config.env.target.startswith("rltrain.envs.gymnasium.")


def _asks(question: Callable[[str], Any], config: Config) -> Any:
    """Return the answer to a question about an id, nothing where there is none: why, is told when it is made."""
    try:
        return question(config.env.cfg.id)
    except Exception as error:  # of a module that is imported for it
        if comes_from_signal(error):
            raise
        return None


def _simulates_with_mujoco(config: Config) -> bool:
    spec = _asks(find_spec, config) if _is_gymnasium(config) else None
    return spec is not None and ("mujoco" in str(spec.entry_point) or (":" in config.env.cfg.id and "mujoco" in sys.modules))


def check_display(key: str, value: Any) -> None:
    """Raise ConfigError if there is no display to show an environment on."""
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in shown):
        raise ConfigError(key, value, "there is no display here (DISPLAY is not set)")


def make_agents(config: Config, env: EnvWrapper, backend: Any) -> list[Agent]:
    """Return the agents in the order of scopes, each with streams of its own."""
    agents = []
    for index, ((name, checked), copies) in enumerate(zip(config.agents.items(), configuration.scopes(config), strict=True)):
        kind = follow(checked.target, config.plugins)
        agent = make_agent(kind, checked, env, backend, name=name, num_envs=copies, seed=config.seed, index=index)
        agent.keeps_memory = config.checkpoints.memory
        agents.append(agent)
    return agents


def make_agent(
    kind: Any, checked: Checked, env: EnvWrapper, backend: Any, *, name: str, num_envs: int, seed: int | None, index: int
) -> Agent:
    """Return an agent of the algorithm `kind` for `num_envs` copies of an environment."""
    if env.members and not getattr(kind, "plays_teams", False):
        there = f"{env.name} has named agents ({', '.join(env.members)})"
        raise ConfigError(f"agents.{name}", kind.__name__, f"{there}, which a team plays; use ippo or mappo")
    algorithm = kind(
        env.observation_space,
        env.action_space,
        state_space=env.state_space,
        num_envs=num_envs,
        cfg=checked.cfg,
        seed=seed,
        index=index,
        backend=backend,
        key=checked.key,
    )
    return Agent(algorithm, name=name)


def make_trainer(config: Config, *, run: Run | None = None, training: bool = True, **env_arguments: Any) -> Trainer:
    """Return the trainer with environments and agents; closes what it made if a part fails."""
    form = video_format(config.evaluation.video) if training else None
    if form is not None:
        check_video(config, form)
    if not training:
        _leave_out_training(config)
    callback = find_callback(config)
    prepare(config.backend, devices=len(config.agents) if isinstance(config.trainer.cfg, ParallelConfig) else 1)
    env = make_env(config, **env_arguments)  # first: an error in its settings is told without importing torch or jax
    made, why_not_filmed = [env], ""
    try:
        backend = make_backend(config)
        agents = make_agents(config, env, backend)
        if training and config.evaluation.interval:
            assert config.seed is not None
            with generators.seeded(seed64(config.seed, PROCESS_GENERATORS, 1)):  # making it changes nothing for training
                evaluation_env, why_not_filmed = make_evaluation_env(config, filmed=form is not None)
                made.append(evaluation_env)
        cfg = config.trainer.cfg
        cfg.timesteps = configuration.timesteps(config)
        more: dict[str, Any] = {} if callback is None else {"callback": callback}
        trainer = follow(config.trainer.target, config.plugins)(
            env=env,
            agents=agents,
            agents_scope=config.agents_scope.sizes,
            cfg=cfg,
            evaluation_env=made[1] if len(made) > 1 else None,
            run=run,
            horizon=config.schedule.horizon,
            **more,
        )
        trainer.why_not_filmed = why_not_filmed
        return trainer
    except BaseException:
        for part in made:
            part.close()
        raise


def find_checkpoint(path: str, *, agent: str | None = None, key: str = "checkpoint") -> Path:
    """Return the directory of a checkpoint named as PATH, RUN, RUN/best, RUN/latest, latest or latest/best.

    Where each agent has a best of its own, RUN/best is that of `agent`, without one the newest of them.
    Raises ConfigError if nothing of that name is there, StorageError if it can't be looked for.
    """
    from rltrain.files import looking

    with looking(path):
        return _find_checkpoint(path, agent, key)


def _find_checkpoint(path: str, agent: str | None, key: str) -> Path:
    from rltrain.checkpoints import MANIFEST, CheckpointStore
    from rltrain.runs import holds_run

    given = Path("outputs/latest") if path == "latest" else Path(path)
    if (given / MANIFEST).exists():
        return given
    name = "latest"
    if re.fullmatch(r"latest|best(-[\w-]+)?", given.name) and not given.is_dir():
        given, name = given.parent, given.name
        given = given.parent if given.name == "checkpoints" else given
        given = Path("outputs/latest") if str(given) == "latest" and not given.is_dir() else given
    if not given.is_dir():
        where = " (no run was started under outputs/ here)" if path.startswith("latest") else ""
        raise ConfigError(
            key, path, f"no such run or checkpoint{where}; name a run's directory or a folder under its checkpoints/"
        )
    if not holds_run(given) and not given.name.isdigit():
        raise ConfigError(key, path, "holds no run: no config.yaml and no checkpoints/ in it")
    if given.name.isdigit() and given.parent.name == "checkpoints":
        return given  # half a checkpoint: reading it says what is missing
    store = CheckpointStore(given / "checkpoints")
    target = store.pointer(name)
    if target is None and name == "best":
        names = [f"best-{agent}"] if agent else store.bests()
        bests = [best for best in map(store.pointer, names) if best is not None]
        target = max(bests, key=lambda best: int(best.name), default=None)
    if target is None:
        if name.startswith("best"):
            there = ", ".join(pointer for pointer in ("best", *store.bests()) if store.pointer(pointer) is not None)
            wanted = f"best checkpoint of an agent {agent!r}" if agent else f"{name} checkpoint"
            remedy = f"it has {there}" if there else "set evaluation.interval when training, or use RUN/latest"
            raise ConfigError(key, path, f"this run has no {wanted}: {remedy}")
        raise ConfigError(key, path, "this run has no checkpoint yet")
    return target
