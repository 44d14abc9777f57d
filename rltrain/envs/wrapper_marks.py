"""Marks of what wrappers inside one copy of an environment hold: whether two copies, or one at two times, hold the same.

They find state that goes on from episode to episode and that an evaluation can't share, because the wrapper doesn't say what it
keeps (see `wrapper_states`). Gymnasium's own wrappers aren't looked at: what they keep is known.
"""

import hashlib
import random
import time
from collections import deque
from typing import Any

import numpy as np

from rltrain.envs.wrapper_states import layers, shares

Marks = dict[str, str]  # by wrapper and attribute, as in "Curriculum.level"
DEPTH = 4  # of lists, dicts and objects inside an attribute
NEAR = 60.0  # seconds between a clock now and a number for the number to be a time
WRAPPERS_OWN = {"env", "_action_space", "_observation_space", "_single_action_space", "_single_observation_space", "_metadata"}


class _Unseen(Exception):
    """Not data, or data that says nothing: a generator, a clock."""


def marks(env: Any) -> Marks:
    """Return a mark per attribute that is data, of every wrapper of somebody's own that doesn't say what it keeps."""
    found = {}
    for layer in layers(env)[:-1]:
        if type(layer).__module__.partition(".")[0] in ("gymnasium", "rltrain") or shares(layer):
            continue
        for name, value in vars(layer).items():
            if name in WRAPPERS_OWN:
                continue
            digest = hashlib.sha256()
            try:
                _digest(value, digest, DEPTH)
            except _Unseen:
                continue
            found[f"{type(layer).__name__}.{name.removeprefix('_')}"] = digest.hexdigest()
    return found


def _digest(value: Any, digest: Any, depth: int) -> None:
    if depth == 0 or callable(value) or isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
        raise _Unseen
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        if _is_time(value):
            raise _Unseen
        digest.update(f"{value!r} ".encode())
    elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
        digest.update(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
    elif isinstance(value, list | tuple | deque):
        digest.update(f"{len(value)} ".encode())
        for item in value:
            _digest(item, digest, depth - 1)
    elif isinstance(value, set | frozenset):
        _digest(sorted(map(repr, value)), digest, depth)
    elif isinstance(value, dict):
        _digest([*value.items()], digest, depth)
    elif type(value).__module__.partition(".")[0] != "gymnasium" and getattr(value, "__dict__", None):
        _digest(vars(value), digest, depth - 1)  # an object of somebody's own, as a class of running means
    else:
        raise _Unseen


def _is_time(value: Any) -> bool:
    """Tell whether this is what a clock shows about now."""
    if type(value) not in (int, float):
        return False
    clocks = (time.time(), time.monotonic(), time.perf_counter())
    return any(abs(value / scale - clock) < NEAR for clock in clocks for scale in (1, 1e9))
