"""Checkpoints that were tampered with, their hashes made right again: what a hash can't find must be found by looking."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rltrain.checkpoints import MANIFEST, MANIFEST_HASH


def put_file(checkpoint: Path, name: str, data: bytes) -> None:
    """Write a file of a checkpoint and list it in the manifest."""
    (checkpoint / name).write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(checkpoint, lambda manifest: manifest["files"].update({name: entry}))


def edit_manifest(checkpoint: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest in place, and its hash."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    edit(manifest)
    put_manifest(checkpoint, manifest)


def put_manifest(checkpoint: Path, manifest: Any) -> None:
    """Write a manifest and its hash."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (checkpoint / MANIFEST).write_bytes(text)
    (checkpoint / MANIFEST_HASH).write_text(hashlib.sha256(text).hexdigest())


def edit_config(checkpoint: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the configuration in a checkpoint in place, and the manifest."""
    import yaml

    cfg = yaml.safe_load((checkpoint / "config.yaml").read_text())
    edit(cfg)
    put_file(checkpoint, "config.yaml", yaml.safe_dump(cfg).encode())
