"""Environments, agents and callbacks that leave by sys.exit() or the like.

QUIT="phase:count:what ..." makes call number `count` (from 1) of `phase` do `what`: `exit` (sys.exit(0)), `interrupt`
(KeyboardInterrupt), `generator` (GeneratorExit), `die` (os._exit(0)), or `hang`. Counted by process.
"""

import collections
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from pettingzoo import ParallelEnv

calls: collections.Counter = collections.Counter()


def perhaps(phase: str) -> None:
    """Do what QUIT says."""
    calls[phase] += 1
    for order in os.environ.get("QUIT", "").split():
        where, count, what = order.split(":")
        if (where, int(count)) == (phase, calls[phase]):
            if what == "interrupt":
                raise KeyboardInterrupt
            if what == "generator":
                raise GeneratorExit
            if what == "die":
                os._exit(0)
            if what == "hang":
                print("hangs", flush=True)
                time.sleep(100)
            sys.exit(0)


class Quits(CartPoleEnv):
    def __init__(self, **kwargs):
        perhaps("make")
        super().__init__(**kwargs)

    def reset(self, **kwargs):
        perhaps("reset")
        return super().reset(**kwargs)

    def step(self, action):
        perhaps("step")
        return super().step(action)

    def render(self):
        perhaps("render")

    def close(self):
        perhaps("close")


class QuitsVector(VectorEnv):
    """One copy of an environment that never ends, as a native vector environment."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = Box(0, 1, (1,), np.float32), Discrete(2)

    def __init__(self, num_envs=1, render_mode=None):
        perhaps("make")
        self.num_envs, self.render_mode = num_envs, render_mode
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        perhaps("reset")
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        perhaps("step")
        none = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), np.zeros(self.num_envs), none, none.copy(), {}


gymnasium.register("Quits-v0", Quits, vector_entry_point=QuitsVector)


class QuitsTeam(ParallelEnv):
    metadata = {"name": "quits"}  # noqa: RUF012
    possible_agents = ["one", "two"]  # noqa: RUF012
    render_mode = None

    def __init__(self, **kwargs):
        perhaps("make")

    def observation_space(self, agent):
        return Box(0, 1, (2,), np.float32)

    def action_space(self, agent):
        perhaps("spaces")
        return Discrete(2)

    def reset(self, seed=None, options=None):
        perhaps("reset")
        self.agents = list(self.possible_agents)
        return {name: np.zeros(2, np.float32) for name in self.agents}, {name: {} for name in self.agents}

    def step(self, actions):
        perhaps("step")
        none = dict.fromkeys(self.agents, False)
        return {name: np.ones(2, np.float32) for name in self.agents}, dict.fromkeys(self.agents, 1.0), none, none, {}

    def state(self):
        perhaps("state")
        return np.zeros(3, np.float32)

    def close(self):
        perhaps("close")


def callback(trainer, result):
    """For `trainer.callback`."""
    perhaps("callback")
