"""From a command line to a plan: composed, checked, found; nothing is created yet."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain import assemble, checkpoints, files
from rltrain import config as configuration
from rltrain.commands import history
from rltrain.config import Config
from rltrain.errors import CheckpointError, ConfigError, shown
from rltrain.files import looking
from rltrain.runs import check_free, follow_links, holds_run
from rltrain.seeding import draw_seed


@dataclass
class Plan:
    """What a command asks for, checked: nothing has been created yet."""

    cfg: Any  # the DictConfig that is saved, unresolved
    config: Config
    directory: Path | None = None  # an existing run to go on with
    checkpoint: Path | None = None  # where to go on from; None: from the start
    skipped: tuple[str, ...] = ()  # newer checkpoints that don't verify
    before: history.Settings | None = None  # of the run's last start
    command: str = ""  # that was typed
    presets: Sequence[str] = ()  # for the environment that was typed without one
    taken: Sequence[str] = ()  # what was taken from `init_from`, in words

    def __post_init__(self) -> None:
        """Find out what was changed since the run's last start."""
        now = history.read_settings(self.config, self.cfg)
        self.changes = {} if self.before is None else history.compare(self.before, now)


def make_plan(overrides: Sequence[str]) -> Plan:
    """Turn a command line into a checked plan."""
    refuse_hydras(overrides)
    overrides, plugins = load_plugins(overrides)
    overrides, special = take(overrides, "resume", "init_from", "run.dir")
    resume, directory, init_from = special.get("resume"), special.get("run.dir"), special.get("init_from")
    if resume not in (None, "auto"):
        for key in ("init_from", "run.dir"):
            if special.get(key) is not None:
                raise ConfigError(key, special[key], "resume is given too; a resumed run has its own weights and directory")
        with looking(resume):
            return _plan_resume(str(resume), overrides, plugins)
    cfg = configuration.compose([*overrides, *plugins_override(plugins)])
    cfg.run.dir = directory or cfg.run.dir
    cfg.init_from = init_from or cfg.init_from
    with looking(cfg.run.dir or ""):
        plan = plan_auto(cfg) if resume == "auto" else finish_plan(cfg)
    if plan.config.init_from:
        assemble.find_checkpoint(plan.config.init_from, key="init_from")
    return plan


def refuse_hydras(overrides: Sequence[str], *, sweep: bool = False) -> None:
    """Raise ConfigError for a setting of Hydra's own that would do nothing in a single run, or in a sweep."""
    instead = {
        "hydra.run": "hydra.sweep.dir is the directory of a sweep's jobs" if sweep else "run.dir is a run's directory",
        "hydra.sweep": "run.dir is a run's directory; hydra.sweep.dir is for a sweep: add -m",
        "hydra.output_subdir": "the configuration is always in config.yaml of the run's directory",
        "hydra.job": "a run stays in the directory that it is started in; run.dir is where it writes",
    }
    idle = r"hydra\.(run|mode|overrides|runtime|help|hydra_help)\b" if sweep else r"hydra[./](?!searchpath\b)"
    for override in overrides:
        key, _, value = override.partition("=")
        if re.match(idle, key.lstrip("+~")):
            otherwise = "leave it out" if sweep else "it is for sweeps: add -m"
            remedy = instead.get(".".join(key.lstrip("+~").split(".")[:2]), otherwise)
            raise ConfigError(key, value, f"has no effect in a {'sweep' if sweep else 'single run'}; {remedy}")


