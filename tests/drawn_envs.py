"""Environments whose pictures say which episode and step they are of."""

import os

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from team_envs import Relay


class Drawn(gymnasium.Env):
    """An episode takes 3 to 9 steps and pays 10 each. Pictures are grey: 8 times the step, 100 more in a copy's odd episodes."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode, self.episode = render_mode, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.count, self.length = 0, self.draw_length()
        return np.zeros(1, np.float32), {}

    def draw_length(self):
        return int(self.np_random.integers(3, 10))

    def step(self, action):
        self.count += 1
        return np.zeros(1, np.float32), 10.0, self.count >= self.length, False, {}

    def render(self):
        return np.full((40, 60, 3), 8 * self.count + 100 * (self.episode % 2), np.uint8)


class Different(Drawn):
    """Never the same twice."""

    def render(self):
        return np.full((40, 60, 3), 4 * self.count, np.uint8)

    def draw_length(self):
        return 3 + os.urandom(1)[0] % 25


class Blank(Drawn):
    """Draws nothing."""

    def render(self):
        return None


class Growing(Drawn):
    """Its pictures change in size."""

    def render(self):
        return np.zeros((40 + self.count, 60, 3), np.uint8)


class Raising(Drawn):
    """Fails while it is drawn."""

    def render(self):
        if self.count == 2:
            raise RuntimeError("no more paint")
        return super().render()


class Refusing(Drawn):
    """Can't be made to be drawn."""

    def __init__(self, render_mode=None):
        if render_mode is not None:
            raise ValueError("no display")
        super().__init__()


class DrawnTeam(Relay):
    """A team's pictures: 8 times the step."""

    metadata = {"name": "relay", "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return np.full((40, 60, 3), 8 * self.count, np.uint8)
