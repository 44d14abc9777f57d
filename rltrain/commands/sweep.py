"""`rltrain train -m`: every job is composed and checked first, then Hydra's launcher runs them."""

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from hydra.errors import CompactHydraException

from rltrain import assemble, modules
from rltrain import config as configuration
from rltrain.commands import history
from rltrain.commands.plans import load_plugins, plan_auto, plugins_override
from rltrain.commands.train import execute
from rltrain.confidential import conceal
from rltrain.errors import ConfigError, RltrainError
from rltrain.processes import start_as_usual, without_current_directory
from rltrain.runs import EXIT_STATUS, check_writable
from rltrain.screen import printable
from rltrain.signals import exits_as_errors

SWEEP_DIR = "hydra.sweep.dir"


class JobFailed(CompactHydraException):
    """A job of a sweep ended with a status other than 0; Hydra shows what it says without a traceback."""


def sweep(overrides: Sequence[str]) -> int:
    """Run a sweep; return 0 if every job succeeded, else 1, or the status of the signal that ended it."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("resume", "run.dir", "dry_run") and value not in ("null", "false"):
            raise ConfigError(key, value, "is for one run; in a sweep every job gets a directory of its own (hydra.sweep.dir)")
    given = dict(override.partition("=")[::2] for override in overrides)
    overrides, plugins = load_plugins(overrides)
    overrides = [*overrides, *plugins_override(plugins)]
    ours, hydras = _jobs(overrides)
    for job in ours:
        config = configuration.check(configuration.compose([*job, *hydras]))
        assemble.find_callback(config)
        if config.init_from:
            assemble.find_checkpoint(config.init_from, key="init_from")
    check_writable(given.get(SWEEP_DIR, "outputs/multirun").partition("${")[0] or ".", SWEEP_DIR)
    return _launch([*configuration.search_path(), *configuration.translate(overrides)])


def _jobs(overrides: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return each job's overrides, none for a sweeper that chooses as it goes, and Hydra's own."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    parsed = configuration.translating_errors(lambda: parser.parse_overrides(list(overrides)), overrides)
    hydras = [override for override in parsed if override.key_or_group.startswith(("hydra.", "hydra/"))]
    ours = [override for override in parsed if override not in hydras]
    chooses = any(override.key_or_group == "hydra/sweeper" for override in hydras)
    jobs = [] if chooses else BasicSweeper.split_arguments(ours, None)[0]
    return jobs, [str(override.input_line) for override in hydras if not override.is_sweep_override()]


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
    try:
        with exits_as_errors():
            plan = plan_auto(cfg)  # a cluster requeues a job into the directory it had
            typed = [*hydra.overrides.task, f"run.dir={cfg.run.dir}", "resume=auto"]  # what does the same as this job
            plan.command = history.command_line(["train", *typed])
            status, objective = execute(plan)
    except RltrainError as error:
        if error.exit_status == 1:
            _hide(error)
            raise  # with its traceback
        text = printable(conceal(f"job {hydra.job.num}: error: {error}"))
        print(text, file=sys.stderr, flush=True)  # now, not after the last job
        raise JobFailed(text) from None
    except Exception as error:
        _hide(error)
        raise
    if status in EXIT_STATUS.values() and hydra.runtime.choices["hydra/launcher"] == "basic":
        raise SystemExit(status)  # the jobs run in this process: the signal was for all of them
    if status:
        raise JobFailed(f"job {hydra.job.num} ended with status {status}")
    return objective


def _hide(error: Exception) -> None:
    """Raise an exception that isn't to be shown as it is as another one, which is: launchers keep and show what they get."""
    trace = "".join(traceback.format_exception(error))
    shown = printable(conceal(trace))
    if shown != trace:
        raise JobFailed(shown.rstrip()) from None


def _launch(overrides: Sequence[str]) -> int:
    """Hand over to Hydra, whose command-line entry reads sys.argv; a failed job doesn't stop the others."""
    import hydra

    configuration.store_schemas()
    argv = sys.argv
    sys.argv = ["rltrain", "--multirun", *overrides]
    try:
        with without_current_directory():
            hydra.main(version_base="1.3", config_path=str(configuration.conf_directory()), config_name="config")(job)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = argv
    return 0
