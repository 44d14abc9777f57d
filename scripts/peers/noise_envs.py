"""An environment whose observations are noise as large as four frames of Atari: for what a replay memory takes."""

from typing import Any

import gymnasium
import numpy as np


class Noise(gymnasium.Env):
    """Never ends; every observation is fresh noise."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Begin."""
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: Any) -> Any:
        """Go on."""
        return self._look(), 1.0, False, False, {}

    def _look(self) -> np.ndarray:
        shape = self.observation_space.shape
        return np.frombuffer(self.np_random.bytes(int(np.prod(shape))), np.uint8).reshape(shape)
