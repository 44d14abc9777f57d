"""Environments whose entry point wraps them: in running statistics, or in a curriculum."""

import time
from collections import deque

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward, RecordEpisodeStatistics


class Drift(gymnasium.Env):
    """Numbers around 5 and -20; `raw` is the last observation."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.raw, self.steps = np.zeros(2, np.float32), 0

    def draw(self):
        self.raw = np.asarray(self.np_random.normal([5.0, -20.0], [2.0, 9.0]), np.float32)
        return self.raw

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.draw(), {}

    def step(self, action):
        self.steps += 1
        return self.draw(), float(self.raw[0] + action), self.steps >= 7, False, {}


class Level(gymnasium.Wrapper):
    """A curriculum: every episode that ends adds one to `level`, which is in the rewards; the pooled one is the highest."""

    def __init__(self, env):
        super().__init__(env)
        self.level, self.best, self.update_running_mean = 0, -np.inf, True

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        if terminated and self.update_running_mean:
            self.level += 1
        return observation, self.level, terminated, truncated, info

    def policy_state(self):
        return {"level": self.level, "best": self.best}

    def set_policy_state(self, state):
        self.level, self.best = state["level"], state["best"]

    @staticmethod
    def pool(states):
        return max(states, key=lambda state: state["level"])


class Gathers(gymnasium.Wrapper):
    """Keeps over episodes, without a word: how many it played, and a level that rises after 60 steps."""

    def __init__(self, env, count):
        super().__init__(env)
        self.count, self._seen = count, {"episodes": 0, "level": [0, np.zeros(2)]}
        self._steps = iter(range(60))

    def reset(self, **kwargs):
        self._seen["episodes"] += self.count
        return self.env.reset(**kwargs)

    def step(self, action):
        if not self.count and next(self._steps, None) is None:
            self._seen["level"][1] = np.ones(2)
        return self.env.step(action)


class Forgets(gymnasium.Wrapper):
    """Keeps nothing over episodes: what it draws and stacks is each one's own; clocks and generators are no state of it."""

    def __init__(self, env):
        super().__init__(env)
        self.noise = np.random.default_rng()
        self.frames, self.started = deque(maxlen=3), 0.0

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.mass, self.started, self.best = self.np_random.uniform(), time.perf_counter(), -np.inf
        self.frames.clear()
        return observation, info

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        self.frames.append(observation)
        self.best = max(self.best, reward)
        return observation, reward, *rest


def gathers(count=1, **kwargs):
    return Gathers(Drift(**kwargs), count)


def forgets(**kwargs):
    return FrameStackObservation(Forgets(RecordEpisodeStatistics(Drift(**kwargs))), 2)


def normalized(**kwargs):
    return NormalizeReward(NormalizeObservation(Drift(**kwargs)))


def levelled(**kwargs):
    return Level(Drift(**kwargs))


def native(num_envs, **kwargs):
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
    from gymnasium.wrappers import vector

    return vector.NormalizeObservation(CartPoleVectorEnv(num_envs, **kwargs))


for _name in ("normalized", "levelled", "gathers", "forgets"):
    gymnasium.register(f"{_name.title()}-v0", f"wrapped_envs:{_name}")
gymnasium.register("NativeNormalized-v0", normalized, vector_entry_point=native)
