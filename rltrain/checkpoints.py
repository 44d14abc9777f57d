"""Checkpoints: one directory each, tensors and a manifest, written atomically, read without pickle.

    <timestep>/manifest.json        format, backend, agents, timestep, and size and sha256 of every file
    <timestep>/manifest.sha256      the manifest's own hash, exactly 64 lowercase hex characters
    <timestep>/<part>.safetensors   a tree of arrays and plain data; the plain data stands in the file's header

Checksums find corruption, not forgery; nothing that is read here is ever executed.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rltrain.checks import option
from rltrain.errors import CheckpointError, NonFiniteError, StorageError
from rltrain.tracking import replace_text

FORMAT = 1
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"
MAX_MANIFEST_BYTES = 64 * 2**20


@dataclass
class CheckpointsConfig:
    """When checkpoints are written and which are kept."""

    interval: int = option(0, "timesteps between checkpoints; 0: only at the end", low=0)
    memory: bool = option(
        False, "checkpoints hold the replay memories of off-policy agents too; without, a resume fills them anew and isn't exact"
    )
    keep: int = option(3, "newest checkpoints that are kept, besides `best`", low=1, high=1_000_000)


# -- trees of arrays and plain data --------------------------------------------------------------------------------------


def encode(tree: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """Return `tree` as JSON data; its arrays are put into `arrays` by path. Exact: tuples, scalars' dtypes, int keys.

    Raises TypeError for what is neither an array of numbers nor plain data.
    """
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, np.ndarray | np.generic):
        if tree.dtype.kind not in "biuf":
            raise TypeError(f"{path}: an array of {tree.dtype} can't be kept")
        while path in arrays:  # {"a/b": x, "a": {"b": y}}
            path += "'"
        arrays[path] = np.array(tree, order="C")
        return {"$array": path} if isinstance(tree, np.ndarray) else {"$scalar": path}
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return {key: encode(value, arrays, f"{path}/{key}" if path else key) for key, value in tree.items()}
        return {"$items": [[_encode_key(k, path), encode(v, arrays, f"{path}/{i}")] for i, (k, v) in enumerate(tree.items())]}
    if isinstance(tree, list | tuple):
        items = [encode(value, arrays, f"{path}/{i}") for i, value in enumerate(tree)]
        return items if isinstance(tree, list) else {"$tuple": items}
    raise TypeError(f"{path}: {type(tree).__name__} is neither an array nor plain data")


def _encode_key(key: Any, path: str) -> Any:
    arrays: dict[str, np.ndarray] = {}
    plain = encode(key, arrays, path)
    if arrays:
        raise TypeError(f"{path}: a key is {type(key).__name__}; keys are plain data")
    return plain


def decode(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `encode` was given."""
    if isinstance(tree, list):
        return [decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        (tag, value), *_ = tree.items()
        if tag == "$array":
            return arrays[value]
        if tag == "$scalar":
            return arrays[value][()]
        if tag == "$tuple":
            return tuple(decode(item, arrays) for item in value)
        if tag == "$items":
            return {decode(key, arrays): decode(item, arrays) for key, item in value}
    return {key: decode(value, arrays) for key, value in tree.items()}


def tree_sha256(tree: Any) -> str:
    """Return the hash of all arrays in a tree: sorted names with dtype, shape and bytes."""
    arrays: dict[str, np.ndarray] = {}
    encode(tree, arrays)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# -- one checkpoint ------------------------------------------------------------------------------------------------------


def write(directory: Path, parts: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a checkpoint to `directory`, which appears whole or not at all.

    `parts` are trees by name; those ending in "policy" must be finite. `files` are kept as they are.
    Raises NonFiniteError, or OSError with nothing left behind.
    """
    for name, tree in parts.items():
        if name.endswith("policy"):
            _check_finite(name, tree)
    temporary = directory.with_name(f".tmp-{directory.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        listed = {}
        for name, data in {**{f"{name}.safetensors": _pack(tree) for name, tree in parts.items()}, **files}.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_bytes(path, data)
            listed[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        text = json.dumps({"format": FORMAT, **manifest, "files": listed}, indent=1).encode()
        _write_bytes(temporary / MANIFEST, text)
        _write_bytes(temporary / MANIFEST_HASH, hashlib.sha256(text).hexdigest().encode())
        for folder in [temporary, *(path for path in temporary.rglob("*") if path.is_dir())]:
            _sync_directory(folder)
        _put_in_place(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(directory.parent)


def _put_in_place(temporary: Path, directory: Path) -> None:
    if not directory.exists():
        os.rename(temporary, directory)
        return
    old = directory.with_name(f".old-{directory.name}-{os.getpid()}")
    os.rename(directory, old)
    os.rename(temporary, directory)
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest after checking its own hash and form.

    Raises CheckpointError saying what is wrong.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no checkpoint there")
    path = directory / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{directory}: {MANIFEST} is missing; this is not a checkpoint of rltrain, or half of one")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{path}: too large to be a manifest")
    text = path.read_bytes()
    try:
        expected = (directory / MANIFEST_HASH).read_bytes()
    except OSError:
        raise CheckpointError(f"{directory}: {MANIFEST_HASH} is missing") from None
    if not re.fullmatch(rb"[0-9a-f]{64}", expected) or hashlib.sha256(text).hexdigest().encode() != expected:
        raise CheckpointError(f"{path}: does not match {MANIFEST_HASH}; the checkpoint is corrupt")
    try:
        manifest = json.loads(text)
        files, version = manifest["files"], int(manifest["format"])
        well_formed = isinstance(files, dict) and isinstance(manifest.get("agents", {}), dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path}: not a manifest of rltrain")
    if version > FORMAT:
        raise CheckpointError(f"{path}: format {version} was written by a newer rltrain; this one reads up to {FORMAT}; upgrade")
    for name, entry in files.items():
        if not _stays_inside(name):
            raise CheckpointError(f"{path}: lists {name!r}, which leaves the checkpoint's directory")
        if not isinstance(entry, dict) or not isinstance(entry.get("size"), int) or not isinstance(entry.get("sha256"), str):
            raise CheckpointError(f"{path}: the entry of {name!r} has no size and sha256")
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest; return the manifest.

    Raises CheckpointError naming the first file that is missing, changed or not listed.
    """
    manifest = read_manifest(directory)
    for name in manifest["files"]:
        read_file(directory, name, manifest)
    allowed = {MANIFEST, MANIFEST_HASH, *manifest["files"]}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in allowed):
            raise CheckpointError(f"{path}: not listed in {MANIFEST}")
    return manifest


def read_file(directory: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """Return a listed file's bytes; its size is checked before anything is read, its hash before anything is used."""
    entry = manifest["files"].get(name)
    if entry is None:
        raise CheckpointError(f"{directory}: holds no {name}; it holds {', '.join(manifest['files'])}")
    path = directory / name
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path}: missing")
    if path.stat().st_size != entry["size"]:
        raise CheckpointError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry['size']}; truncated or changed")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{path}: its sha256 is not the manifest's; the file is corrupt")
    return data


