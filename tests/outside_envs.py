"""Environments that leave their observation space in one leaf; by id `outside_envs:Outside-v0`, or directly."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo import ParallelEnv

LEAVES: dict[str, Any] = {
    "cell": Discrete(4),
    "floor": Discrete(3, start=5),
    "parts": MultiDiscrete([3, 4]),
    "alike": MultiDiscrete([[3, 3]], start=[[1, 1]]),
    "bits": MultiBinary(3),
    "point": Box(-1, 1, (1,), np.float32),
}
INSIDE: dict[str, Any] = {
    "cell": 3, "floor": np.int64(7), "parts": [2, 3], "alike": [[3, 3]], "bits": [1, 0, 1], "point": [7.0]
}  # fmt: skip


class Outside(gymnasium.Env):
    """Gives the highest values of every leaf; but in `leaf` (or the "state") it is `value` in step `when` of an episode.

    In the copy seeded `victim`, or in all of them; `when` 0 is the reset. Of one leaf `alone`, or all of them nested. Episodes
    last 3 steps.
    """

    action_space = Discrete(2)
    state_space = MultiDiscrete([2, 2])

    def __init__(
        self,
        leaf: str = "",
        value: Any = 0,
        when: int = 1,
        victim: int | None = None,
        alone: bool = False,
        render_mode: Any = None,
    ) -> None:
        self.leaf, self.value, self.when, self.victim, self.alone = leaf, value, when, victim, alone
        self.render_mode, self.steps, self.seed = render_mode, 0, 0
        nested = Dict({"in": Dict({"it": Tuple((LEAVES["cell"],))}), **{key: LEAVES[key] for key in list(LEAVES)[1:]}})
        self.observation_space = LEAVES[leaf] if alone else nested

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Begin an episode."""
        self.seed, self.steps = self.seed if seed is None else seed, 0
        return self._observe()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        """Count one step."""
        self.steps += 1
        observation, infos = self._observe()
        return observation, 1.0, self.steps == 3, False, infos

    def _observe(self) -> tuple[Any, dict]:
        spoilt = {self.leaf: self.value} if self.steps == self.when and self.victim in (None, self.seed) else {}
        values = {key: _typed(key, value) for key, value in (INSIDE | spoilt).items() if key in LEAVES}
        infos = {"state": np.array(spoilt.get("state", [1, 1]))}
        if self.alone:
            return values[self.leaf], infos
        return {"in": {"it": (values.pop("cell"),)}, **values}, infos


def _typed(key: str, value: Any) -> Any:
    return value if isinstance(LEAVES[key], Discrete) else np.array(value, LEAVES[key].dtype)


def outside_vector(num_envs: int = 1, **kwargs: Any) -> SyncVectorEnv:
    """Return it as a native vector environment that resets its copies in the step after the last."""
    return SyncVectorEnv([lambda: Outside(**kwargs)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


class Hall(ParallelEnv):
    """Two agents whose numbers begin at 5, so that zeros, which stand for one that is away, aren't in their space.

    `guest` is there in the first 2 steps of an episode of 4; `host` gives `value` in step `when`.
    """

    metadata: ClassVar = {"name": "hall"}
    possible_agents: ClassVar = ["host", "guest"]

    def __init__(self, value: int = 6, when: int = 1, who: str = "host") -> None:
        self.value, self.when, self.who = value, when, who

    def observation_space(self, agent: str) -> Any:
        """A number, the guest's in a Dict."""
        return LEAVES["floor"] if agent == "host" else Dict({"floor": LEAVES["floor"]})

    def action_space(self, agent: str) -> Any:
        """One of two."""
        return Discrete(2)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin."""
        self.steps, self.agents = 0, ["host", "guest"]
        return self._observe(), {name: {} for name in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Count."""
        self.steps, acting = self.steps + 1, list(self.agents)
        observations = self._observe()
        leaves = {name: self.steps == (2 if name == "guest" else 4) for name in acting}
        self.agents = [name for name in acting if not leaves[name]]
        return observations, dict.fromkeys(acting, 1.0), leaves, dict.fromkeys(acting, False), {name: {} for name in acting}

    def _observe(self) -> dict:
        found = {name: self.value if (self.steps, name) == (self.when, self.who) else 5 for name in self.agents}
        return {name: {"floor": value} if name == "guest" else value for name, value in found.items()}


gymnasium.register("Outside-v0", "outside_envs:Outside", vector_entry_point="outside_envs:outside_vector")
