"""Files that somebody else may have put there: regular ones only, never waited for, read no further than makes sense."""

import errno
import hashlib
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rltrain.errors import CheckpointError, StorageError

CHUNK = 2**20
_KINDS = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


class MissingFile(CheckpointError):
    """There is nothing of that name."""


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file; neither a link nor a pipe that nobody writes to makes it wait or wander off.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe without reader or socket, a directory
            raise _not_a_file(path, os.lstat(path).st_mode) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_a_file(path, mode)
    return descriptor


def _not_a_file(path: str | Path, mode: int) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(mode), "device")
    return OSError(errno.EINVAL, f"there is a {kind} in its place", str(path))


class Appended:
    """A file that whole records are added to: of one that the disk has no room for, nothing stays. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._file = open(descriptor, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)

    def append(self, record: bytes | str) -> None:
        """Add a record, which is then in the kernel's hands."""
        data = record.encode("utf-8", "backslashreplace") if isinstance(record, str) else record
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise

    def close(self) -> None:
        """Close it."""
        self._file.close()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open what becomes a file once all of it is written: a reader sees the old file or the new one, never half of it.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)  # whatever stands there is not this process's
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Place:
    """A directory itself, whatever its name comes to mean: held open, so that no other one gets its number meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def is_there(self) -> bool:
        """Tell whether its path still leads to it; where nobody can tell, it does."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError as error:
            return not _is_missing(error)

    def lacks(self, name: str) -> bool:
        """Tell whether a file in it is gone."""
        try:
            os.stat(self.path / name)
        except OSError as error:
            return _is_missing(error)
        return False


def _is_missing(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read from.

    Raises MissingFile, CheckpointError where something else stands in its place, StorageError where it can't be read.
    """
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name of a file
        raise MissingFile(f"{path}: missing") from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENAMETOOLONG):
            raise CheckpointError(f"{path}: missing: {error.strerror}") from None
        raise unreadable(error, path) from None
    with open(descriptor, "rb", buffering=CHUNK // 4) as file:
        try:
            yield file
        except OSError as error:
            raise unreadable(error, path) from None


def unreadable(error: OSError, path: str | Path) -> StorageError:
    """Return the error to tell about a failed look or read."""
    reason = error.strerror or str(error)
    return StorageError(f"{error.filename or path}: can't be read: {reason[:1].lower()}{reason[1:]}")


@contextmanager
def looking(path: str | Path) -> Iterator[None]:
    """Tell a permission that is missing on the way to `path` as StorageError."""
    try:
        yield
    except PermissionError as error:
        raise unreadable(error, path) from None


def read_small(path: Path, limit: int, what: str) -> bytes:
    """Return the bytes of a file that has no reason to be large; raises as `reading`, CheckpointError above `limit`."""
    with reading(path) as file:
        data = file.read(limit + 1)
        if len(data) > limit:
            size = os.fstat(file.fileno()).st_size
            raise CheckpointError(f"{path}: {size:,} bytes: too large to be {what}, which has at most {limit:,}")
        return data


class Hashing:
    """Reads a file from its start to its end in pieces, each hashed as it comes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def fill(self, target: Any) -> None:
        """Fill a flat writable buffer of bytes; raises EOFError where the file ends before."""
        view = memoryview(target)
        for start in range(0, len(view), CHUNK):
            piece = view[start : start + CHUNK]
            count = self._file.readinto(piece)  # type: ignore[attr-defined]
            self._digest.update(piece[:count])
            if count != len(piece):
                raise EOFError("the file ends before it should")

    def skip_rest(self) -> None:
        """Read what is left for the hash alone."""
        while piece := self._file.read(CHUNK):
            self._digest.update(piece)

    def hexdigest(self) -> str:
        """Return the hash of what was read so far."""
        return self._digest.hexdigest()
