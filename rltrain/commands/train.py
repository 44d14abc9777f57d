"""`rltrain train`: compose, check, assemble, train, summarise."""

import gc
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

from rltrain import __version__, assemble, checkpoints, generators
from rltrain import config as configuration
from rltrain.agents.base import Agent
from rltrain.commands import history
from rltrain.commands.announce import announce, find_presets, say_horizon, tell_finished
from rltrain.commands.plans import Plan, make_plan
from rltrain.commands.reading import check_agents, check_finite
from rltrain.commands.summary import objective, print_plan, print_summary, read_finished, summarize
from rltrain.commands.transfer import begin_from
from rltrain.confidential import conceal
from rltrain.config import Config
from rltrain.errors import CheckpointError, ConfigError, EnvironmentFailure, StorageError
from rltrain.generators import Watch
from rltrain.memories.replay.mapping import find_room
from rltrain.runs import EXIT_STATUS, Run, holds_run, link_latest, locked, make_run_directory
from rltrain.screen import printable, write_out
from rltrain.seeding import PROCESS_GENERATORS, seed64
from rltrain.signals import comes_from_signal, exits_as_errors
from rltrain.trainers.base import Trainer
from rltrain.trainers.sharing import settings

ERROR_LOG = "error.log"


def train(overrides: Sequence[str]) -> int:
    """Train, and return the exit status."""
    plan = make_plan(overrides)
    plan.command = history.command_line(["train", *overrides])
    plan.presets = find_presets(plan.config, overrides)
    status, _ = execute(plan)
    return status


def show_config(overrides: Sequence[str], *, resolved: bool) -> None:
    """Print the configuration that `overrides` make, secrets masked."""
    from omegaconf import OmegaConf

    plan = make_plan(overrides)
    cfg = plan.cfg
    if resolved:
        cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    write_out(printable(configuration.to_yaml(cfg, mask=True)))


def execute(plan: Plan) -> tuple[int, float | None]:
    """Carry a plan out; return the exit status and the objective of a sweep."""
    assert plan.config.seed is not None
    stream = seed64(plan.config.seed, PROCESS_GENERATORS)
    is_filmed = plan.config.evaluation.video != "false" and plan.config.trainer.cfg.headless
    with assemble.without_display(plan.config) if is_filmed else nullcontext("") as why_not, generators.seeded(stream):
        return _execute_seeded(plan, Watch(owned=True, stream=stream), why_not)


def _execute_seeded(plan: Plan, watch: Watch, why_not_filmed: str) -> tuple[int, float | None]:
    config = plan.config
    trainer = assemble.make_trainer(config)
    trainer.generators, trainer.why_not_filmed = watch, trainer.why_not_filmed or why_not_filmed
    try:
        check_memories(trainer)
        if config.dry_run:
            print_plan(trainer, config)
            return 0, None
        if config.init_from and plan.checkpoint is None:
            plan.taken = begin_from(config.init_from, trainer.agents, partial=config.init_from_partial)
        parts = read_parts(plan.checkpoint, trainer.agents) if plan.checkpoint else None
        assert config.seed is not None
        directory = plan.directory or make_run_directory(config.run.dir, config.env.cfg.id, list(config.agents), config.seed)
        with locked(directory):
            if plan.directory is None and holds_run(directory):
                raise StorageError(f"run.dir={directory}: another process just started a run there; name another directory")
            return _execute_locked(plan, trainer, directory, parts)
    finally:
        trainer.close()


def check_memories(trainer: Trainer) -> None:
    """Raise ConfigError for a replay memory on the host that there is no room for."""
    for agent in trainer.agents:
        cfg = settings(agent)
        on_device = hasattr(trainer.env, "pure") and not getattr(agent.algorithm, "why_not_lent", "")
        if hasattr(cfg, "memory_mapped") and not on_device:
            total = agent.algorithm.describe()["memory_bytes"]
            find_room(cfg.memory_size, total, cfg.memory_mapped, cfg.memory_directory, f"agents.{agent.name}")


