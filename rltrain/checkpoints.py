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
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rltrain.checks import option
from rltrain.errors import CheckpointError, NonFiniteError, StorageError
from rltrain.files import Hashing, MissingFile, looking, read_small, reading
from rltrain.tracking import replace_text
from rltrain.trees import decode, encode, pieces, tree_sha256, unpack, without_repeats

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MANIFEST_HASH",
    "CheckpointStore",
    "CheckpointsConfig",
    "check_all_listed",
    "decode",
    "encode",
    "read_file",
    "read_manifest",
    "read_part",
    "remove",
    "replace_text",
    "storage_error",
    "tree_sha256",
    "verify",
    "write",
]

FORMAT = 1
MANIFEST, MANIFEST_HASH = "manifest.json", "manifest.sha256"
ENVIRONMENT = "environment"  # in a policy: what wrappers of the environment had gathered, beside what was learned
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_POINTER_BYTES, MAX_CONFIG_BYTES = 4096, 2**20


@dataclass
class CheckpointsConfig:
    """When checkpoints are written and which are kept."""

    interval: int = option(0, "timesteps between checkpoints; 0: only at the end", low=0)
    memory: bool = option(
        False, "checkpoints hold the replay memories of off-policy agents too; without, a resume fills them anew and isn't exact"
    )
    keep: int = option(3, "newest checkpoints that are kept, besides `best`", low=1, high=1_000_000)


# -- one checkpoint ------------------------------------------------------------------------------------------------------


