"""`rltrain train`: compose, check, assemble, train, summarise."""

import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain import __version__, assemble, checkpoints
from rltrain import config as configuration
from rltrain.agents.base import Agent
from rltrain.config import Config
from rltrain.errors import CheckpointError, ConfigError, EnvironmentFailure, RltrainError, StorageError
from rltrain.runs import EXIT_STATUS, Run, check_free, follow_links, holds_run, link_latest, locked, make_run_directory
from rltrain.seeding import draw_seed
from rltrain.tracking import print_out
from rltrain.trainers.base import Trainer


@dataclass
class Plan:
    """What a command asks for, checked: nothing has been created yet."""

    cfg: Any  # the DictConfig that is saved, unresolved
    config: Config
    directory: Path | None = None  # an existing run to go on with
    checkpoint: Path | None = None  # where to go on from; None: from the start
    skipped: tuple[str, ...] = ()  # newer checkpoints that don't verify


def train(overrides: Sequence[str]) -> int:
    """Train, and return the exit status."""
    plan = make_plan(overrides)
    status, _ = execute(plan)
    return status


def show_config(overrides: Sequence[str], *, resolved: bool) -> None:
    """Print the configuration that `overrides` make, secrets masked."""
    from omegaconf import OmegaConf

    plan = make_plan(overrides)
    cfg = plan.cfg
    if resolved:
        cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    print(configuration.to_yaml(cfg, mask=True), end="")


def make_plan(overrides: Sequence[str]) -> Plan:
    """Turn a command line into a checked plan."""
    overrides, special = _take(overrides, "resume", "init_from", "plugins")
    plugins = special.pop("plugins", None)
    configuration.load_plugins([name.strip() for name in (plugins or "").strip("[]").split(",") if name.strip()])
    if plugins is not None:
        overrides = [*overrides, f"plugins={plugins if plugins.startswith('[') else f'[{plugins}]'}"]
    resume = special.get("resume")
    if resume is not None and special.get("init_from") is not None:
        raise ConfigError("init_from", special["init_from"], "resume is given too; a resumed run has its own weights")
    if resume is None:
        cfg = configuration.compose(overrides)
        plan = finish_plan(cfg)
    elif resume == "auto":
        plan = plan_auto(configuration.compose(overrides))
    else:
        plan = _plan_resume(resume, overrides)
    if special.get("init_from") is not None:
        plan.cfg.init_from = special["init_from"]
        plan.config.init_from = special["init_from"]
    if plan.config.init_from:
        assemble.find_checkpoint(plan.config.init_from, key="init_from")
    return plan


def finish_plan(cfg: Any) -> Plan:
    """Check a composed configuration; a missing seed is drawn."""
    config = configuration.check(cfg)
    if config.seed is None:
        cfg.seed = config.seed = draw_seed()
    if config.run.dir is not None and holds_run(Path(config.run.dir)):
        check_free(Path(config.run.dir))
        raise ConfigError(
            "run.dir", config.run.dir, "holds a run already; add resume=auto to go on with it, or name another directory"
        )
    return Plan(cfg, config)


def _plan_resume(resume: str, overrides: Sequence[str]) -> Plan:
    run = Path("outputs/latest") if resume == "latest" else Path(resume)
    if run.name in ("latest", "checkpoints") and not (run / "config.yaml").exists():
        run = run.parent.parent if run.parent.name == "checkpoints" else run.parent
    if not (run / "config.yaml").exists():
        raise ConfigError("resume", resume, "holds no run: there is no config.yaml in it")
    run = follow_links(run)
    cfg = _saved_config(run)
    cfg = configuration.apply_overrides(cfg, overrides, allowed_groups=("trainer", "backend"))
    cfg.run.dir = str(run)
    config = configuration.check(cfg)
    store = checkpoints.CheckpointStore(run / "checkpoints")
    target = store.pointer("latest")
    if target is None or not target.exists():
        target, skipped = store.newest_good()
        if target is None:
            raise CheckpointError(
                f"resume={resume}: " + (skipped[0] if skipped else "the run has no checkpoint yet; start it anew")
            )
        return Plan(cfg, config, run, target, tuple(skipped))
    try:
        checkpoints.verify(target)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; run.dir={run} resume=auto goes on from the newest checkpoint that verifies") from None
    return Plan(cfg, config, run, target)


