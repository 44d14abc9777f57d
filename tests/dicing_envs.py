"""Environments that draw from the generators of their whole process: when they are made, reset and stepped."""

import random
import sys

import gymnasium
import numpy as np
from gymnasium import spaces

DRAWS = {"random": random.random, "np.random": np.random.rand}


def draw(name: str) -> float:
    """Draw from one of them; torch is imported by whoever draws from it first."""
    if name == "torch":
        import torch

        return float(torch.rand(()))
    return float(DRAWS[name]())


class Dicing(gymnasium.Env):
    """Observes a draw and what it drew when it was made; paid by draws; episodes of 7 steps."""

    observation_space = spaces.Box(-1, 2, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, names: str = "random np.random torch", render_mode: str | None = None) -> None:
        self.names = names.split()
        self.made_of = sum(map(draw, self.names))
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode somewhere."""
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Make a step somewhere."""
        self.steps += 1
        return self._observe(), sum(map(draw, self.names)), False, self.steps == 7, {}

    def _observe(self) -> np.ndarray:
        return np.array([draw(self.names[self.steps % len(self.names)]), self.made_of / len(self.names)], np.float32)


gymnasium.register("Dicing-v0", Dicing)

try:
    from pettingzoo import ParallelEnv
except ImportError:
    ParallelEnv = object


class DicingTeam(ParallelEnv):
    """The same for a team of two."""

    metadata = {"name": "dicing"}  # noqa: RUF012
    possible_agents = ("left", "right")

    def __init__(self, render_mode: str | None = None) -> None:
        self.agents: list[str] = []
        self.made_of, self.steps = draw("random"), 0

    def observation_space(self, agent: str) -> spaces.Box:
        """Return what a member sees."""
        return Dicing.observation_space

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return what a member does."""
        return Dicing.action_space

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode somewhere."""
        self.agents, self.steps = ["left", "right"], 0
        return self._observe(), {"left": {}, "right": {}}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Make a step somewhere."""
        self.steps += 1
        members, over = list(self.agents), self.steps == 7
        observations = self._observe()
        if over:
            self.agents = []
        rewards = {name: draw("np.random") for name in members}
        ends = dict.fromkeys(members, False)
        return observations, rewards, ends, dict.fromkeys(members, over), {name: {} for name in members}

    def _observe(self) -> dict:
        return {name: np.array([draw("np.random"), self.made_of], np.float32) for name in self.possible_agents}


def torch_is_here() -> bool:
    """Tell whether torch can be drawn from."""
    import importlib.util

    return "torch" in sys.modules or importlib.util.find_spec("torch") is not None
