"""`rltrain checkpoint verify` and `show`: look, change nothing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rltrain import assemble, checkpoints
from rltrain.commands.reading import beside_training
from rltrain.errors import CommandError
from rltrain.screen import printable, write_out


def checkpoint_verify(arguments: Sequence[str]) -> int:
    """Check every byte of a checkpoint."""
    path, manifest = _look("verify", arguments, checkpoints.verify)
    size = sum(entry["size"] for entry in manifest["files"].values())
    good = f"{path}: good, {len(manifest['files'])} files, {size:,} bytes, timestep {manifest.get('timestep')}"
    write_out(printable(f"{good}\n"))
    return 0


def checkpoint_show(arguments: Sequence[str]) -> int:
    """Print what a checkpoint is."""
    path, manifest = _look("show", arguments, checkpoints.read_manifest)
    write_out(json.dumps({"path": str(path), **manifest}, indent=1) + "\n")
    return 0


def _look(verb: str, arguments: Sequence[str], look: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a checkpoint's directory and what `look` finds there."""
    if len(arguments) != 1:
        raise CommandError(["rltrain", "checkpoint", verb, *arguments], f"write rltrain checkpoint {verb} PATH")
    name = arguments[0].removeprefix("checkpoint=")
    return beside_training(lambda: assemble.find_checkpoint(name), lambda path: (path, look(path)))
