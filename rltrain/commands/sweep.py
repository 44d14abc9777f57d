"""`rltrain train -m`: every job is composed and checked first, then Hydra's launcher runs them."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from rltrain import config as configuration
from rltrain import modules
from rltrain.commands import history, sweep_results
from rltrain.commands.jobs import check_jobs
from rltrain.commands.plans import load_plugins, plan_auto, plugins_override, refuse_hydras
from rltrain.commands.train import execute
from rltrain.confidential import conceal
from rltrain.errors import ConfigError, RltrainError, RunError, said
from rltrain.processes import start_as_usual, without_current_directory
from rltrain.runs import EXIT_STATUS, check_writable
from rltrain.screen import printable, write_error
from rltrain.signals import exits_as_errors

SWEEP_DIR = "hydra.sweep.dir"
HYDRAS_ERRORS = "HYDRA_FULL_ERROR"
HERE = ("basic", "joblib")  # launchers whose jobs write to this command's screen


class JobFailed(Exception):
    """A job of a sweep ended with a status other than 0: what is left to say of it at the end."""


class LaunchFailed(RunError):
    """A launcher failed, whose traceback is of no use."""

    shows_cause = False


def sweep(overrides: Sequence[str]) -> int:
    """Run a sweep; return 0 if every job succeeded, else 1, or the status of the signal that ended it."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("resume", "run.dir", "dry_run") and value not in ("null", "false"):
            raise ConfigError(key, value, "is for one run; in a sweep every job gets a directory of its own (hydra.sweep.dir)")
    refuse_hydras(overrides, sweep=True)
    given = dict(override.partition("=")[::2] for override in overrides)
    overrides, plugins = load_plugins(overrides)
    overrides = [*overrides, *plugins_override(plugins)]
    check_jobs(overrides)
    check_writable(given.get(SWEEP_DIR, "outputs/multirun").partition("${")[0] or ".", SWEEP_DIR)
    overrides = configuration.translate(overrides)
    if sweep_results.FIXED not in given:
        overrides.append(sweep_results.fixed_keys(overrides))
    try:
        status = _launch([*configuration.search_path(), *overrides], given.get("hydra/launcher", "basic"))
    except LaunchFailed:
        sweep_results.tell_sweep()
        raise
    sweep_results.tell_sweep()
    return status


def job(cfg: Any) -> float | None:
    """Run one job of a sweep in the directory that Hydra gave it; importable, so that every launcher can send it.

    Returns the objective: the best evaluation, or the mean return of the last 100 episodes.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    start_as_usual()
    hydra = HydraConfig.get()
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    with open_dict(cfg):
        cfg.pop("hydra", None)
        cfg.run.dir = str(hydra.runtime.output_dir)
    modules.begin_job(list(hydra.overrides.task))
    configuration.load_plugins(list(cfg.plugins or []))
    sweep_results.note_job(hydra)
    try:
        with exits_as_errors():
            plan = plan_auto(cfg)  # a cluster requeues a job into the directory it had
            typed = [*hydra.overrides.task, f"run.dir={cfg.run.dir}", "resume=auto"]  # what does the same as this job
            plan.command = history.command_line(["train", *typed])
            status, objective = execute(plan)
    except Exception as error:
        raise _failure(error) from None
    launcher = hydra.runtime.choices["hydra/launcher"]
    if status in EXIT_STATUS.values() and launcher == "basic":
        raise SystemExit(status)  # the jobs run in this process: the signal was for all of them
    if status:
        raise JobFailed(f"job {hydra.job.num} ended with status {status}")
    return objective


def _failure(error: Exception) -> JobFailed:
    """Say on this job's screen what failed, as the command line says it, and return what is left to say at the end."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    if isinstance(error, RltrainError):
        first = str(error)
        cause = error.__cause__ if error.exit_status == 1 and len(first.splitlines()) == 1 else None
    else:
        first, cause = "".join(f"{note}: " for note in getattr(error, "__notes__", [])[:1]) + said(error), error
    text = printable(conceal(f"job {hydra.job.num}: error: {first}"))
    left = printable(conceal(f"job {hydra.job.num}: {(first.splitlines() or [''])[0]}"))
    if cause is not None:
        text += "\n" + printable(conceal("".join(traceback.format_exception(cause)).rstrip()))
    sweep_results.note_job(hydra, left.partition(": ")[2])
    write_error(text)  # now, not after the last job
    return JobFailed(left if hydra.runtime.choices["hydra/launcher"] in HERE else text)


def _launch(overrides: Sequence[str], launcher: str) -> int:
    """Hand over to Hydra, whose command-line entry reads sys.argv; a failed job doesn't stop the others."""
    import hydra

    configuration.store_schemas()
    argv, full = sys.argv, os.environ.get(HYDRAS_ERRORS)
    sys.argv, os.environ[HYDRAS_ERRORS] = ["rltrain", "--multirun", *overrides], "1"  # it raises errors, and tells none itself
    try:
        with without_current_directory():
            hydra.main(version_base="1.3", config_path=str(configuration.conf_directory()), config_name="config")(job)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except JobFailed as failed:
        write_error(f"error: {failed}")
        return 1
    except Exception as error:
        what = " ".join(printable(conceal(said(error))).split())
        remedy = f"see hydra.launcher.*, or leave out hydra/launcher={launcher}: the jobs then run here, one after the other"
        what = what if len(what) <= 300 else what[:297] + "..."
        raise LaunchFailed(f"hydra/launcher={launcher}: could not run the jobs ({what}); {remedy}") from error
    finally:
        sys.argv = argv
        if full is None:
            del os.environ[HYDRAS_ERRORS]
        else:
            os.environ[HYDRAS_ERRORS] = full
    return 0
