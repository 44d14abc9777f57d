"""Values in a snapshot: written as a tree of arrays and plain data.

A node is None, a bool, int, float or str as it is; else a list [tag, ...]. What can change has a number, by which later nodes
refer to it: two names of one list stay two names of one list.
"""

import collections
import dataclasses
import enum
import functools
import inspect
import logging
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.confidential import is_held
from rltrain.envs import snapshot_arrays
from rltrain.envs.snapshot_reading import (
    BIT_GENERATORS,
    FACTORIES,
    MAPPINGS,
    SEQUENCES,
    attributes,
    generator_of,
    is_running_mean,
    parts,
    reference,
)

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
STATELESS_MODULES = ("math", "numpy", "jax", "jax.numpy", "cv2")  # others might keep state of their own
UNCHANGING = (functools.partial, np.ufunc, set, frozenset)  # besides routines and classes; sets as long as they are found so
LARGEST = 10_000  # bits of an int


class Unknown(Exception):
    """Something that might keep state, and isn't data."""


class Writer:
    """Turns values into nodes; a subclass says what becomes of those that aren't data."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}  # of what can change, by identity
        self.held: list[Any] = []  # so that no identity is given twice
        self.data: list[Any] = []  # arrays, and what is data already; a node has their place in this list
        self.places: set[int] = set()  # wrappers and environments among them
        self.watched: set[int] = set()  # what functions hold: if that is data too, it would be two things when put back

    def constant(self, value: Any, path: str) -> Any:
        """Return the node of a function, class, space or the like."""
        return self.unknown(value, path)

    def space_generator(self, space: Any, path: str) -> Any:
        """Return the node of what a space draws from."""
        return self.write(generator_of(space), path)

    def unknown(self, value: Any, path: str) -> Any:
        """Give up."""
        raise Unknown(f"{path}: {type(value).__name__}")

    def number(self, value: Any) -> int:
        """Return a new number for `value`."""
        self.held.append(value)
        return self.numbers.setdefault(id(value), len(self.numbers))

    def keep(self, data: Any) -> int:
        """Return the place of arrays or plain data that need no node."""
        self.data.append(data)
        return len(self.data) - 1

    def write(self, value: Any, path: str) -> Any:
        """Return the node of `value`."""
        from gymnasium.envs.registration import EnvSpec

        kind = type(value)
        if isinstance(value, str | bytes | np.ndarray) and is_held(value):
            return self.unknown(value, path)
        if value is None or kind in (bool, float, str) or (kind is int and value.bit_length() <= LARGEST):
            return value
        if id(value) in self.numbers:
            return ["again", self.numbers[id(value)]]
        if kind is tuple:
            return ["tuple", self._items(value, path)]
        if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
            return [kind.__name__, self.number(value), getattr(value, "maxlen", None), self._items(value, path)]
        if kind.__name__ in MAPPINGS and kind is MAPPINGS[kind.__name__]:
            return self._mapping(value, path)
        if kind is np.ndarray:
            return self._array(value, path)
        if isinstance(value, (*GENERATORS, np.random.BitGenerator)):
            return self._generator(value, path)
        if isinstance(value, logging.Logger | EnvSpec):
            return ["kept"]
        if (dataclasses.is_dataclass(value) and not inspect.isclass(value)) or is_running_mean(kind):
            return self._object(value, path)
        if isinstance(value, tuple) and reference(kind):
            return ["named", reference(kind), self._items(value, path)]
        node = _immutable(value, kind)
        return self._rest(value, path) if node is None else node

    def fingerprint(self, value: Any) -> Any:
        """Return what changes where a value that isn't data changes, or None if that can't be told."""
        try:
            inside = _Fingerprint(self)
            return snapshot_arrays.comparable([inside.look(value), inside.data])
        except (Unknown, RecursionError, ValueError):  # the last for a closure that isn't filled yet
            return None

    def _items(self, values: Any, path: str) -> list[Any]:
        return [self.write(item, f"{path}/{i}") for i, item in enumerate(values)]

    def _mapping(self, value: Any, path: str) -> Any:
        number = self.number(value)
        factory = None
        if isinstance(value, collections.defaultdict) and value.default_factory is not None:
            factory = value.default_factory.__name__ if inspect.isclass(value.default_factory) else ""
            if FACTORIES.get(factory) is not value.default_factory:
                return self.unknown(value, path)
        pairs = [[self.write(key, f"{path}//key"), self.write(item, f"{path}/{key!r}")] for key, item in value.items()]
        return [type(value).__name__, number, factory, pairs]

    def _array(self, value: np.ndarray, path: str) -> Any:
        owner = snapshot_arrays.owner(value)
        if owner is None:
            return self.unknown(value, path)
        known = self.numbers.get(id(owner))
        node: Any = None if known is None else ["again", known]
        if known is None and (written := snapshot_arrays.write(owner)):
            node = ["array", self.number(owner), self.keep(written[0]), *written[1:]]
        if node is not None and owner is not value:
            node = snapshot_arrays.write_view(value, owner, node, self.number(value))
        return self.unknown(value, path) if node is None else node

    def _generator(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is np.random.Generator:
            return ["Generator", self.number(value), self.write(value.bit_generator, path)]
        if kind is np.random.RandomState and value is not np.random.mtrand._rand:
            state = value.get_state(legacy=False)
            if state["bit_generator"] == "MT19937":
                return ["RandomState", self.number(value), self.keep(state)]
        if kind is random.Random and value is not getattr(random, "_inst", None):
            version, numbers, gauss = value.getstate()
            return ["Random", self.number(value), version, self.keep(np.array(numbers, np.uint64)), gauss]
        if kind.__name__ in BIT_GENERATORS and kind is getattr(np.random, kind.__name__):
            state = self.keep(value.state)
            return ["BitGenerator", self.number(value), kind.__name__, state, _seed_sequence(value.seed_seq)]
        return self.unknown(value, path)

    def _object(self, value: Any, path: str) -> Any:
        name = reference(type(value))
        if name is None:
            return self.unknown(value, path)
        number = self.number(value)
        return ["object", number, name, [[n, self.write(v, f"{path}/{n}")] for n, v in attributes(value).items()]]

    def _rest(self, value: Any, path: str) -> Any:
        """Return the node of what isn't data by itself."""
        from gymnasium import Space

        if isinstance(value, set) and type(value) is set and not value and sys.getsizeof(value) == sys.getsizeof(set()):
            return ["set", self.number(value)]  # others have an order that depends on how they came about
        if isinstance(value, Space):
            self.constant(value, path)
            return ["space", [self.space_generator(part, f"{path}//{i}") for i, part in enumerate(parts(value))]]
        if isinstance(value, types.MethodType | types.BuiltinMethodType) and not inspect.ismodule(value.__self__):
            owner, name = value.__self__, value.__name__
            known = isinstance(owner, GENERATORS) or id(owner) in self.numbers
            if known and not inspect.isclass(owner) and getattr(owner, name, None) == value:
                return ["method", self.write(owner, path), name]
        if inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, UNCHANGING):
            return self.constant(value, path)
        if inspect.ismodule(value) and value.__name__ in STATELESS_MODULES:
            return self.constant(value, path)
        return self.unknown(value, path)


