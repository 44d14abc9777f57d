"""An environment that sends a signal to the process that trains."""

import os
from typing import Any

import numpy as np
from sample_envs import Counting


class Sender(Counting):
    """Sends signal `number`, 0 for none, to process `pid` in the tenth step of its life, if it was first reset with `seed`."""

    def __init__(self, pid: int, number: int, seed: int) -> None:
        super().__init__(length=7)
        self.pid, self.number, self.seed, self.first_seed, self.life = pid, number, seed, None, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode of seven steps."""
        self.first_seed = self.first_seed or seed
        return super().reset(seed=7, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Count one step."""
        self.life += 1
        if self.life == 10 and self.first_seed == self.seed:
            os.kill(self.pid, self.number)
        return super().step(action)
