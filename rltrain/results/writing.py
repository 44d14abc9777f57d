"""Where a report goes: a directory of its own, written anew as often as one likes; nothing else is ever overwritten."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rltrain.checkpoints import storage_error
from rltrain.errors import ConfigError
from rltrain.files import replacing
from rltrain.results.saved import read_json
from rltrain.runs import check_writable, holds_run

ABOUT, KIND = "report.json", "rltrain report"  # what says that a directory holds a report
ROOT = Path("outputs/reports")
PICTURES = ("curves", "final", "profile", "improvement")
FILES = (
    "report.md",
    "report.html",
    "data.csv",
    "data.parquet",
    *(f"{name}.{end}" for name in PICTURES for end in ("png", "svg")),
)


def find_place(wanted: str | None) -> Path:
    """Return the directory for a report, which need not exist yet; without `wanted` a new one.

    Raises ConfigError for one that holds anything else, StorageError for one that can't be written to.
    """
    if wanted is None:
        check_writable(str(ROOT), "out")
        return ROOT / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    path = Path(wanted)
    if path.exists() and not path.is_dir():
        raise ConfigError("out", wanted, "is a file; name a directory")
    for parent in (path.absolute(), *path.absolute().parents):
        if holds_run(parent):
            raise ConfigError("out", wanted, f"{parent} holds a run, and a report never goes into one; name another directory")
    check_writable(wanted, "out")
    if path.exists() and any(path.iterdir()) and read_json(path / ABOUT, []).get("kind") != KIND:
        raise ConfigError("out", wanted, "holds something that isn't a report; name a new directory")
    return path


def write(directory: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """Write a report's files, each at once, then what it says of itself; files of an older report that are no more go.

    Raises StorageError.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / ABOUT, _plain({"kind": KIND, **about, "files": sorted(files)}))
        for name, data in files.items():
            _replace(directory / name, data)
        for name in FILES:
            if name not in files:
                with suppress(FileNotFoundError):
                    (directory / name).unlink()
    except OSError as error:
        raise storage_error(f"out={directory}", error) from None


def _plain(tree: Any) -> bytes:
    return (json.dumps(tree, indent=1) + "\n").encode()


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