def write(directory: Path, parts: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a checkpoint to `directory`, which appears whole or not at all.

    `parts` are trees by name; those ending in "policy" must be finite. `files` are kept as they are.
    Raises NonFiniteError, or OSError with nothing left behind.
    """
    _check_policies(parts)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _write_beside_others(directory, parts, manifest, files)


def _check_policies(parts: Mapping[str, Any]) -> None:
    for name, tree in parts.items():
        if name.endswith("policy"):
            check_finite(name, learned(tree))


def _write_beside_others(
    directory: Path, parts: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write a checkpoint to where others may be: a folder that somebody deletes or renames meanwhile is not made again."""
    temporary = directory.with_name(f".tmp-{directory.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        listed = {}
        whole = ((name, iter([data])) for name, data in files.items())
        for name, data in [*((f"{name}.safetensors", pieces(tree)) for name, tree in parts.items()), *whole]:
            for parent in list(PurePosixPath(name).parents)[-2::-1]:  # the outermost first
                (temporary / parent).mkdir(exist_ok=True)
            listed[name] = _write_pieces(temporary / name, data)
        text = json.dumps({"format": FORMAT, **manifest, "files": listed}, indent=1).encode()
        _write_pieces(temporary / MANIFEST, [text])
        _write_pieces(temporary / MANIFEST_HASH, [hashlib.sha256(text).hexdigest().encode()])
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

    Raises CheckpointError saying what is wrong, StorageError where it can't be read.
    """
    with looking(directory):
        if not directory.is_dir():
            raise MissingFile(f"{directory}: no checkpoint there")
    path = directory / MANIFEST
    try:
        text = read_small(path, MAX_MANIFEST_BYTES, "a manifest")
    except MissingFile:
        why = f"{MANIFEST} is missing; this is not a checkpoint of rltrain, or half of one"
        raise MissingFile(f"{directory}: {why}") from None
    try:
        expected = read_small(directory / MANIFEST_HASH, 128, "a hash")
    except MissingFile:
        raise MissingFile(f"{directory}: {MANIFEST_HASH} is missing") from None
    if not re.fullmatch(rb"[0-9a-f]{64}", expected) or hashlib.sha256(text).hexdigest().encode() != expected:
        raise CheckpointError(f"{path}: does not match {MANIFEST_HASH}; the checkpoint is corrupt")
    try:
        manifest = json.loads(text, object_pairs_hook=without_repeats)
        files, version = manifest["files"], manifest["format"]
        well_formed = isinstance(files, dict) and isinstance(manifest.get("agents", {}), dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path}: not a manifest of rltrain")
    if type(version) is not int or version < 1:
        raise CheckpointError(
            f"{path}: not a manifest of rltrain: format {json.dumps(version)[:40]} is none; formats are 1 to {FORMAT}"
        )
    if version > FORMAT:
        raise CheckpointError(f"{path}: format {version} was written by a newer rltrain; this one reads up to {FORMAT}; upgrade")
    for name, entry in files.items():
        if not _stays_inside(name):
            raise CheckpointError(f"{path}: lists {name!r}, which leaves the checkpoint's directory")
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or not isinstance(entry.get("sha256"), str):
            raise CheckpointError(f"{path}: the entry of {name!r} has no size and sha256")
    return manifest


def verify(directory: Path, *, besides: Container[str] = ()) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest; return the manifest.

    Those in `besides` are left to whoever reads them, which checks them too: a large one is read once.
    Raises CheckpointError naming the first file that is missing, changed or not listed, StorageError where one can't be read.
    """
    manifest = read_manifest(directory)
    for name in manifest["files"]:
        if name not in besides:
            with _checking(directory, name, manifest) as (source, _):
                source.skip_rest()
    check_all_listed(directory, manifest)
    return manifest


def check_all_listed(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Raise CheckpointError at the first thing that the manifest doesn't list, however many there are."""
    allowed = {MANIFEST, MANIFEST_HASH, *manifest["files"]}
    folders = {parent.as_posix() for name in manifest["files"] for parent in PurePosixPath(name).parents}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with looking(directory), os.scandir(directory / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False) and name in folders:
                        waiting.append(f"{name}/")
                    elif entry.is_symlink() or name not in allowed:
                        raise CheckpointError(f"{directory / name}: not listed in {MANIFEST}")
        except FileNotFoundError:  # pruned meanwhile
            raise MissingFile(f"{directory / prefix}: missing") from None


@contextmanager
def _checking(directory: Path, name: str, manifest: Mapping[str, Any]) -> Iterator[tuple[Hashing, int]]:
    """Open a listed file of the right size to be read once, to its end; afterwards its hash must be the manifest's."""
    entry = manifest["files"].get(name)
    if entry is None:
        raise CheckpointError(f"{directory}: holds no {name}; it holds {', '.join(manifest['files'])}")
    path = directory / name
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size"]:
            raise CheckpointError(f"{path}: {size} bytes, the manifest says {entry['size']}; truncated or changed")
        source = Hashing(file)
        try:
            yield source, size
        except EOFError:
            raise CheckpointError(f"{path}: was cut while it was read") from None
        if source.hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{path}: its sha256 is not the manifest's; the file is corrupt")


def read_file(directory: Path, name: str, manifest: Mapping[str, Any], *, limit: int | None = None) -> bytes:
    """Return a listed file's bytes; its size is checked before anything is read, its hash before anything is used."""
    with _checking(directory, name, manifest) as (source, size):
        if limit is not None and size > limit:
            raise CheckpointError(f"{directory / name}: {size:,} bytes: too large; it has at most {limit:,}")
        data = bytearray(size)
        source.fill(data)
    return bytes(data)


def read_config(directory: Path, manifest: Mapping[str, Any]) -> bytes | None:
    """Return the text of the configuration that a checkpoint was written with, or None if it has none."""
    has_one = "config.yaml" in manifest["files"]
    return read_file(directory, "config.yaml", manifest, limit=MAX_CONFIG_BYTES) if has_one else None


def read_part(directory: Path, name: str, manifest: Mapping[str, Any]) -> Any:
    """Return the tree of part `name`, read once: hashed as it comes, used only if the hash is right."""
    file = f"{name}.safetensors"
    tree, wrong = None, None
    with _checking(directory, file, manifest) as (source, size):
        try:
            tree = unpack(source, size)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever a foreign file makes the parsers raise
            wrong = f"not a part of a checkpoint ({type(error).__name__}: {error})"
            source.skip_rest()
    if wrong is not None:
        raise CheckpointError(f"{directory / file}: {wrong}")
    return tree


def learned(policy: Any) -> Any:
    """Return a policy without what wrappers of the environment had gathered when it was saved."""
    return {key: value for key, value in policy.items() if key != ENVIRONMENT} if ENVIRONMENT in policy else policy


def check_finite(path: str, tree: Any) -> None:
    """Raise NonFiniteError naming the first number of a tree that is NaN or infinite."""
    if isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            check_finite(f"{path}/{key}", value)
    elif isinstance(tree, np.ndarray | np.floating | float) and not np.all(np.isfinite(tree)):
        raise NonFiniteError(f"{path}: not finite; the checkpoint is not written, the last good one stays")


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _write_pieces(path: Path, data: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file piece by piece; return what the manifest says of it."""
    size, digest = 0, hashlib.sha256()
    with open(path, "wb") as file:
        for piece in data:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NAME = re.compile(r"[0-9]{1,100}")


# -- the checkpoints of a run --------------------------------------------------------------------------------------------


class CheckpointStore:
    """A run's checkpoints by timestep; `latest` and `best` (`best-<agent>` of several) are small files that hold such a name."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory, self.keep = directory, keep

    def save(self, timestep: int, parts: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
        """Write the checkpoint of `timestep`, point `latest` at it, prune."""
        path = self.directory / str(timestep)
        _check_policies(parts)
        self.directory.mkdir(exist_ok=True)
        _write_beside_others(path, parts, manifest, files)
        replace_text(self.directory / "latest", path.name)
        self.prune()
        return path

    def mend_latest(self, path: Path) -> None:
        """Point `latest` at a checkpoint that a process was killed in front of pointing it at."""
        with suppress(CheckpointError):  # a pointer that holds rubbish is written again with the next checkpoint
            latest = self.pointer("latest")
            if path.parent == self.directory and path.name.isdigit() and (latest is None or int(latest.name) < int(path.name)):
                replace_text(self.directory / "latest", path.name)

    def mark_best(self, timestep: int, agent: str | None = None) -> None:
        """Point `best`, or where there are several agents `best-<agent>`, at the checkpoint of `timestep`."""
        replace_text(self.directory / (f"best-{agent}" if agent else "best"), str(timestep))
        self.prune()

    def pointer(self, name: str) -> Path | None:
        """Return where `latest`, `best` or `best-<agent>` points, or None if it does not exist."""
        path = self.directory / name
        try:
            target = read_small(path, MAX_POINTER_BYTES, "the name of a checkpoint").decode("utf-8", "replace").strip()
        except MissingFile:
            return None
        if not _NAME.fullmatch(target):
            raise CheckpointError(f"{path}: holds {target[:40]!r}, not the name of a checkpoint")
        return self.directory / target

    def bests(self) -> list[str]:
        """Return the names of the pointers to single agents' best checkpoints."""
        return sorted(path.name for path in self.directory.glob("best-*") if not path.is_dir())

    def all(self) -> list[Path]:
        """Return the checkpoints there are, the newest first; temporaries are not among them."""
        with looking(self.directory):
            if not self.directory.is_dir():
                return []
            found = [path for path in self.directory.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
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
        try:
            kept = {path.name for path in self.all()[: self.keep]}
            for name in ("latest", "best", *self.bests()):
                with suppress(CheckpointError):  # a pointer that holds rubbish keeps nothing
                    kept |= {path.name for path in (self.pointer(name),) if path}
        except StorageError:  # what can't be read may keep any of them
            return
        for path in self.all():
            if path.name not in kept:
                with suppress(OSError):
                    remove(path)

    def clear_temporaries(self) -> None:
        """Remove what a killed process left half-written; what it had moved aside goes back where nothing good took its place."""
        for path in list(_temporaries(self.directory)):
            place = self.directory / (_moved_from(path) or path.name)
            if place != path and not _verifies(place) and _verifies(path):  # killed between two renames, or damaged since
                shutil.rmtree(place, ignore_errors=True)
                os.rename(path, place)
            else:
                _remove(path)


def _temporaries(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if path.name.startswith((".tmp-", ".old-", ".gone-")) and path.is_dir())


def remove(path: Path) -> None:
    """Remove a checkpoint; whoever is killed half-way through it leaves no half of one. Raises OSError if it stays."""
    gone = path.with_name(f".gone-{path.name}-{os.getpid()}")
    os.rename(path, gone)
    _remove(gone)


def _remove(path: Path) -> None:
    """Remove a checkpoint; of one that lies elsewhere, the link."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


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
