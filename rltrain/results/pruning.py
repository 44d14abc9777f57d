"""Old checkpoints of runs: which may go, and removing them while nobody trains there.

What a run needs stays: `latest`, every `best`, the newest ones, and the newest that verifies, from which a resume goes on. So
does whatever isn't plainly a checkpoint of rltrain's own: links, folders without a manifest or with files that it doesn't list.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from rltrain.checkpoints import CheckpointStore, check_all_listed, read_manifest, remove, verify
from rltrain.errors import CheckpointError, RltrainError, StorageError
from rltrain.results.finding import disk_usage
from rltrain.results.records import Record
from rltrain.runs import is_in_use, locked

LEFT_BEHIND = (".tmp-", ".gone-")  # by a process that was killed: half a checkpoint


@dataclass
class Plan:
    """What goes of one run."""

    record: Record
    old: list[Path] = field(default_factory=list)  # checkpoints, the oldest first, and what was left half-written
    size: int = 0  # bytes that this frees
    good: Path | None = None  # a checkpoint that stays and verifies
    why_not: str = ""  # nothing goes


def plan(record: Record, keep: int) -> Plan:
    """Return what goes of a run if its newest `keep` checkpoints stay, and what it needs."""
    made = Plan(record)
    try:
        made.old = _old(record.directory, keep)
        checkpoints = [path for path in made.old if path.name.isdigit()]
        if checkpoints:
            made.good, _ = _store(record.directory).newest_good()
            made.old = [path for path in made.old if path != made.good]
            if made.good is None:
                raise CheckpointError("none of its checkpoints verifies")
    except (RltrainError, OSError) as error:
        return Plan(record, why_not=str(error))
    made.size = sum(disk_usage(path) for path in made.old)
    return made


def carry_out(made: Plan, keep: int) -> list[Path]:
    """Remove what was planned and still may go, the oldest first, holding the run's lock; return what is gone.

    Raises StorageError if somebody trains there now, or if something can't be removed.
    """
    gone: list[Path] = []
    with locked(made.record.directory):
        try:
            still = _old(made.record.directory, keep)
            if made.good is not None:
                verify(made.good)
        except CheckpointError as error:  # it went on meanwhile, and is another run now
            raise StorageError(f"{made.record.name}: changed meanwhile: {error}; nothing of it was deleted") from None
        for path in made.old:
            if path in still:
                try:
                    remove(path)
                except OSError as error:
                    raise StorageError(f"{path}: can't be deleted: {error.strerror}") from None
                gone.append(path)
    return gone


def _store(directory: Path) -> CheckpointStore:
    return CheckpointStore(directory / "checkpoints")


def _old(directory: Path, keep: int) -> list[Path]:
    """Return the checkpoints that nothing speaks for, the oldest first, and what was left half-written.

    Raises CheckpointError for a pointer that can't be read: it may speak for any of them.
    """
    store = _store(directory)
    if store.directory.is_symlink():
        raise CheckpointError("its checkpoints/ is a link")
    found = store.all()
    kept = {path.name for path in found[:keep]}
    kept |= {path.name for name in ("latest", "best", *store.bests()) if (path := store.pointer(name)) is not None}
    old = [path for path in reversed(found) if path.name not in kept and _is_ours(path)]
    return [*old, *_left_behind(store.directory)]


def _is_ours(path: Path) -> bool:
    """Tell whether a folder holds a checkpoint and nothing else."""
    if path.is_symlink():
        return False
    try:
        check_all_listed(path, read_manifest(path))
    except RltrainError:
        return False
    return True


def _left_behind(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(
            Path(entry.path) for entry in entries if entry.name.startswith(LEFT_BEHIND) and entry.is_dir(follow_symlinks=False)
        )


def plan_all(records: list[Record], keep: int) -> list[Plan]:
    """Return a plan for every run; a running one keeps everything."""
    return [Plan(one, why_not="running") if is_in_use(one.directory) else plan(one, keep) for one in records]
