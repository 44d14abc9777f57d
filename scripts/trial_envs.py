"""Environments of the fault trials: they fail when a variable of the process tells them to, so that settings stay the same.

FAULT="phase:count:what": call number `count` (from 1) of `phase` (make, reset, step or close) of the copies does `what`.
"""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

RAISED = {
    "RuntimeError": RuntimeError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError,
    "StopIteration": StopIteration, "EOFError": EOFError, "TimeoutError": TimeoutError, "AssertionError": AssertionError,
}  # fmt: skip
WRONG = ("nan", "inf", "shape", "reward_none", "reward_array", "infos_none", "four", "dtype_list", "flag_none")  # of a step


class Armed:
    """Obeys FAULT before it does what the environment does; mixed into an environment."""

    def __init__(self, **kwargs: Any) -> None:
        self.calls = {"reset": 0, "step": 0, "close": 0}
        self._obey("make", 1)
        super().__init__(**kwargs)

    def reset(self, **kwargs: Any) -> Any:
        """Begin an episode, or fail."""
        self._count("reset")
        return super().reset(**kwargs)  # type: ignore[misc]

    def step(self, action: Any) -> Any:
        """Take a step, fail, or answer wrongly."""
        what = self._count("step")
        observation, reward, terminated, truncated, infos = super().step(action)  # type: ignore[misc]
        answers = {
            "nan": (np.full_like(observation, np.nan), reward, terminated, truncated, infos),
            "inf": (observation, float("inf"), terminated, truncated, infos),
            "shape": (observation[:-1], reward, terminated, truncated, infos),
            "reward_none": (observation, None, terminated, truncated, infos),
            "reward_array": (observation, np.array([1.0, 2.0]), terminated, truncated, infos),
            "infos_none": (observation, reward, terminated, truncated, None),
            "four": (observation, reward, terminated, infos),
            "dtype_list": ("nonsense", reward, terminated, truncated, infos),
            "flag_none": (observation, reward, None, truncated, infos),
        }
        return answers.get(what, (observation, reward, terminated, truncated, infos))

    def close(self) -> None:
        """Close, or fail."""
        self._count("close")
        super().close()  # type: ignore[misc]

    def _count(self, phase: str) -> str:
        self.calls[phase] += 1
        return self._obey(phase, self.calls[phase])

    def _obey(self, phase: str, count: int) -> str:
        where, wanted, what = os.environ.get("FAULT", "never:0:nothing").split(":")
        if (where, int(wanted)) != (phase, count):
            return ""
        if what in RAISED:
            raise RAISED[what](0 if what == "SystemExit" else "armed")
        return what


class ArmedCartPole(Armed, CartPoleEnv):
    """CartPole."""


class ArmedPendulum(Armed, PendulumEnv):
    """Pendulum."""


gymnasium.register("ArmedCartPole-v0", ArmedCartPole, max_episode_steps=60)
gymnasium.register("ArmedPendulum-v0", ArmedPendulum, max_episode_steps=60)
