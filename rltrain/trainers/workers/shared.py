"""Memory that parent and workers share: where each worker stands, and what it is doing.

It is of multiprocessing's RawArray: a file that is unlinked before anybody writes to it, so that the kernel frees it with the
last process that maps it, however that ends. Nothing is ever left in /dev/shm.
"""

import multiprocessing
import os
import tempfile
from multiprocessing import reduction
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")

WAIT = "wait"  # for others: the only phase in which silence is no fault
PHASES = (
    "start",
    "make",
    "restore",
    "reset",
    "pre_interaction",
    "act",
    "env.step",
    "record_transition",
    "post_interaction",
    "env.reset_done",
    "evaluate",
    "send",
    "close",
    WAIT,
)
NUMBER = {phase: number for number, phase in enumerate(PHASES)}
ROW = 8  # cells of 8 bytes each: a row is a cache line
TIMESTEP, BEAT, PHASE = range(3)


class Pulse:
    """One row per worker, (timestep, beat, phase), and whether all should stop. Picklable to a process that is being started."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._map(CONTEXT.RawArray("q", ROW * (workers + 1)))

    def _map(self, array: Any) -> None:
        self._array = array
        self._cells = memoryview(array).cast("B").cast("q")

    def __getstate__(self) -> Any:
        """Return what a new process maps."""
        return self.workers, self._array

    def __setstate__(self, state: Any) -> None:
        """Map the same memory."""
        self.workers = state[0]
        self._map(state[1])

    @property
    def stop(self) -> int:
        """The signal that all should stop for, or 0."""
        return self._cells[0]

    @stop.setter
    def stop(self, number: int) -> None:
        self._cells[0] = number

    def enter(self, worker: int, phase: str) -> None:
        """Say what this worker does from now on."""
        row = ROW * (worker + 1)
        self._cells[row + PHASE] = NUMBER[phase]
        self._cells[row + BEAT] += 1

    def reach(self, worker: int, timestep: int) -> None:
        """Say how many timesteps this worker has made."""
        self._cells[ROW * (worker + 1) + TIMESTEP] = timestep

    def timestep(self, worker: int) -> int:
        """Return how many timesteps a worker has made."""
        return self._cells[ROW * (worker + 1) + TIMESTEP]

    def slowest(self) -> int:
        """Return the fewest timesteps that a worker has made."""
        return min(self._cells[ROW * (i + 1)] for i in range(self.workers))

    def beat(self, worker: int) -> int:
        """Return a number that is another one at each sign of life."""
        return self._cells[ROW * (worker + 1) + BEAT]

    def phase(self, worker: int) -> str:
        """Return what a worker is doing."""
        return PHASES[self._cells[ROW * (worker + 1) + PHASE]]


class Stacks:
    """An unlinked file that a worker's stack is written to when it crashes or is asked where it hangs."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.file: Any = tempfile.TemporaryFile() if descriptor is None else os.fdopen(descriptor, "wb")  # noqa: SIM115

    def __reduce__(self) -> Any:
        """Hand the open file to a process that is being started."""
        return _reopen, (reduction.DupFd(self.file.fileno()),)

    def read(self) -> str:
        """Return what was written."""
        size = os.fstat(self.file.fileno()).st_size
        return os.pread(self.file.fileno(), size, 0).decode(errors="replace").strip()


def _reopen(duplicate: Any) -> Stacks:
    return Stacks(duplicate.detach())