class _Fingerprint(Writer):
    """Writes what a function, class or set holds; others among them by identity alone."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.places, self.watched, self.held = writer.places, writer.watched, writer.held

    def number(self, value: Any) -> int:
        """Watch what can change."""
        self.watched.add(id(value))
        return super().number(value)

    def look(self, value: Any) -> Any:
        """Return a node of what is in `value`."""
        from gymnasium import Space

        if isinstance(value, set | frozenset):
            return [sys.getsizeof(value), [self.write(item, "") for item in value]]
        if isinstance(value, functools.partial):
            return [self.write(part, "") for part in (value.func, value.args, value.keywords)]
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return [self.write(part, "") for part in (*cells, value.__defaults__, value.__kwdefaults__, vars(value))]
        if isinstance(value, types.MethodType):
            return [self.write(part, "") for part in (value.__self__, value.__func__)]
        owner = value.__self__ if isinstance(value, types.BuiltinFunctionType) else None
        if owner is not None and not inspect.ismodule(owner) and not inspect.isclass(owner):
            return self.unknown(value, "")
        if isinstance(value, Space) or inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
            return []
        return self.write(value, "")

    def write(self, value: Any, path: str) -> Any:
        """Return the node of a value; a place stays."""
        return ["place", id(value)] if id(value) in self.places else super().write(value, path)

    def space_generator(self, space: Any, path: str) -> Any:
        """Return the state alone: the space stays."""
        return snapshot_arrays.comparable(generator_of(space).bit_generator.state)

    def constant(self, value: Any, path: str) -> Any:
        """Return who it is and what it holds."""
        self.number(value)
        return ["is", id(value), self.look(value)]


def may_change(value: Any) -> bool:
    """Tell whether a class that has this attribute might use it to keep state."""
    from gymnasium import Space

    plain = (bool, float, int, str, list, dict, set, tuple, collections.deque, np.ndarray, Space, *GENERATORS)
    return value is None or isinstance(value, plain)


def is_same(one: Any, other: Any) -> bool:
    """Tell whether what isn't data is still what it was; methods and spaces may be made again."""
    from gymnasium import Space

    return one is other or (isinstance(one, types.MethodType | Space) and bool(one == other))


def is_drawing(value: Any) -> bool:
    """Tell whether a value is for pictures alone: windows, surfaces, clocks, fonts, or several."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_drawing, value))
    return type(value).__module__.split(".")[0] in ("pygame", "pygame_ce")


def _immutable(value: Any, kind: type) -> Any:
    """Return the node of a value that can't change, or None."""
    if isinstance(value, np.generic):
        return _number(value, kind)
    if isinstance(value, np.dtype):
        return None if value.hasobject or np.dtype(value.str) != value else ["dtype", value.str]
    if isinstance(value, enum.Enum):
        where = reference(type(value))
        return None if where is None or type(value).__members__.get(value.name) is not value else ["enum", where, value.name]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", value.start, value.stop, value.step]
    return ["path", str(value)] if kind is type(Path()) else None


def _number(value: Any, kind: type) -> Any:
    dtype = value.dtype
    if np.dtype(dtype.str).type is not kind or (dtype.kind == "f" and dtype.itemsize > 8):
        return None
    readers: dict[str, Any] = {"b": bool, "i": int, "u": int, "f": float, "S": bytes.hex, "U": str}
    read = readers.get(dtype.kind)
    return None if read is None else ["number", dtype.str, read(value)]


def _seed_sequence(sequence: Any) -> dict[str, Any] | None:
    """Return what `spawn` goes by."""
    if type(sequence) is not np.random.SeedSequence:
        return None
    names = ("entropy", "spawn_key", "pool_size", "n_children_spawned")
    found = {name: getattr(sequence, name) for name in names}
    sequences = (list, tuple, np.ndarray)
    return {name: [int(i) for i in value] if isinstance(value, sequences) else value for name, value in found.items()}
