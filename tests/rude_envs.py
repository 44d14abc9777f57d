"""Environments whose text would move a terminal's cursor, ring its bell and turn its lines round."""

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Discrete

RUDE = "\x1b[2J\x1b]0;title\x07 \x9b31m \r\u202etxt.exe\x7f\tafter\nline"


class RudeError(Exception):
    pass


class Rude(CartPoleEnv):
    def __init__(self, fail_in="", text=""):
        super().__init__()
        self.fail_in, self.turns = fail_in, 0
        if fail_in == "make":
            raise RudeError(RUDE)

    def step(self, action):
        self.turns += 1
        if self.fail_in == "step" and self.turns == 5:
            raise RudeError(RUDE)
        return super().step(action)


class RudeTeam:
    """A PettingZoo environment whose agents are called so, in rich's markup too."""

    render_mode = None

    def __init__(self, render_mode=None):
        self.metadata = {"name": RUDE}
        self.possible_agents = ["\x1b[31mred", "[bold]b\u202e"]
        self.agents = []

    def observation_space(self, agent):
        return Box(0, 1, (2,))

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.turns = list(self.possible_agents), 0
        return self._all(self.observation_space("").low), self._all({})

    def step(self, actions):
        self.turns += 1
        over = self.turns == 5
        if over:
            self.agents = []
        zeros = self.observation_space("").low
        return self._all(zeros), self._all(1.0), self._all(over), self._all(False), self._all({})

    def _all(self, value):
        return {agent: value for agent in self.possible_agents}

    def close(self):
        pass


def team(**kwargs):
    from pettingzoo import ParallelEnv

    return type("Team", (RudeTeam, ParallelEnv), {})(**kwargs)


gymnasium.register("Rude-v0", Rude, max_episode_steps=30)
