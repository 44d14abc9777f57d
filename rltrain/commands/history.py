"""What is kept of every start of a run, `starts/<n>.json` with `starts/<n>.yaml`: by what command, where, what was changed.

A start is written before anything else of the run is, each into files of its own, so that no kill loses one.
"""

import json
import os
import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rltrain import config as configuration
from rltrain.commands.commit import read_commit
from rltrain.config import Checked, Config
from rltrain.errors import SECRET, hidden, masked, shown
from rltrain.tracking import replace_text

STARTS = "starts"
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
NOT_SETTINGS = ("run.dir", "dry_run", "resume")
MAX_BYTES = 16 * 2**20

Changes = dict[str, dict[str, Any]]  # {"old", "new"} by key


# -- settings, to compare and to show ------------------------------------------------------------------------------------


@dataclass
class Settings:
    """Every setting of a configuration by its key."""

    values: dict[str, Any] = field(default_factory=dict)  # resolved
    shown: dict[str, Any] = field(default_factory=dict)  # secrets masked, text that a reference gave as the reference
    defaults: dict[str, Any] = field(default_factory=dict)


def read_settings(config: Config, cfg: Any) -> Settings:
    """Return the settings of a checked configuration, as `cfg`, the unresolved DictConfig, has them."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=False)
    settings = Settings()
    for key, value, default in _every(config):
        raw = _find(plain, key)
        is_data = value is None or isinstance(value, bool | int | float)
        settings.values[key], settings.defaults[key] = value, default
        settings.shown[key] = raw if "${" in str(raw) and not is_data else _without_secrets(key, value)
    return settings


def compare(old: Settings, new: Settings) -> Changes:
    """Return what differs; a setting that one of them doesn't have is at its default there."""
    changes = {}
    for key in dict.fromkeys((*old.values, *new.values)):
        before, now = ((old.values, old.shown), (new.values, new.shown))
        if key not in old.values:
            before = (new.defaults, new.defaults)
        if key not in new.values:
            now = (old.defaults, old.defaults)
        if before[0][key] != now[0][key]:
            changes[key] = {"old": before[1][key], "new": now[1][key]}
    return changes


def describe(changes: Changes) -> str:
    """Say changes in a line: `agents.ppo.learning_rate 2.5e-4 -> 1e-4, ...`."""
    return ", ".join(f"{key} {_short(change['old'])} -> {_short(change['new'])}" for key, change in changes.items())


def _every(config: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, value, default) of every setting."""
    found = []
    chosen: list[tuple[str, Checked]] = [("trainer", config.trainer), ("env", config.env)]
    chosen += [("agents", checked) for checked in {agent.key: agent for agent in config.agents.values()}.values()]
    rest = asdict(replace(config, trainer=None, env=None, agents={}))
    defaults = asdict(Config())
    for name in ("trainer", "env", "agents"):
        del rest[name]
    found += _leaves(rest, defaults, "")
    for group, checked in chosen:
        names = {
            choice.target.replace("${backend.name}", config.backend.name): name
            for name, choice in configuration.CHOICES[group].items()
        }
        found.append((checked.key, names.get(checked.target, checked.target), None))
        found += _leaves(asdict(checked.cfg), _defaults(type(checked.cfg)), checked.key)
    return [(key, value, default) for key, value, default in found if key not in NOT_SETTINGS]


def _defaults(cls: type) -> Any:
    try:
        return asdict(cls())
    except TypeError:  # a setting of one's own that has none
        return {}


def _leaves(node: Any, default: Any, key: str) -> list[tuple[str, Any, Any]]:
    if not isinstance(node, dict):
        return [(key, node, default)]
    inside = default if isinstance(default, dict) else {}
    return [
        leaf for name, value in node.items() for leaf in _leaves(value, inside.get(name), f"{key}.{name}" if key else str(name))
    ]


def _find(node: Any, key: str) -> Any:
    """Return what an unresolved configuration has at a key, or the reference on the way to it."""
    for name in key.split("."):
        if not isinstance(node, dict):
            return node
        node = node.get(name, node.get(int(name)) if name.isdigit() else None)
    return None if isinstance(node, dict) else node


def _without_secrets(key: str, value: Any) -> Any:
    if SECRET.search(key):
        return hidden(value)
    return mask_text(value) if isinstance(value, str) else masked(value)


def mask_text(text: str) -> str:
    """Return text with *** for a password inside a URL."""
    return re.sub(r"(://[^/\s:@]*:)[^/\s@]+@", r"\1***@", text)


def _short(value: Any) -> str:
    """Return a value as a person would write it: 2.5e-4."""
    if isinstance(value, float) and 0 < abs(value) < 1e-2:
        return format(Decimal(repr(value)).normalize(), "e")
    return shown(value)


# -- starts --------------------------------------------------------------------------------------------------------------


def command_line(arguments: Sequence[str]) -> str:
    """Return `rltrain` with its arguments as a shell takes them, secrets masked."""
    return shlex.join(["rltrain", *(_masked_argument(argument) for argument in arguments)])


def _masked_argument(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if SECRET.search(key) or (SECRET.search(value) and re.search(r"[{:]", value)):  # a mapping, or the query of a URL
        return f"{key}{equals}{hidden(value)}"
    return mask_text(argument)


def write_start(
    directory: Path,
    config: str,
    *,
    timestep: int,
    checkpoint: Path | None,
    command: str,
    versions: Mapping[str, str],
    changes: Changes,
) -> None:
    """Keep a start of the run in `directory` and the configuration it was started with."""
    folder = directory / STARTS
    folder.mkdir(exist_ok=True)
    numbers = _numbers(folder)
    before = directory / "config.yaml"
    if not numbers and before.exists():
        replace_text(folder / "1.yaml", before.read_text(encoding="utf-8"))
        replace_text(folder / "1.json", json.dumps({"start": 1, "time": None, "timestep": 0}) + "\n")  # more wasn't kept then
        numbers = [1]
    number = max(numbers, default=0) + 1
    slurm = {name.removeprefix("SLURM_").lower(): os.environ[name][:80] for name in SLURM if os.environ.get(name)}
    start = {
        "start": number,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "timestep": timestep,
        "checkpoint": None if checkpoint is None else checkpoint.name,
        "changed": changes,
        "command": command,
        "host": socket.gethostname(),
        "working_directory": _working_directory(),
        "git": read_commit(Path()),
        "slurm": slurm or None,
        "versions": dict(versions),
    }
    replace_text(folder / f"{number}.yaml", config)
    replace_text(folder / f"{number}.json", json.dumps(start, indent=1, default=str) + "\n")


def read_starts(directory: Path) -> list[dict[str, Any]]:
    """Return every start of a run, the first one first."""
    folder = directory / STARTS
    with suppress(OSError):
        return [_read(folder / f"{number}.json", number) for number in _numbers(folder)]
    return []


def _numbers(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted({int(name.partition(".")[0]) for name in names if re.fullmatch(r"\d{1,9}\.json", name)})


def _read(path: Path, number: int) -> dict[str, Any]:
    try:
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            start = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(start, dict):
                return start
    except (OSError, ValueError, RecursionError):
        pass
    return {"start": number, "error": f"{path.name} can't be read"}


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None