def read_part(directory: Path, name: str, manifest: Mapping[str, Any]) -> Any:
    """Return the tree of part `name`."""
    from safetensors.numpy import load

    data = read_file(directory, f"{name}.safetensors", manifest)
    try:
        length = int.from_bytes(data[:8], "little")
        tree = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tree"])
        return decode(tree, load(data))
    except Exception as error:  # whatever a foreign file makes the parsers raise
        raise CheckpointError(
            f"{directory / name}.safetensors: not a part of a checkpoint ({type(error).__name__}: {error})"
        ) from None


def _pack(tree: Any) -> bytes:
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    plain = encode(tree, arrays)
    return save(arrays, metadata={"tree": json.dumps(plain)})


def _check_finite(path: str, tree: Any) -> None:
    if isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            _check_finite(f"{path}/{key}", value)
    elif isinstance(tree, np.ndarray | np.floating | float) and not np.all(np.isfinite(tree)):
        raise NonFiniteError(f"{path}: not finite; the checkpoint is not written, the last good one stays")


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _write_bytes(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- the checkpoints of a run --------------------------------------------------------------------------------------------


class CheckpointStore:
    """A run's checkpoints by timestep; `latest` and `best` (`best-<agent>` of several) are small files that hold such a name."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory, self.keep = directory, keep

    def save(self, timestep: int, parts: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
        """Write the checkpoint of `timestep`, point `latest` at it, prune."""
        path = self.directory / str(timestep)
        write(path, parts, manifest, files)
        replace_text(self.directory / "latest", path.name)
        self.prune()
        return path

    def mark_best(self, timestep: int, agent: str | None = None) -> None:
        """Point `best`, or where there are several agents `best-<agent>`, at the checkpoint of `timestep`."""
        replace_text(self.directory / (f"best-{agent}" if agent else "best"), str(timestep))
        self.prune()

    def pointer(self, name: str) -> Path | None:
        """Return where `latest`, `best` or `best-<agent>` points, or None if it does not exist."""
        try:
            target = (self.directory / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None
        if not target.isdigit():
            raise CheckpointError(f"{self.directory / name}: holds {target[:40]!r}, not the name of a checkpoint")
        return self.directory / target

    def bests(self) -> list[str]:
        """Return the names of the pointers to single agents' best checkpoints."""
        return sorted(path.name for path in self.directory.glob("best-*") if path.is_file())

    def all(self) -> list[Path]:
        """Return the checkpoints there are, the newest first; temporaries are not among them."""
        if not self.directory.is_dir():
            return []
        found = [path for path in self.directory.iterdir() if path.name.isdigit() and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name), reverse=True)

    def newest_good(self) -> tuple[Path | None, list[str]]:
        """Return the newest checkpoint that verifies, and why newer ones were skipped.

        One that a killed process had moved aside, to put another of its timestep there, counts where that one doesn't verify.
        """
        skipped: list[str] = []
        aside = [path for path in _temporaries(self.directory) if _moved_from(path)]
        for path in sorted([*self.all(), *aside], key=lambda path: int(_moved_from(path) or path.name), reverse=True):
            try:
                verify(path)
                return path, skipped
            except CheckpointError as error:
                skipped.append(str(error))
        return None, skipped

    def prune(self) -> None:
        """Remove all but the newest `keep`, `latest` and every `best`."""
        kept = {path.name for path in self.all()[: self.keep]}
        for name in ("latest", "best", *self.bests()):
            with suppress(CheckpointError):  # a pointer that holds rubbish keeps nothing
                kept |= {path.name for path in (self.pointer(name),) if path}
        for path in self.all():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def clear_temporaries(self) -> None:
        """Remove what a killed process left half-written; what it had moved aside goes back where nothing good took its place."""
        for path in list(_temporaries(self.directory)):
            place = self.directory / (_moved_from(path) or path.name)
            if place != path and not _verifies(place) and _verifies(path):  # killed between two renames, or damaged since
                shutil.rmtree(place, ignore_errors=True)
                os.rename(path, place)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _temporaries(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if path.name.startswith((".tmp-", ".old-")) and path.is_dir())


def _moved_from(path: Path) -> str:
    """Return the name of the checkpoint that stands aside at `path`, or nothing."""
    found = re.fullmatch(r"\.old-(\d+)-.*", path.name)
    return found[1] if found else ""


def _verifies(path: Path) -> bool:
    with suppress(CheckpointError):
        verify(path)
        return True
    return False


def storage_error(what: str, error: OSError) -> StorageError:
    """Return the error to tell about a failed write."""
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return StorageError(f"{what}: {reason}")
