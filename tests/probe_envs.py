"""Environments so small that only a correct algorithm solves each, and a wrong one shows where it is wrong."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Probe(gymnasium.Env):
    """One number as observation; a probe says how it begins and what an action brings."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space: Any = Discrete(1)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation, self.steps = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.observation, self.steps = self.begin(), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take one step."""
        self.steps += 1
        reward, terminated, truncated = self.turn(action)
        return self._observe(), float(reward), terminated, truncated, {}

    def begin(self) -> float:
        """Return the first observation."""
        return 0.0

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Return reward, terminated, truncated."""
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        return np.array([self.observation], np.float32)

    def coin(self) -> float:
        """Return -1 or 1."""
        return float(self.np_random.choice([-1.0, 1.0]))


class ConstantValue(Probe):
    """One action, observation 0, one step, reward 1. The value is 1: the value loss and its optimizer work."""

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1."""
        return 1.0, True, False


class ValueFromObservation(Probe):
    """One action, observation -1 or 1, one step, reward = observation. The value is the observation: the network sees it."""

    def begin(self) -> float:
        """Toss a coin."""
        return self.coin()

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn the observation."""
        return self.observation, True, False


class Discounting(Probe):
    """One action, observations 0 and 1, two steps, reward 1 at the end. The values are gamma and 1: rewards reach back."""

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1 at the second step."""
        self.observation = 1.0
        return float(self.steps == 2), self.steps == 2, False


class Advantage(Probe):
    """Two actions, observation 0, one step, reward 1 or -1. The policy takes action 1: the loss has the right sign."""

    action_space = Discrete(2)

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1 by action 1."""
        return (1.0 if action == 1 else -1.0), True, False


class PolicyFromObservation(Probe):
    """Two actions, observation -1 or 1, one step, reward 1 if they match: the policy sees what it acts on, rows stay whole."""

    action_space = Discrete(2)

    def begin(self) -> float:
        """Toss a coin."""
        return self.coin()

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1 by action 1 at observation 1, by action 0 at -1."""
        return (1.0 if (action == 1) == (self.observation > 0) else -1.0), True, False


class ContinuousTarget(Probe):
    """An action in [-4, 2], observation -1 or 1, one step, reward -(action - observation)^2: scaling, densities, deviations."""

    action_space = Box(-4.0, 2.0, (1,), np.float32)

    def begin(self) -> float:
        """Toss a coin."""
        return self.coin()

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Lose the squared distance."""
        return -float((action[0] - self.observation) ** 2), True, False


class Truncation(Probe):
    """One action, the observation stays -1 or 1, reward 0 or 1, cut off after three steps, begun anew at either.

    The values are 0 and 1 / (1 - gamma). Taking the cut for an end gives at most 1 + gamma + gamma^2 at 1; bootstrapping from the
    next episode's observation mixes both.
    """

    def begin(self) -> float:
        """Toss a coin."""
        return self.coin()

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1 at observation 1."""
        return (self.observation + 1) / 2, False, self.steps == 3


class TwoStepPolicy(Probe):
    """Two actions, two steps; action 1 at the first and action 0 at the second earn 1, at the end: credit reaches back."""

    action_space = Discrete(2)

    def begin(self) -> float:
        """Begin at -1, with nothing done wrong."""
        self.right = True
        return -1.0

    def turn(self, action: Any) -> tuple[float, bool, bool]:
        """Earn 1 at the end if both actions were right."""
        self.right &= action == (1 if self.steps == 1 else 0)
        self.observation = 1.0
        over = self.steps == 2
        return float(self.right and over), over, False


for _probe in (
    ConstantValue, ValueFromObservation, Discounting, Advantage, PolicyFromObservation, ContinuousTarget, Truncation,
    TwoStepPolicy,
):  # fmt: skip
    gymnasium.register(f"{_probe.__name__}-v0", f"probe_envs:{_probe.__name__}")
