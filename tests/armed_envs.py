"""CartPole that fails when told to by an environment variable, so that a resumed run has the very same configuration."""

import multiprocessing
import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


class Armed(CartPoleEnv):
    """Obeys ARMED="phase:count:what ...": in call number `count` (from 1) of `phase`, `what`: raise, kill or hang.

    ARMED_IN=workers: only in processes that another one has started. Rewards are multiplied by `scale` from step `scale_from` on.
    """

    def __init__(self, scale: float = 1.0, scale_from: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.scale_from = scale, scale_from
        self.calls = {"step": 0, "reset": 0, "close": 0}

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        self._obey("reset")
        return super().reset(**kwargs)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go one step."""
        self._obey("step")
        observation, reward, *rest = super().step(action)
        return observation, reward * self.scale if self.calls["step"] > self.scale_from else reward, *rest

    def close(self) -> None:
        """Close."""
        self._obey("close")
        super().close()

    def _obey(self, phase: str) -> None:
        if os.environ.get("ARMED_IN") == "workers" and multiprocessing.parent_process() is None:
            return
        self.calls[phase] += 1
        for order in os.environ.get("ARMED", "").split():
            where, count, what = order.split(":")
            if where == phase and int(count) == self.calls[phase]:
                if what == "raise":
                    raise RuntimeError(f"armed in {phase}")
                if what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(1000)


gymnasium.register("Armed-v0", Armed)
