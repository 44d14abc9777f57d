"""Trees of arrays and plain data, and the form in which a file holds one: safetensors, the plain data in its header."""

import errno
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rltrain.files import Hashing

MAX_HEADER_BYTES = 2**30
_TYPES = {
    "BOOL": "bool",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}


_NAMES = {np.dtype(kind).str: name for name, kind in _TYPES.items()}


def encode(tree: Any, arrays: dict[str, np.ndarray], path: str = "", *, copies: bool = True) -> Any:
    """Return `tree` as JSON data; its arrays are put into `arrays` by path, as copies or as they are.

    Tuples, dtypes of scalars and int keys come back exactly.

    Raises TypeError for what is neither an array of numbers nor plain data.
    """
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, np.ndarray | np.generic):
        if tree.dtype.newbyteorder("<").str not in _NAMES:
            raise TypeError(f"{path}: an array of {tree.dtype} can't be kept")
        while path in arrays:  # {"a/b": x, "a": {"b": y}}
            path += "'"
        arrays[path] = np.array(tree, tree.dtype.newbyteorder("<"), order="C", copy=True if copies else None)
        return {"$array": path} if isinstance(tree, np.ndarray) else {"$scalar": path}
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return {key: encode(value, arrays, f"{path}/{key}" if path else key, copies=copies) for key, value in tree.items()}
        return {
            "$items": [
                [_encode_key(k, path), encode(v, arrays, f"{path}/{i}", copies=copies)] for i, (k, v) in enumerate(tree.items())
            ]
        }
    if isinstance(tree, list | tuple):
        items = [encode(value, arrays, f"{path}/{i}", copies=copies) for i, value in enumerate(tree)]
        return items if isinstance(tree, list) else {"$tuple": items}
    raise TypeError(f"{path}: {type(tree).__name__} is neither an array nor plain data")


def _encode_key(key: Any, path: str) -> Any:
    arrays: dict[str, np.ndarray] = {}
    plain = encode(key, arrays, path)
    if arrays:
        raise TypeError(f"{path}: a key is {type(key).__name__}; keys are plain data")
    return plain


def decode(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `encode` was given."""
    if isinstance(tree, list):
        return [decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        (tag, value), *_ = tree.items()
        if tag == "$array":
            return arrays[value]
        if tag == "$scalar":
            return arrays[value][()]
        if tag == "$tuple":
            return tuple(decode(item, arrays) for item in value)
        if tag == "$items":
            return {decode(key, arrays): decode(item, arrays) for key, item in value}
    return {key: decode(value, arrays) for key, value in tree.items()}


def tree_sha256(tree: Any) -> str:
    """Return the hash of all arrays in a tree: sorted names with dtype, shape and bytes."""
    arrays: dict[str, np.ndarray] = {}
    encode(tree, arrays)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def pack(tree: Any) -> bytes:
    """Return a tree as the bytes of a file."""
    return b"".join(pieces(tree))


def pieces(tree: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file in safetensors' form, an array at a time: whole, a replay memory would be here several times."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(encode(tree, arrays, copies=False))
    if len(text) > MAX_HEADER_BYTES // 2:  # escaped once more it must not grow beyond what is read
        raise OSError(errno.EFBIG, f"more than {MAX_HEADER_BYTES // 2:,} bytes of plain data")
    header: dict[str, Any] = {"__metadata__": {"tree": text}}
    end = 0
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))  # each is aligned then
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": [start, end]}
    first = json.dumps(header, separators=(",", ":")).encode()
    first += b" " * (-len(first) % 8)
    yield len(first).to_bytes(8, "little") + first
    for _, array in ordered:
        yield array.reshape(-1).view(np.uint8).data


def unpack(source: Hashing, size: int) -> Any:
    """Return the tree that a file of `size` bytes holds, read once; raises anything where it isn't one.

    Arrays get room only where the header, the sizes in it and that of the file agree.
    """
    prefix = bytearray(8)
    source.fill(prefix)
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise ValueError(f"a header of {length:,} bytes")
    text = bytearray(length)
    source.fill(text)
    header = json.loads(text, object_pairs_hook=without_repeats)
    del text
    plain = json.loads(header.pop("__metadata__")["tree"], object_pairs_hook=without_repeats)
    arrays, end = {}, 0
    parts = sorted((*entry["data_offsets"], name, _form(entry)) for name, entry in header.items())
    for start, stop, name, (dtype, shape) in parts:  # before room is made for any
        if start != end or stop - start != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{name!r} does not lie where it should")
        end = stop
    if end != size - 8 - length:
        raise ValueError(f"{size - 8 - length:,} bytes of arrays, {end:,} in the header")
    for _, _, name, (dtype, shape) in parts:
        arrays[name] = np.empty(shape, dtype)
        source.fill(arrays[name].reshape(-1).view(np.uint8))
    return decode(plain, arrays)


def _form(entry: Any) -> tuple[np.dtype, tuple[int, ...]]:
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if any(type(count) is not int or count < 0 for count in (*shape, *entry["data_offsets"])):
        raise ValueError("a shape or offset that is none")
    return dtype, shape


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; raises ValueError if a key stands there twice, which readers take differently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
