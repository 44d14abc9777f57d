"""Environments whose entry point wraps them: in running statistics, or in a curriculum."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import NormalizeObservation, NormalizeReward


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


def normalized(**kwargs):
    return NormalizeReward(NormalizeObservation(Drift(**kwargs)))


def levelled(**kwargs):
    return Level(Drift(**kwargs))


def native(num_envs, **kwargs):
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
    from gymnasium.wrappers import vector

    return vector.NormalizeObservation(CartPoleVectorEnv(num_envs, **kwargs))


for _name in ("normalized", "levelled"):
    gymnasium.register(f"{_name.title()}-v0", f"wrapped_envs:{_name}")
gymnasium.register("NativeNormalized-v0", normalized, vector_entry_point=native)
