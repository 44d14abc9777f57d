"""Environments whose every number is known beforehand, and some that fail on purpose; made by id, `sample_envs:Name-v0`."""

import multiprocessing
import os
import signal
import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

BROKEN = "broken on purpose"


class Counting(gymnasium.Env):
    """Observation (steps in this episode, number of the episode, its length); reward = the step's number, from 1.

    The seed of `reset` is the length of its episodes, so a test chooses each copy's.
    """

    observation_space = spaces.Box(-1, 1e6, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, end: str = "terminated", length: int = 3, render_mode: str | None = None) -> None:
        self.end, self.length, self.render_mode = end, length, render_mode
        self.steps = self.episodes = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin the next episode."""
        self.length = seed or self.length
        self.steps, self.episodes = 0, self.episodes + 1
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Count one step."""
        self.steps += 1
        over = self.steps >= self.length
        return self._observe(), float(self.steps), over and self.end != "truncated", over and self.end != "terminated", {}

    def _observe(self) -> np.ndarray:
        return np.array([self.steps, self.episodes, self.length], np.float32)


class CountingVector(VectorEnv):
    """`Counting` in lengths given beforehand, as a native vector environment; it reuses one buffer for its observations."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self, num_envs: int = 1, lengths: tuple[int, ...] = (2, 3), end: str = "terminated", mode: str = "NextStep",
        obeys_mask: bool = True, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.num_envs, self.end, self.render_mode, self.obeys_mask = num_envs, end, render_mode, obeys_mask
        self.metadata = {"autoreset_mode": AutoresetMode(mode)}
        self.lengths = np.resize(lengths, num_envs)
        self.single_observation_space, self.single_action_space = Counting.observation_space, Counting.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.steps, self.episodes = np.zeros(num_envs), np.zeros(num_envs)
        self.over = np.zeros(num_envs, bool)
        self.buffer = np.zeros((num_envs, 3), np.float32)

    def reset(self, *, seed: Any = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin the next episode where the mask says, everywhere without one."""
        mask = (options or {}).get("reset_mask") if self.obeys_mask else None
        self._restart(np.ones(self.num_envs, bool) if mask is None else mask)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Count one step; the copies that ended before begin an episode instead, if the mode is NEXT_STEP."""
        dummy = self.over.copy() if self.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP else np.zeros_like(self.over)
        self.steps += ~dummy
        self._restart(dummy)
        self.over = (self.steps >= self.lengths) & ~dummy
        none = np.zeros_like(self.over)
        rewards = np.where(dummy, 0.0, self.steps)
        terminated, truncated = (none if self.end == kind else self.over.copy() for kind in ("truncated", "terminated"))
        return self._observe(), rewards, terminated, truncated, {}

    def _restart(self, copies: np.ndarray) -> None:
        self.steps[copies], self.over[copies] = 0, False
        self.episodes[copies] += 1

    def _observe(self) -> np.ndarray:
        self.buffer[:] = np.stack([self.steps, self.episodes, self.lengths], 1)
        return self.buffer


class Constant(gymnasium.Env):
    """Reward 1 at every step, no end but the time limit; the observation is 1 at even times, -1 at odd ones."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    LIMIT = 10

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Earn 1."""
        self.steps += 1
        return self._observe(), 1.0, False, self.steps >= self.LIMIT, {}

    def _observe(self) -> np.ndarray:
        return np.array([1 - 2 * (self.steps % 2)], np.float32)


class ConstantVector(VectorEnv):
    """`Constant` as a native vector environment that resets its copies in the step after the last (NEXT_STEP, reward 0)."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, render_mode: str | None = None) -> None:
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space, self.single_action_space = Constant.observation_space, Constant.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.steps = np.zeros(num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode in every copy; copy i stands i steps into it, so that copies end at different times."""
        self.steps = np.arange(self.num_envs) % Constant.LIMIT
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Earn 1, or 0 in a row that only resets."""
        dummy = self.steps >= Constant.LIMIT
        self.steps = np.where(dummy, 0, self.steps + 1)
        return self._observe(), np.where(dummy, 0.0, 1.0), np.zeros_like(dummy), self.steps >= Constant.LIMIT, {}

    def _observe(self) -> np.ndarray:
        return (1 - 2 * (self.steps[:, None] % 2)).astype(np.float32)


class Faulty(Counting):
    """Does `what` in `phase`, in step number `when` of the environment's life; only in the copy seeded `victim`, if given."""

    def __init__(self, what: str = "raise", phase: str = "step", when: int = 2, victim: int | None = None, **kwargs: Any) -> None:
        super().__init__(length=1000, **kwargs)
        self.what, self.phase, self.when, self.victim = what, phase, when, victim
        self.life, self.seed = 0, None
        self._perhaps("make")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode, or fail."""
        self.seed = self.seed if seed is None else seed
        observation, infos = super().reset(seed=1000, options=options)
        return self._spoil(observation, "reset"), infos

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Count one step, or fail."""
        self.life += 1
        observation, reward, terminated, truncated, infos = super().step(action)
        if self.life < self.when:
            return observation, reward, terminated, truncated, infos
        observation = self._spoil(observation, "step")
        if self.what.endswith("_reward") and self._is_victim():
            reward = {"nan_reward": np.nan, "inf_reward": -np.inf}[self.what]
        return observation, reward, terminated, truncated, infos

    def close(self) -> None:
        """Close, or fail."""
        self._perhaps("close")

    def _spoil(self, observation: np.ndarray, phase: str) -> np.ndarray:
        self._perhaps(phase)
        if self.phase == phase and self._is_victim():
            if self.what == "nan_observation":
                observation[1] = np.nan
            elif self.what == "wrong_shape":
                return observation[:1]
            elif self.what == "wrong_dtype":
                return observation.astype(np.float64)
            elif self.what == "wrong_kind":
                return observation.tolist()
        return observation

    def _is_victim(self) -> bool:
        return self.victim is None or self.seed == self.victim

    def _perhaps(self, phase: str) -> None:
        if phase != self.phase or not self._is_victim():
            return
        if self.what == "raise":
            raise RuntimeError(BROKEN)
        if self.what == "hang":
            threading.Event().wait()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


class Opaque(Counting):
    """Keeps an object that nobody knows how to save."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.simulator = object()


class SpeaksForItself(Opaque):
    """Keeps such an object, and saves itself."""

    def snapshot(self) -> dict[str, Any]:
        """Return the counters."""
        return {"counters": [self.steps, self.episodes, self.length]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put the counters back."""
        self.steps, self.episodes, self.length = snapshot["counters"]


class BrokenInWorker(Counting):
    """Can't be made in the process of copy 1."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if multiprocessing.current_process().name.endswith("-1"):
            raise RuntimeError(BROKEN)


class BrokenSecond(Counting):
    """Can't be made a second time in one process."""

    made = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        type(self).made += 1
        if type(self).made == 2:
            type(self).made = 0
            raise RuntimeError(BROKEN)


for _name in ("Faulty", "Opaque", "SpeaksForItself", "BrokenInWorker", "BrokenSecond"):
    gymnasium.register(f"{_name}-v0", f"sample_envs:{_name}")
gymnasium.register("Counting-v0", "sample_envs:Counting", vector_entry_point="sample_envs:CountingVector")
gymnasium.register("Constant-v0", "sample_envs:Constant", vector_entry_point="sample_envs:ConstantVector")
