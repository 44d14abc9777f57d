"""Where runs are: the directories that hold one, below those that somebody names; and how much of the disk they take."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rltrain.errors import ConfigError, StorageError
from rltrain.runs import holds_run

JOB = "job.json"  # of a sweep's job, there before its run is
OWN_FOLDERS = ("checkpoints", "starts", "videos")  # of a run: no other run lies in there


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """Return the directories of all runs below `places`, each once; `latest` is the run that was started last here.

    Links are followed where they are given, not below. Raises ConfigError for a place that is no directory, StorageError for
    one that can't be read.
    """
    found: dict[tuple[int, int], Path] = {}
    for place in places:
        given = Path("outputs/latest") if str(place) == "latest" and not os.path.isdir("latest") else Path(place)
        if not os.path.isdir(given):
            raise ConfigError("runs", str(place), "no such directory; name runs, or directories that hold some")
        try:
            os.scandir(given).close()
        except OSError as error:
            raise StorageError(f"{place}: can't be read: {error.strerror}") from None
        given = Path(os.path.realpath(given)) if given.is_symlink() else given
        for path in _search(given):
            status = os.stat(path)
            found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def _search(directory: Path) -> Iterator[Path]:
    is_run = holds_run(directory) or os.path.exists(directory / JOB)
    if is_run:
        yield directory
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[0] != ".")
    except OSError:
        return
    for name in names:
        if not (is_run and name in OWN_FOLDERS):
            yield from _search(directory / name)


def disk_usage(directory: Path) -> int:
    """Return the bytes that a directory takes on the disk."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += disk_usage(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:  # removed meanwhile, or not for us to see
        pass
    return total