def load_plugins(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Import the packages that `plugins=` names; return the other overrides, and those names."""
    rest, special = take(overrides, "plugins")
    plugins = [name.strip() for name in special.get("plugins", "").strip("[]").split(",") if name.strip()]
    configuration.load_plugins(plugins)
    return rest, plugins


def plugins_override(plugins: Sequence[str]) -> list[str]:
    """Return the override that names plugins, as Hydra wants it."""
    return [f"plugins=[{','.join(plugins)}]"] if plugins else []


def add_plugins(cfg: Any, plugins: Sequence[str]) -> None:
    """Add plugins to those of a saved configuration."""
    there = configuration.plugins_of(cfg)
    configuration.set_value(cfg, "plugins", [*there, *(name for name in plugins if name not in there)])


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


def _plan_resume(resume: str, overrides: Sequence[str], plugins: Sequence[str]) -> Plan:
    run = Path("outputs/latest") if resume == "latest" else Path(resume)
    if run.name in ("latest", "checkpoints") and not (run / "config.yaml").exists():
        run = run.parent.parent if run.parent.name == "checkpoints" else run.parent
    if (run / checkpoints.MANIFEST).exists():
        raise ConfigError("resume", resume, "is a checkpoint; name its run, which goes on from the latest one")
    if not (run / "config.yaml").exists():
        where = " (no run was started under outputs/ here)" if resume == "latest" else ""
        why = "holds no run: there is no config.yaml in it" if run.is_dir() else f"no such run{where}; name a run's directory"
        raise ConfigError("resume", resume, why)
    run = follow_links(run)
    check_free(run)
    cfg = _saved_config(run)
    before = configuration.check(cfg)
    settings = history.read_settings(before, cfg)
    add_plugins(cfg, plugins)
    if before.seed is None:
        raise ConfigError("seed", None, f"{run}/config.yaml has none, so the run can't be gone on with")
    cfg = configuration.apply_overrides(cfg, overrides, allowed_groups=("trainer", "backend"))
    config = configuration.check(cfg)
    configuration.check_resumable(before, config)
    store = checkpoints.CheckpointStore(run / "checkpoints")
    target = store.pointer("latest")
    if target is None or not target.exists():
        missing = [] if target is None else [f"{target}: it is the latest one, and isn't there"]
        target, skipped = _newest_good(store)
        if target is None:
            why = missing[0] if missing else "the run has no checkpoint yet"
            raise CheckpointError(f"resume={resume}: {why}; start it anew in another directory")
        return Plan(cfg, config, run, target, (*missing, *skipped), settings)
    try:
        checkpoints.verify(target)
    except CheckpointError as error:
        _newest_good(store)
        remedy = f"the command that started it, with run.dir={run} resume=auto, goes on from the newest one that verifies"
        raise CheckpointError(f"{error}; {remedy}") from None
    return Plan(cfg, config, run, target, before=settings)


def _newest_good(store: checkpoints.CheckpointStore) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that verifies, and why newer ones were skipped; None if there is no checkpoint.

    Raises CheckpointError if there are some and none verifies: what they and the run's rows say is not ours to write over.
    """
    try:
        target, skipped = store.newest_good()
    except OSError as error:
        raise checkpoints.storage_error(f"{error.filename or store.directory}: can't be read", error) from None
    if target is None and skipped:
        count = "it is the only checkpoint" if len(skipped) == 1 else f"none of the {len(skipped)} checkpoints verifies"
        remedy = "nothing was changed: put a good copy back, or start anew in another directory"
        raise CheckpointError(f"{skipped[0]}; {count}; {remedy}")
    return target, skipped


def plan_auto(cfg: Any) -> Plan:
    """Go on with the run in `run.dir`, from the newest checkpoint that verifies; start it if it has left none yet.

    Raises CheckpointError if it left some and none verifies.
    """
    if cfg.run.dir is None:
        raise ConfigError("resume", "auto", "needs run.dir: the directory to go on in, or to start in")
    run = follow_links(Path(cfg.run.dir))
    if holds_run(run) and not (run / "config.yaml").exists():
        raise CheckpointError(f"{run}: has checkpoints, but its config.yaml is missing; a checkpoint holds a copy of it")
    if not (run / "config.yaml").exists():
        config = configuration.check(cfg)
        if config.seed is None:
            cfg.seed = config.seed = draw_seed()
        return Plan(cfg, config)
    check_free(run)
    saved = _saved_config(run)
    if cfg.seed is None:
        cfg.seed = saved.seed
    config = configuration.check(cfg)
    try:
        before = history.read_settings(configuration.check(saved), saved)
    except ConfigError as error:
        raise CheckpointError(f"{run}/config.yaml: {error}") from None
    for name in [name for name in cfg.agents if name in saved.agents]:
        wanted, there = (agents[name].get("count", 1) for agents in (cfg.agents, saved.agents))
        if wanted != there:
            remedy = "repeat the run's own, or name another run.dir"
            raise ConfigError(f"agents.{name}.count", wanted, f"{run}/config.yaml has {there}; {remedy}")
    for key, change in history.compare(before, history.read_settings(config, cfg)).items():
        if key.partition(".")[0] in ("seed", "env", "agents", "agents_scope"):
            there = f"{run}/config.yaml has {shown(change['old'])}; repeat the run's own, or name another run.dir"
            raise ConfigError(key, change["new"], there)
    if list(cfg.agents) != list(saved.agents):  # the same ones, so that each would go on with another's copies
        wanted, there = (", ".join(map(str, agents)) for agents in (cfg.agents, saved.agents))
        raise ConfigError("agents", wanted, f"{run}/config.yaml has {there}; their order is that of scopes: repeat the run's own")
    store = checkpoints.CheckpointStore(run / "checkpoints")
    target, skipped = _newest_good(store)
    lost = store.pointer("latest") if target is None else None
    if lost is not None:
        remedy = "nothing was changed: put it back, or start anew in another directory"
        raise CheckpointError(f"{lost}: it is the latest checkpoint, and isn't there, nor is another; {remedy}")
    return Plan(cfg, config, run, target, tuple(skipped), before)


def _saved_config(run: Path) -> Any:
    path = run / "config.yaml"
    text = files.read_small(path, checkpoints.MAX_CONFIG_BYTES, "a configuration").decode("utf-8", "replace")
    cfg = configuration.from_yaml(text, str(path), resolvers=("oc.env",))
    configuration.load_plugins(configuration.plugins_of(cfg))
    return cfg


def load_config(path: Path, data: bytes | None) -> Any:
    """Return the configuration that the checkpoint at `path` was written with, its plugins loaded; `data` is its text.

    Raises CheckpointError if there is none, or one that isn't valid.
    """
    if data is None:
        raise CheckpointError(f"{path}: holds no config.yaml; name a checkpoint that a run wrote")
    cfg = configuration.from_yaml(data.decode("utf-8", "replace"), f"{path}/config.yaml")
    configuration.load_plugins(configuration.plugins_of(cfg))
    try:
        configuration.check(cfg)
    except ConfigError as error:
        raise CheckpointError(f"{path}/config.yaml: {error}") from None
    return cfg


def take(overrides: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Split off overrides whose values are paths or names, which Hydra's grammar would want quoted."""
    rest, taken = [], {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in keys and value not in ("null", "[]"):
            value = value.strip("'\"")
            if not value:
                raise ConfigError(key, value, "is empty; name one")
            taken[key] = os.path.expanduser(value)
        elif key not in keys:
            rest.append(override)
    return rest, taken
