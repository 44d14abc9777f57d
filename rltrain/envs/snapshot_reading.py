"""Values in a snapshot, read back from a tree as new values of the same kinds.

Nothing is looked up by name but dataclasses, named tuples and enums that are imported already, and no code of theirs runs.
"""

import collections
import dataclasses
import enum
import inspect
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.envs import snapshot_arrays

MISSING = object()
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (bool, dict, float, int, list, set, str, tuple)}
SEQUENCES: dict[str, type] = {"list": list, "deque": collections.deque}
MAPPINGS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
    "defaultdict": collections.defaultdict,
}


class Reader:
    """Turns nodes into values; `current` is what an environment that was made alike has there."""

    def __init__(self, data: Sequence[Any]) -> None:
        self.data = data  # what nodes refer to by its place in this list
        self.objects: dict[int, Any] = {}

    def read(self, node: Any, current: Any = MISSING) -> Any:
        """Return the value of a node."""
        if not isinstance(node, list):
            return node
        tag, *rest = node
        return getattr(self, f"_read_{'sequence' if tag in SEQUENCES else 'mapping' if tag in MAPPINGS else tag}")(
            current, *([tag] if tag in SEQUENCES or tag in MAPPINGS else []), *rest
        )

    def _read_kept(self, current: Any) -> Any:
        if current is MISSING:
            raise ValueError("the snapshot is of an environment that was made otherwise")
        return current

    def _read_drawing(self, current: Any) -> Any:
        return None if current is MISSING else current

    def _read_left(self, current: Any) -> Any:
        return current

    def _read_again(self, _: Any, number: int) -> Any:
        return self.objects[number]

    def _read_tuple(self, current: Any, items: list[Any]) -> Any:
        return tuple(self._items(items, current))

    def _read_named(self, current: Any, reference: str, items: list[Any]) -> Any:
        return tuple.__new__(find(reference), self._items(items, current))

    def _read_sequence(self, current: Any, tag: str, number: int, maxlen: int | None, items: list[Any]) -> Any:
        values: Any = collections.deque(maxlen=maxlen) if tag == "deque" else []
        self.objects[number] = values
        for item in self._items(items, current):
            values.append(item)
        return values

    def _items(self, items: list[Any], current: Any) -> Any:
        there = list(current) if isinstance(current, list | tuple | collections.deque) else []
        return [self.read(item, there[i] if i < len(there) else MISSING) for i, item in enumerate(items)]

    def _read_mapping(self, current: Any, tag: str, number: int, factory: str | None, pairs: list[Any]) -> Any:
        values: Any = (
            collections.defaultdict(None if factory is None else FACTORIES[factory]) if tag == "defaultdict" else MAPPINGS[tag]()
        )
        self.objects[number] = values
        for key_node, item in pairs:
            key = self.read(key_node)
            values[key] = self.read(item, current.get(key, MISSING) if isinstance(current, dict) else MISSING)
        return values

    def _read_set(self, _: Any, number: int) -> Any:
        self.objects[number] = set()
        return self.objects[number]

    def _read_array(self, _: Any, number: int, place: int, *rest: Any) -> Any:
        self.objects[number] = snapshot_arrays.read(self.data[place], *rest)
        return self.objects[number]

    def _read_view(self, _: Any, number: int, owner: Any, *rest: Any) -> Any:
        self.objects[number] = snapshot_arrays.read_view(self.read(owner), *rest)
        return self.objects[number]

    def _read_Generator(self, _: Any, number: int, bits: Any) -> Any:  # noqa: N802
        self.objects[number] = np.random.Generator(self.read(bits))
        return self.objects[number]

    def _read_BitGenerator(self, _: Any, number: int, name: str, state: int, sequence: Any) -> Any:  # noqa: N802
        if name not in BIT_GENERATORS:
            raise ValueError(f"{name}: no such generator")
        bits = getattr(np.random, name)(None if sequence is None else np.random.SeedSequence(**sequence))
        bits.state = self.data[state]
        self.objects[number] = bits
        return bits

    def _read_RandomState(self, _: Any, number: int, state: int) -> Any:  # noqa: N802
        generator = np.random.RandomState(0)
        generator.set_state(self.data[state])
        self.objects[number] = generator
        return generator

    def _read_Random(self, _: Any, number: int, version: int, numbers: int, gauss: float | None) -> Any:  # noqa: N802
        generator = random.Random()
        generator.setstate((version, tuple(int(n) for n in self.data[numbers]), gauss))
        self.objects[number] = generator
        return generator

    def _read_object(self, current: Any, number: int, reference: str, pairs: list[Any]) -> Any:
        value = object.__new__(find(reference))
        self.objects[number] = value
        for name, item in pairs:
            set_attribute(value, name, self.read(item, getattr(current, name, MISSING)))
        return value

    def _read_method(self, _: Any, owner: Any, name: str) -> Any:
        return getattr(self.read(owner), name)

    def _read_space(self, current: Any, generators: list[Any]) -> Any:
        for space, node in zip(parts(self._read_kept(current)), generators, strict=True):
            if node is not None:
                space._np_random = self.read(node)
        return current

    def _read_number(self, _: Any, dtype: str, value: Any) -> Any:
        return np.dtype(dtype).type(bytes.fromhex(value) if np.dtype(dtype).kind == "S" else value)

    def _read_dtype(self, _: Any, name: str) -> Any:
        return np.dtype(name)

    def _read_bytes(self, _: Any, text: str) -> Any:
        return bytes.fromhex(text)

    def _read_complex(self, _: Any, real: float, imaginary: float) -> Any:
        return complex(real, imaginary)

    def _read_range(self, _: Any, *limits: int) -> Any:
        return range(*limits)

    def _read_path(self, _: Any, text: str) -> Any:
        return Path(text)

    def _read_enum(self, _: Any, reference: str, name: str) -> Any:
        return find(reference).__members__[name]


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes that an object itself has, those in slots too."""
    found = dict(vars(value)) if hasattr(value, "__dict__") else {}
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def set_attribute(value: Any, name: str, item: Any) -> None:
    """Set an attribute, whatever the class would do about it."""
    if name in getattr(value, "__dict__", ()):
        vars(value)[name] = item
    else:
        object.__setattr__(value, name, item)


def parts(space: Any) -> list[Any]:
    """Return a space and those it consists of: each may have drawn from a generator of its own."""
    inner = getattr(space, "spaces", None)
    found = list(inner.values() if isinstance(inner, dict) else inner or ())
    found += [vars(space)[name] for name in ("feature_space", "node_space", "edge_space") if vars(space).get(name) is not None]
    return [space, *(part for item in found for part in parts(item))]


def generator_of(space: Any) -> np.random.Generator:
    """Return what a space itself draws from; unlike the space, this doesn't seed those that it consists of."""
    if space._np_random is None:
        space._np_random = np.random.default_rng()
    return space._np_random


def is_running_mean(kind: type) -> bool:
    """Tell whether a class is that of the statistics in Gymnasium's normalizing wrappers."""
    return kind.__name__ == "RunningMeanStd" and kind.__module__ == "gymnasium.wrappers.utils"


def reference(kind: type) -> str | None:
    """Return how `_find` finds a class, or None if it would not."""
    name = f"{'__main__' if kind.__module__ == '__mp_main__' else kind.__module__}:{kind.__qualname__}"
    try:
        return name if find(name) is kind else None
    except ValueError:
        return None


def find(reference: str) -> Any:
    """Return a class that is imported already.

    Raises ValueError if there is none, or one that isn't data by itself.
    """
    module, _, name = reference.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    named = inspect.isclass(found) and found.__bases__ == (tuple,) and hasattr(found, "_fields")
    if not inspect.isclass(found) or hasattr(found, "__del__"):
        raise ValueError(f"{reference}: no such class here")
    if not (named or issubclass(found, enum.Enum) or is_running_mean(found) or _is_plain_dataclass(found)):
        raise ValueError(f"{reference}: not a class of plain data")
    return found


def _is_plain_dataclass(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and all(cls is object or cls.__flags__ & 1 << 9 for cls in kind.__mro__)
