"""Arrays in a snapshot, to the bit and to the order in memory: sums over an array depend on that."""

from typing import Any

import numpy as np

KINDS = "biufcSUmM"


def owner(array: np.ndarray) -> np.ndarray | None:
    """Return the array whose memory `array` looks at, or None if that belongs to something else that may write there."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    foreign = array.base is not None and not (isinstance(array.base, bytes) and not array.flags.writeable)
    return None if foreign or type(array) is not np.ndarray else array


def write(array: np.ndarray) -> list[Any] | None:
    """Return an array that owns its memory as numbers and what `read` needs besides, or None for one of objects."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    plain = array.transpose(axes)
    if array.dtype.kind not in KINDS or not array.dtype.itemsize or not plain.flags.c_contiguous:
        return None
    kept = np.array(plain, order="C")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or not array.dtype.isnative:
        kept = np.frombuffer(kept.tobytes(), np.uint8)
    return [kept, array.dtype.str, list(plain.shape), axes, array.flags.writeable]


def read(kept: Any, dtype: str, shape: list[int], axes: list[int], writeable: bool) -> np.ndarray:
    """Return what `write` was given."""
    plain = np.ndarray(tuple(shape), np.dtype(dtype), kept.tobytes()).copy()
    array = plain if axes == sorted(axes) else plain.transpose(np.argsort(axes))
    array.flags.writeable = writeable
    return array


def write_view(view: np.ndarray, whole: np.ndarray, node: Any, number: int) -> Any:
    """Return the node of an array that looks at the memory of another, whose node is given, or None if it can't be written."""
    if view.dtype.kind not in KINDS or view.flags.writeable > whole.flags.writeable:
        return None
    offset = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return ["view", number, node, view.dtype.str, offset, list(view.shape), list(view.strides), view.flags.writeable]


def read_view(whole: np.ndarray, dtype: str, offset: int, shape: list[int], strides: list[int], writeable: bool) -> np.ndarray:
    """Return an array that looks at the memory of another; NumPy refuses what would leave it."""
    buffer: Any = whole if whole.base is None else whole.base
    view = np.ndarray(tuple(shape), np.dtype(dtype), buffer, offset, tuple(strides))
    view.flags.writeable = writeable
    return view


def comparable(node: Any) -> Any:
    """Return a node in a form whose equality is that of all bits."""
    if isinstance(node, list | tuple):
        return tuple(map(comparable, node))
    if isinstance(node, dict):
        return tuple((key, comparable(value)) for key, value in node.items())
    if isinstance(node, np.ndarray):
        return node.dtype.str, node.shape, node.tobytes()
    return type(node).__name__, repr(node)
