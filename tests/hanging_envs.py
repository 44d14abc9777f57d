"""Environments that hang in a phase, in Python or in C code that holds the interpreter."""

import ctypes
import time
from typing import Any

import gymnasium
import numpy as np
from sample_envs import Counting


class Hanging(Counting):
    """Hangs in `phase`, in step number `when` of its life: sleep, deaf (to every exception), or held (the interpreter, by C)."""

    def __init__(self, how: str = "sleep", phase: str = "step", when: int = 3, render_mode: str | None = None) -> None:
        super().__init__(length=1000)
        self.how, self.phase, self.when, self.life = how, phase, when, 0
        self._perhaps("make")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, or hang."""
        self._perhaps("reset")
        return super().reset(seed=1000)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Count one step, or hang."""
        self.life += 1
        if self.life == self.when:
            self._perhaps("step")
        return super().step(action)

    def close(self) -> None:
        """Close, or hang."""
        self._perhaps("close")

    def _perhaps(self, phase: str) -> None:
        if phase != self.phase:
            return
        if self.how == "held":
            mutex, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)  # for ever; no signal interrupts it
        while self.how in ("sleep", "deaf"):
            try:
                time.sleep(1000)
            except BaseException:
                if self.how == "sleep":
                    raise


gymnasium.register("Hanging-v0", Hanging)
