"""Where large host arrays are: in main memory, or in a file that the system reads and writes as they are used."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.errors import ConfigError


def find_room(size: int, total: int, mapped: str, directory: str | None, key: str) -> str | None:
    """Return the directory that a memory of `size` transitions, `total` bytes, is mapped in; None: it is in main memory.

    `mapped` is auto, true or false; auto: in a file if it would take more than half of the memory that is free.
    Raises ConfigError if there is no room for it.
    """
    free = free_memory()
    if directory is not None and not (os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)):
        why = "can't be written" if os.path.isdir(directory) else "no such directory"
        raise ConfigError(f"{key}.memory_directory", directory, f"{why}; name another one")
    if mapped == "false" or (mapped == "auto" and total <= free / 2):
        if total > free:
            there = f"takes {total:,} bytes of memory, and {free:,} are free"
            raise ConfigError(f"{key}.memory_size", size, f"{there}; give less, or {key}.memory_mapped=auto")
        return None
    where = directory or tempfile.gettempdir()
    free = shutil.disk_usage(where).free
    if total > free:
        there = f"takes {total:,} bytes, and {where} has {free:,} left"
        raise ConfigError(f"{key}.memory_size", size, f"{there}; give less, or {key}.memory_directory on a larger disk")
    return where


def allocator(
    size: int, total: int, mapped: str, directory: str | None, key: str
) -> Callable[[tuple[int, ...], Any], np.ndarray]:
    """Return a function that makes arrays of zeros, where `find_room` says.

    A file loses its name at once, so that its space is free again when the process ends, however it ends.
    Raises ConfigError if it can't be made.
    """
    where = find_room(size, total, mapped, directory, key)
    if where is None:
        return np.zeros

    def make(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        try:
            with tempfile.NamedTemporaryFile(dir=where, prefix="rltrain-memory-") as file:
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                os.posix_fallocate(file.fileno(), 0, max(size, 1))  # a full disk is an error here, not a SIGBUS later
                return np.asarray(np.memmap(file.name, dtype=dtype, mode="r+", shape=shape))
        except OSError as error:
            remedy = f"can't hold {total:,} bytes ({error.strerror}); name another one, or give less {key}.memory_size"
            raise ConfigError(f"{key}.memory_directory", where, remedy) from error

    return make


def free_memory() -> int:
    """Return how many bytes of main memory can be had without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