def plan_auto(cfg: Any) -> Plan:
    """Go on with the run in `run.dir`, from the newest checkpoint that verifies, or start it."""
    if cfg.run.dir is None:
        raise ConfigError("resume", "auto", "needs run.dir: the directory to go on in, or to start in")
    run = follow_links(Path(cfg.run.dir))
    if not (run / "config.yaml").exists():
        config = configuration.check(cfg)
        if config.seed is None:
            cfg.seed = config.seed = draw_seed()
        return Plan(cfg, config)
    saved = _saved_config(run)
    if cfg.seed is None:
        cfg.seed = saved.seed
    for key in ("seed", "env", "agents", "agents_scope"):
        changed = configuration.first_difference(cfg[key], saved.get(key), key)
        if changed is not None:
            name, wanted, there = changed
            raise ConfigError(name, wanted, f"{run}/config.yaml has {there}; repeat the run's own, or name another run.dir")
    target, skipped = checkpoints.CheckpointStore(run / "checkpoints").newest_good()
    return Plan(cfg, configuration.check(cfg), run, target, tuple(skipped))


def _saved_config(run: Path) -> Any:
    try:
        text = (run / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{run / 'config.yaml'}: can't be read ({error})") from None
    cfg = configuration.from_yaml(text, str(run / "config.yaml"), resolvers=("oc.env",))
    configuration.load_plugins(list(cfg.get("plugins") or []))
    return cfg


def execute(plan: Plan) -> tuple[int, float | None]:
    """Carry a plan out; return the exit status and the objective of a sweep."""
    config = plan.config
    trainer = assemble.make_trainer(config)
    try:
        if config.dry_run:
            print_plan(trainer, config)
            return 0, None
        if config.init_from:
            load_policies(trainer.agents, assemble.find_checkpoint(config.init_from, key="init_from"))
        parts = _read_parts(plan.checkpoint, trainer.agents) if plan.checkpoint else None
        assert config.seed is not None
        directory = plan.directory or make_run_directory(config.run.dir, config.env.cfg.id, list(config.agents), config.seed)
        with locked(directory):
            if plan.directory is None and holds_run(directory):
                raise StorageError(f"run.dir={directory}: another process just started a run there; name another directory")
            return _execute_locked(plan, trainer, directory, parts)
    finally:
        trainer.close()


def _execute_locked(plan: Plan, trainer: Trainer, directory: Path, parts: dict[str, Any] | None) -> tuple[int, float | None]:
    config = plan.config
    plan.cfg.run.dir = str(directory)
    text = configuration.to_yaml(plan.cfg)
    with suppress(FileNotFoundError):
        (directory / "summary.json").unlink()
    try:
        checkpoints.replace_text(directory / "config.yaml", text)
    except OSError as error:
        raise checkpoints.storage_error(f"run.dir={directory}", error) from None
    link_latest(directory)
    versions = {"rltrain": __version__, "python": sys.version.split()[0], **trainer.agents[0].backend.versions()}
    versions |= trainer.env.info().pop("versions", {})
    run = Run(
        directory=directory, agents=[agent.name for agent in trainer.agents], tracking=config.tracking,
        checkpoints=config.checkpoints, evaluation=config.evaluation, files={"config.yaml": text.encode()},
        manifest={"rltrain": __version__, "backend": config.backend.name, "versions": versions},
    )  # fmt: skip
    trainer.run = run
    started = time.time()
    with ExitStack() as stack:
        stack.callback(run.close)
        _announce(plan, trainer, directory)
        if run.store is not None:
            run.store.clear_temporaries()
        if parts is not None:
            trainer.restore(parts, keep_horizon=config.schedule.horizon is None)
            if trainer.horizon != trainer.timesteps and config.schedule.horizon is None:
                run.say(
                    f"schedules keep their horizon of {trainer.horizon:,} timesteps (schedule.horizon): "
                    "this is not equal to one run of the new length"
                )
        elif plan.directory is not None:
            trainer.timestep = 0
            trainer._resumed = True  # what a run that left no checkpoint wrote is cut off
        reason, failure = "finished", None
        try:
            trainer.train()
        except (KeyboardInterrupt, SystemExit):
            reason = "interrupted"
            raise
        except BaseException as error:
            reason, failure = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", error
            if isinstance(error, EnvironmentFailure):
                with suppress(Exception):
                    trainer.save_once(with_environment=False)
            raise
        finally:
            if run.stop_signal is not None and failure is None and reason == "finished":
                reason = f"stopped by {run.stop_signal.name}"
            if failure is not None:
                with suppress(OSError):
                    (directory / "error.log").write_text("".join(traceback.format_exception(failure)), encoding="utf-8")
            summary = summarize(trainer, reason, versions, started)
            with nullcontext() if failure is None and reason != "interrupted" else suppress(RltrainError):
                run.write_summary(summary)
    print_summary(trainer, summary, directory)
    if run.stop_signal is not None:
        run.pass_signal_on()
        return EXIT_STATUS[run.stop_signal], None
    return 0, objective(trainer, summary)


def _announce(plan: Plan, trainer: Trainer, directory: Path) -> None:
    config = plan.config
    total, copies = trainer.timesteps, trainer.env.num_envs
    say = trainer.run.say
    for line in plan.skipped:
        say(f"skipped: {line}")
    lines = [
        f"run: {directory}",
        f"seed: {config.seed}",
        str(trainer),
        f"{total:,} timesteps x {copies} copies = {total * copies:,} env steps",
    ]
    if config.total_env_steps and config.total_env_steps % copies:
        lines.append(f"total_env_steps={config.total_env_steps:,} is rounded up to whole timesteps")
    if plan.checkpoint is not None:
        lines.append(f"going on from {plan.checkpoint}")
    elif plan.directory is not None:
        lines.append("no checkpoint verifies here: starting from the beginning")
    trainer.run.open_log()
    for line in lines:
        say(line)


def _read_parts(path: Path, agents: Sequence[Agent]) -> dict[str, Any]:
    """Return the parts that a resume needs; CheckpointError names those that are missing."""
    manifest = checkpoints.verify(path)
    names = ["trainer", *(f"agents/{agent.name}/{part}" for agent in agents for part in ("policy", "training"))]
    missing = [name for name in names if f"{name}.safetensors" not in manifest["files"]]
    if missing:
        raise CheckpointError(
            f"{path}: can't be resumed, it lacks {', '.join(missing)}; it has agents {', '.join(manifest.get('agents', {}))}"
        )
    _check_agents(path, manifest, agents)
    return {name: checkpoints.read_part(path, name, manifest) for name in names}


def load_policies(agents: Sequence[Agent], path: Path) -> None:
    """Load the weights of every agent from a checkpoint; nothing else.

    Raises CheckpointError if the checkpoint is of other agents or other networks.
    """
    manifest = checkpoints.verify(path)
    _check_agents(path, manifest, agents)
    for agent in agents:
        policy = checkpoints.read_part(path, f"agents/{agent.name}/policy", manifest)
        try:
            agent.restore({"policy": policy})
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path}: agents.{agent.name}: written by another architecture: {error}") from None


