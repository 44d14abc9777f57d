"""Where large host arrays are: in main memory, or in a file that the system reads and writes as they are used."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.errors import ConfigError


def allocator(total: int, mapped: str, directory: str | None, key: str) -> Callable[[tuple[int, ...], Any], np.ndarray]:
    """Return a function that makes arrays of zeros, `total` bytes in all; `mapped` is auto, true or false.

    auto: in a file if they would take more than half of the memory that is free. The file loses its name at once, so that its
    space is free again when the process ends, however it ends.
    Raises ConfigError if it can't be made, or main memory is too small.
    """
    free = free_memory()
    if mapped == "false" or (mapped == "auto" and total <= free / 2):
        if total > free:
            raise ConfigError(
                f"{key}.memory_size", f"{total:,} bytes", f"only {free:,} are free; give less, or {key}.memory_mapped=auto"
            )
        return np.zeros
    where = directory or tempfile.gettempdir()

    def make(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        try:
            with tempfile.NamedTemporaryFile(dir=where, prefix="rltrain-memory-") as file:
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                os.posix_fallocate(file.fileno(), 0, max(size, 1))  # a full disk is an error here, not a SIGBUS later
                return np.asarray(np.memmap(file.name, dtype=dtype, mode="r+", shape=shape))
        except OSError as error:
            raise ConfigError(f"{key}.memory_directory", where, f"can't hold {total:,} bytes ({error.strerror})") from error

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
