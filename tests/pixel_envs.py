"""Environments of small pictures whose rewards can be read off them."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Spot(gymnasium.Env):
    """A bright spot stands left, in the middle or right of a picture (6, 6, 3); the reward is 1 for naming where, else 0."""

    observation_space = spaces.Box(0, 255, (6, 6, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int = 5, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode
        self.steps, self.column = 0, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Name a place."""
        reward = float(action == self.column)
        self.steps += 1
        return self._observe(), reward, False, self.steps >= self.length, {}

    def _observe(self) -> np.ndarray:
        self.column = int(self.np_random.integers(3))
        picture = self.np_random.integers(0, 100, (6, 6, 3)).astype(np.uint8)
        picture[2:4, 2 * self.column : 2 * self.column + 2] = 250
        return picture