def _check_agents(path: Path, manifest: dict[str, Any], agents: Sequence[Agent]) -> None:
    there = manifest.get("agents", {})
    for agent in agents:
        name = type(agent.algorithm).__name__
        if agent.name not in there:
            raise CheckpointError(f"{path}: has no agent {agent.name!r}; it has {', '.join(there)}")
        if there[agent.name] != name:
            raise CheckpointError(f"{path}: agent {agent.name!r} was trained by {there[agent.name]}, not by {name}")


# -- what is told at the end ---------------------------------------------------------------------------------------------


def summarize(trainer: Trainer, reason: str, versions: dict[str, str], started: float) -> dict[str, Any]:
    """Return what `summary.json` holds."""
    agents = {}
    for agent in trainer.agents:
        policy = agent.snapshot()["policy"]
        agents[agent.name] = {
            **agent.statistics.summary(),
            "updates": agent.updates,
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
        "compile_seconds": 0.0,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "wall_seconds": time.time() - started,
        "best": {"score": trainer.best.score, "timestep": trainer.best.timestep},
        "environment": trainer.env.info(),
        "versions": versions,
    }


def objective(trainer: Trainer, summary: dict[str, Any]) -> float | None:
    """Return what a sweep compares: the best evaluation, else the mean return of the last 100 episodes, over agents."""
    if trainer.best.score is not None:
        return trainer.best.score
    returns = [agent["episode_return_mean"] for agent in summary["agents"].values()]
    return None if None in returns else sum(returns) / len(returns)


def print_summary(trainer: Trainer, summary: dict[str, Any], directory: Path) -> None:
    """Print the closing table."""
    from rich.table import Table

    table = Table("agent", "env steps", "episodes", "return (last 100)", "length")
    for name, agent in summary["agents"].items():
        mean, length = agent["episode_return_mean"], agent["episode_length_mean"]
        cells = ("-" if mean is None else f"{mean:.1f}", "-" if length is None else f"{length:.1f}")
        table.add_row(name, f"{agent['env_steps']:,}", f"{agent['episodes']:,}", *cells)
    best = summary["best"]
    lines = [
        f"{summary['exit_reason']} after {summary['training_seconds']:.1f} s, {summary['env_steps_per_second']:,.0f} env steps/s"
    ]
    if best["score"] is not None:
        lines.append(f"best evaluation: {best['score']:.1f} at timestep {best['timestep']:,}")
    lines += [f"saved in {directory}", f"  rltrain eval {directory}", f"  tensorboard --logdir {directory}"]
    print_out(table, *lines)


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


def _take(overrides: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Split off overrides whose values are paths or names, which Hydra's grammar would want quoted."""
    rest, taken = [], {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in keys and value not in ("null", "[]"):
            if not value:
                raise ConfigError(key, value, "is empty; name one")
            taken[key] = value.strip("'\"")
        elif key not in keys:
            rest.append(override)
    return rest, taken