def _execute_locked(plan: Plan, trainer: Trainer, directory: Path, parts: dict[str, Any] | None) -> tuple[int, float | None]:
    done = parts is not None and _is_done(trainer, parts["trainer"])
    before = read_finished(directory) if done else None
    if before is not None and plan.checkpoint is not None and plan.checkpoint.name.isdigit():  # not aside, to be put back
        tell_finished(trainer, directory, trainer.timesteps)
        return 0, objective(before)
    run = _open_run(plan, trainer, directory, parts)
    started = time.time()
    with ExitStack() as stack:
        stack.enter_context(run.signals())  # until all is written: a signal during the summary must not lose it
        stack.callback(run.close)
        announce(plan, trainer, directory)
        gc.freeze()  # libraries' objects stay: to look through them again and again takes 2 to 5 % of a quick loop
        stack.callback(gc.unfreeze)
        reason, failure = "finished", None
        try:
            if not done:  # else it was killed before its summary
                trainer.train_to_end()
        except BaseException as error:
            if comes_from_signal(error):
                reason = "interrupted"
                raise
            reason, failure = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", error
            if isinstance(error, EnvironmentFailure):
                with suppress(Exception), exits_as_errors():
                    trainer.save_once(with_environment=False)
            raise
        finally:
            if run.stop_signal is not None and reason == "finished":
                reason = f"stopped by {run.stop_signal.name}"
            if failure is not None and not run.lost():
                with suppress(OSError):
                    trace = printable(conceal("".join(traceback.format_exception(failure))))
                    (directory / ERROR_LOG).write_text(trace, encoding="utf-8")
            with nullcontext() if failure is None and reason != "interrupted" else suppress(Exception):
                summary = summarize(trainer, reason, run.manifest["versions"], started)
                summary["history"] = history.read_starts(directory)
                run.write_summary(summary)
        print_summary(trainer, summary, directory) if before is None else tell_finished(trainer, directory, trainer.timesteps)
    if run.stop_signal is not None:
        run.pass_signal_on()
        return EXIT_STATUS[run.stop_signal], None
    return 0, objective(summary)


def _is_done(trainer: Trainer, kept: Mapping[str, Any]) -> bool:
    """Tell whether what was kept of a trainer is its end."""
    return int(kept["timestep"]) == trainer.timesteps and not kept["pending"]


def _open_run(plan: Plan, trainer: Trainer, directory: Path, parts: dict[str, Any] | None) -> Run:
    """Restore the trainer where there is something to restore, then make the directory this run's."""
    config = plan.config
    configuration.set_value(plan.cfg, "run.dir", conceal(str(directory)))
    text = configuration.to_yaml(plan.cfg)
    versions = {"rltrain": __version__, "python": sys.version.split()[0], **trainer.agents[0].backend.versions()}
    versions |= trainer.env.info().pop("versions", {})
    run = Run(
        directory=directory,
        agents=[agent.name for agent in trainer.agents],
        tracking=config.tracking,
        checkpoints=config.checkpoints,
        evaluation=config.evaluation,
        files={"config.yaml": text.encode()},
        needed=("config.yaml",),
        manifest={"rltrain": __version__, "backend": config.backend.name, "versions": versions},
    )
    trainer.run = run
    try:
        run.open_log()
        if parts is not None:  # before anything is replaced: where it doesn't fit, the run stays as it is
            _restore(trainer, parts, config)
            if not plan.skipped:  # `latest` is there: written again, it would be gone for the moment between two renames
                trainer._saved_at = trainer.timestep
        elif plan.directory is not None:
            trainer._resumed = True  # what a run that left no checkpoint wrote is cut off
        history.write_start(
            directory,
            text,
            timestep=trainer.timestep,
            checkpoint=plan.checkpoint,
            command=plan.command,
            versions=versions,
            changes=plan.changes,
        )
        for name in ("summary.json", ERROR_LOG):
            (directory / name).unlink(missing_ok=True)
        checkpoints.replace_text(directory / "config.yaml", text)
        if run.store is not None:
            run.store.clear_temporaries()
            if parts is not None and plan.checkpoint is not None:
                run.store.mend_latest(plan.checkpoint)
            run.mend_bests({name: best.timestep for name, best in trainer.best.items()})
    except OSError as error:
        raise checkpoints.storage_error(f"run.dir={directory}", error) from None
    link_latest(directory)
    return run


def _restore(trainer: Trainer, parts: dict[str, Any], config: Config) -> None:
    trainer.restore(parts, keep_horizon=config.schedule.horizon is None)
    if trainer.timestep > trainer.timesteps:
        there = f"the run is at timestep {trainer.timestep:,}, {trainer.timestep * trainer.env.num_envs:,} env steps"
        total = config.total_env_steps
        key, value = ("total_env_steps", total) if total else ("trainer.timesteps", trainer.timesteps)
        raise ConfigError(key, value, f"{there}, already; give more, or leave it out")
    if config.schedule.horizon is None:
        say_horizon(trainer)


def read_parts(path: Path, agents: Sequence[Agent]) -> dict[str, Any]:
    """Return the parts that a resume needs; CheckpointError names those that are missing."""
    names = ["trainer", *(f"agents/{agent.name}/{part}" for agent in agents for part in ("policy", "training"))]
    manifest = checkpoints.verify(path, besides={f"{name}.safetensors" for name in names})
    missing = [name for name in names if f"{name}.safetensors" not in manifest["files"]]
    if missing:
        raise CheckpointError(
            f"{path}: can't be resumed, it lacks {', '.join(missing)}; it has agents {', '.join(manifest.get('agents', {}))}"
        )
    check_agents(path, manifest, agents)
    parts = {name: checkpoints.read_part(path, name, manifest) for name in names}
    for agent in agents:
        check_finite(path, agent.name, parts[f"agents/{agent.name}/policy"])
    return parts
