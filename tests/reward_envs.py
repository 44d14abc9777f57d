"""Environments that pay given rewards, one per step, and end with the last: for one agent, as a vector, for a team."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Payer(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (1,), np.float32), Discrete(2)

    def __init__(self, rewards=(0.7,)):
        self.rewards, self.turns = list(rewards), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turns = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward, self.turns = float(self.rewards[self.turns]), self.turns + 1
        return np.zeros(1, np.float32), reward, self.turns == len(self.rewards), False, {}


class Payers(VectorEnv):
    """The same as one vector environment."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs=1, rewards=(0.7,)):
        self.num_envs, self.rewards, self.turns = num_envs, np.array(rewards, float), np.zeros(num_envs, int)
        self.starts = np.zeros(num_envs, np.float32)
        self.single_observation_space, self.single_action_space = Payer.observation_space, Payer.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        begun = (options or {}).get("reset_mask", slice(None))
        self.turns[begun] = 0
        self.starts[begun] += 0.125
        return self.starts[:, None] % 1, {}

    def step(self, actions):
        rewards, self.turns = self.rewards[self.turns], self.turns + 1
        none = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), rewards, self.turns == len(self.rewards), none, {}


def team(rewards=(0.7,), render_mode=None):
    """Three who are each paid the same."""
    from pettingzoo import ParallelEnv

    class Team(ParallelEnv):
        metadata = {"name": "team"}  # noqa: RUF012
        possible_agents = ["a", "b", "c"]  # noqa: RUF012

        def __init__(self):
            self.one, self.render_mode = Payer(rewards), None

        def observation_space(self, agent):
            return self.one.observation_space

        def action_space(self, agent):
            return self.one.action_space

        def reset(self, seed=None, options=None):
            self.agents = list(self.possible_agents)
            return self._all(self.one.reset(seed=seed))

        def step(self, actions):
            answer = self._all(self.one.step(0))
            self.agents = [] if answer[2]["a"] else self.agents
            return answer

        def _all(self, values):
            return tuple(dict.fromkeys(self.possible_agents, value) for value in values)

    return Team()


gymnasium.register("Payer-v0", Payer, vector_entry_point=Payers)
