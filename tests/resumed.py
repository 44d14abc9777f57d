"""Resumed = uninterrupted, within one process."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rltrain.checkpoints import decode, encode
from rltrain.trainers import SequentialTrainer


def kept(trainer: SequentialTrainer) -> dict[str, Any]:
    """Return everything a trainer keeps, as it comes back from a checkpoint, without what depends on the clock."""
    parts, exact = trainer.snapshot()
    assert exact
    parts["trainer"]["training_seconds"] = 0.0
    arrays: dict[str, np.ndarray] = {}
    plain = encode(parts, arrays)
    return decode(plain, arrays)


def resumed(start: Callable[[int], SequentialTrainer], timesteps: int, stop: int) -> SequentialTrainer:
    """Train to the end at once and with a stop, compare to the bit, and return the trainer that never stopped.

    `start` makes a trainer of so many timesteps, the same one each time.
    """
    whole, first, second = start(timesteps), start(stop), start(timesteps)
    first.horizon = timesteps
    whole.train()
    first.train()
    second.restore(kept(first))
    second.train()
    np.testing.assert_equal(kept(second), kept(whole))
    assert second.timestep == timesteps
    return whole
