"""Arrays that the parent and its workers exchange at each timestep, in memory that all of them map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltrain.spaces import named
from rltrain.structures import Arrays
from rltrain.trainers.workers.shared import CONTEXT

DTYPES = [np.dtype(code) for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")]
CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
NONE = -1
ALIGNMENT = 64
FLAGS, TIMESTEP, TIMESTEPS, HEADS = range(4)
RECORD, ACT = 1, 2  # what a wake-up is about


@dataclass(frozen=True)
class Slot:
    """A place for one array of this shape; `itemsize` of the widest dtype that it may have."""

    shape: tuple[int, ...]
    itemsize: int = 8

    @property
    def size(self) -> int:
        """Bytes, up to the next slot."""
        return -(-max(1, int(np.prod(self.shape)) * self.itemsize) // ALIGNMENT) * ALIGNMENT


class Board:
    """Slots by name; an array, or None, is written by one process and read by others. Picklable to a process being started."""

    def __init__(self, slots: Mapping[str, Slot]) -> None:
        heads = -(-8 * (HEADS + len(slots)) // ALIGNMENT) * ALIGNMENT
        self._map(dict(slots), CONTEXT.RawArray("b", heads + sum(slot.size for slot in slots.values())))

    def _map(self, slots: dict[str, Slot], array: Any) -> None:
        self._slots, self._array = slots, array
        self._bytes = memoryview(array).cast("B")
        heads = -(-8 * (HEADS + len(slots)) // ALIGNMENT) * ALIGNMENT
        self._cells = self._bytes[:heads].cast("q")
        self._offsets: dict[str, int] = {}
        self._heads = {name: HEADS + i for i, name in enumerate(slots)}
        for name, slot in slots.items():
            self._offsets[name] = heads
            heads += slot.size
        self._views: dict[tuple[str, int], np.ndarray] = {}
        self._paths: dict[str, list[str]] = {}

    def __getstate__(self) -> Any:
        """Return what a new process maps."""
        return self._slots, self._array

    def __setstate__(self, state: Any) -> None:
        """Map the same memory."""
        self._map(*state)

    def call(self, flags: int, timestep: int, timesteps: int) -> None:
        """Say what the next wake-up is about."""
        self._cells[FLAGS], self._cells[TIMESTEP], self._cells[TIMESTEPS] = flags, timestep, timesteps

    def called(self) -> tuple[int, int, int]:
        """Return what a wake-up is about: flags, timestep, timesteps."""
        return self._cells[FLAGS], self._cells[TIMESTEP], self._cells[TIMESTEPS]

    def write(self, name: str, arrays: Arrays) -> None:
        """Write an array, a dict of arrays, or None."""
        if arrays is None:
            for full in self._names(name):
                self._cells[self._heads[full]] = NONE
            return
        for full, array in named(arrays, name).items():
            array = np.asarray(array)
            code = CODES[array.dtype]
            self._view(full, code)[...] = array
            self._cells[self._heads[full]] = code

    def read(self, name: str, rows: slice = slice(None)) -> Arrays:
        """Return a copy of some rows of what was written last."""
        found = {}
        for full in self._names(name):
            code = self._cells[self._heads[full]]
            if code != NONE:
                found[full] = self._view(full, code)[rows].copy()
        if name in found:
            return found[name]
        return {full.removeprefix(f"{name}/"): array for full, array in found.items()} or None

    def _names(self, name: str) -> list[str]:
        """Return the slots of an array, or of a dict of arrays."""
        if name not in self._paths:
            self._paths[name] = [full for full in self._slots if full == name or full.startswith(f"{name}/")]
        return self._paths[name]

    def _view(self, full: str, code: int) -> np.ndarray:
        view = self._views.get((full, code))
        if view is None:
            shape, dtype = self._slots[full].shape, DTYPES[code]
            if dtype.itemsize > self._slots[full].itemsize:
                raise ValueError(f"{full}: {dtype} where there was a narrower kind of number before")
            count = int(np.prod(shape))
            view = np.frombuffer(self._bytes, dtype, count, self._offsets[full]).reshape(shape)
            self._views[full, code] = view
        return view


def slots_like(arrays: Arrays, name: str) -> dict[str, Slot]:
    """Return slots for arrays like these, of whose dtype later ones are too."""
    if arrays is None:
        return {}
    found = {full: np.asarray(array) for full, array in named(arrays, name).items()}
    return {full: Slot(array.shape, array.dtype.itemsize) for full, array in found.items()}
