"""Pictures, and wrappers of one's own around them: some keep state, some fail."""

from collections import deque

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Pictures(gymnasium.Env):
    """A bright square on noise, which the action moves; an episode ends at random."""

    action_space = Discrete(3)

    def __init__(self, size=24, render_mode=None):
        self.render_mode, self.size = render_mode, size
        self.observation_space = Box(0, 255, (size, size, 3), np.uint8)

    def draw(self):
        picture = self.np_random.integers(0, 99, self.observation_space.shape, np.uint8)
        picture[self.at : self.at + 4, 3:9] = 255
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(self.size))
        return self.draw(), {}

    def step(self, action):
        self.at = (self.at + int(action) - 1) % self.size
        return self.draw(), float(self.at), bool(self.np_random.random() < 0.05), False, {}


class LazyFrames:
    """Frames that are stacked when somebody reads them."""

    def __init__(self, frames):
        self.frames = frames

    def __array__(self, dtype=None, copy=None):
        return np.stack(self.frames)


class Lazy(gymnasium.Wrapper):
    """Hands out the last frames as LazyFrames, with a reward that counts over episodes and is noisy by a generator of its own."""

    def __init__(self, env, frames, shift=(0, 0)):
        super().__init__(env)
        assert isinstance(shift, list | tuple)
        self.observation_space = Box(0, 255, (frames, *env.observation_space.shape), np.uint8)
        self.queue, self.count, self.generator = deque(maxlen=frames), 0, np.random.default_rng(5)

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.queue.extend([observation] * self.queue.maxlen)
        return LazyFrames(list(self.queue)), info

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        self.queue.append(observation)
        self.count += 1
        return LazyFrames(list(self.queue)), self.count + self.generator.normal(), terminated, truncated, info


class Raises(gymnasium.Wrapper):
    """Raises where it is told to."""

    def __init__(self, env, where):
        super().__init__(env)
        self.where = where
        if where == "make":
            raise RuntimeError("no room")

    def reset(self, **kwargs):
        if self.where == "reset":
            raise RuntimeError("no room")
        return self.env.reset(**kwargs)

    def step(self, action):
        if self.where == "step":
            raise RuntimeError("no room")
        return self.env.step(action)


class Opaque(gymnasium.Wrapper):
    """Keeps something that is no data."""

    def __init__(self, env):
        super().__init__(env)
        self.steps = iter(range(10**9))

    def step(self, action):
        next(self.steps)
        return self.env.step(action)


class Spaceless(gymnasium.Wrapper):
    """Forgets what it observes."""

    @property
    def observation_space(self):
        return None


def nothing(env):
    """Return no environment."""


def halved(env):
    """Put one of Gymnasium's wrappers around it, as a function does."""
    return gymnasium.wrappers.TransformReward(env, lambda reward: reward / 2)
