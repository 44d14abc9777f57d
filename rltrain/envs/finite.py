"""Looks for NaN and infinity in what an environment gives; a sum tells whether there is any, at a fraction of the cost."""

import math

import numpy as np

from rltrain.spaces import named
from rltrain.structures import Arrays


def is_finite(arrays: Arrays) -> bool:
    """Tell whether no number is NaN or infinite; rarely, numbers so large that their sum overflows are taken for such."""
    if not isinstance(arrays, dict):
        return arrays.dtype.kind != "f" or math.isfinite(arrays.sum())
    return all(is_finite(array) for array in arrays.values())


def bad_rows(arrays: Arrays, rows: int) -> np.ndarray:
    """Return which rows (N,) hold NaN or infinity."""
    bad = np.zeros(rows, bool)
    for array in arrays.values() if isinstance(arrays, dict) else (arrays,):
        if array.dtype.kind == "f":
            bad |= ~np.isfinite(array).reshape(rows, -1).all(axis=1)
    return bad


def first_bad(arrays: Arrays, name: str) -> tuple[str, int, np.ndarray] | None:
    """Return (full name, row, that row's values) of the first NaN or infinity, or None."""
    for key, array in named(arrays, name).items():
        bad = bad_rows(array, len(array))
        if bad.any():
            row = int(np.argmax(bad))
            return key, row, array[row]
    return None
