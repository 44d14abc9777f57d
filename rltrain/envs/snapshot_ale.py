"""The state of an Atari game in a snapshot: ALE's own, with its generator."""

import sys
from typing import Any

import numpy as np

ATTRIBUTES = ("ale", "_action_set")  # of an environment that emulates with ALE


def has_emulator(env: Any) -> bool:
    """Tell whether an environment emulates with ALE as its own do."""
    module = sys.modules.get("ale_py")
    return module is not None and isinstance(vars(env).get("ale"), module.ALEInterface)


def take(ale: Any) -> np.ndarray:
    """Return the emulator's state as bytes.

    Raises ValueError where ALE itself repeats actions, for it doesn't tell the last one. Before 0.12 it can't write its state.
    """
    if ale.getFloat("repeat_action_probability"):
        raise ValueError("which action would be repeated can't be read")
    return np.frombuffer(ale.cloneState(include_rng=True).serialize(), np.uint8)


def put(ale: Any, taken: np.ndarray) -> None:
    """Put that back; the screen is drawn with the next frame."""
    import ale_py

    ale.restoreState(ale_py.ALEState(taken.tobytes()))
