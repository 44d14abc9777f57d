"""Small PettingZoo environments that are known by heart."""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper


class Relay(ParallelEnv):
    """Three agents of different spaces: `early` leaves after 2 steps, `late` comes after 1, `steady` stays all 4 steps.

    Observations hold the number of steps; everyone is paid the number of the step, `late` ten times that.
    """

    metadata: ClassVar = {"name": "relay"}
    possible_agents: ClassVar = ["early", "late", "steady"]
    length = 4

    def observation_space(self, agent):
        if agent == "late":
            return Dict({"count": Box(0, 100, (2,), np.float32), "kind": Discrete(3)})
        return Box(0, 100, (1,) if agent == "early" else (3,), np.float32)

    def action_space(self, agent):
        return Box(-1, 1, (2,), np.float32) if agent == "late" else Discrete(2)

    def reset(self, seed=None, options=None):
        self.count, self.agents = 0, ["early", "steady"]
        self.start = 0 if seed is None else seed % 7
        return self.observe(self.agents), {name: {} for name in self.agents}

    def observe(self, names):
        found = {}
        for name in names:
            size = {"early": 1, "late": 2, "steady": 3}[name]
            array = np.full(size, self.count, np.float32)
            if name == "steady":
                array[2] = self.start
            found[name] = {"count": array, "kind": 1} if name == "late" else array
        return found

    def step(self, actions):
        assert set(actions) == set(self.agents), (actions, self.agents)
        acting, self.count = list(self.agents), self.count + 1
        rewards = {name: self.count * (10.0 if name == "late" else 1.0) for name in acting}
        terminated = {name: name == "early" and self.count == 2 for name in acting}
        truncated = {name: self.count == self.length for name in acting}
        there = [name for name in acting if not terminated[name] and not truncated[name]]
        if self.count == 1:
            there.append("late")
        self.agents = there
        infos = {name: {"count": self.count} for name in acting}
        return self.observe({*acting, *there}), rewards, terminated, truncated, infos


class Stateful(Relay):
    """The same with a global state of its own."""

    def state(self):
        return np.array([self.count, self.start], np.float32)


class Forgetful(Relay):
    """The same, but no two episodes are alike, whatever their seed."""

    made = 0

    def reset(self, seed=None, options=None):
        Forgetful.made += 1
        return super().reset(seed=Forgetful.made)


class Failing(Relay):
    """The same, but the third step raises."""

    def step(self, actions):
        if self.count == 2:
            raise RuntimeError("out of batons")
        return super().step(actions)


class Turns(AECEnv):
    """Agents take turns."""

    metadata: ClassVar = {"name": "turns"}

    def __init__(self):
        self.possible_agents = ["a", "b"]


class Corners(ParallelEnv):
    """Three agents alike, each told its own corner in its observation: reward 1 for naming it, as long as `length` steps."""

    metadata: ClassVar = {"name": "corners"}
    possible_agents: ClassVar = ["a_0", "a_1", "a_2"]

    def __init__(self, length=5):
        self.length = length

    def observation_space(self, agent):
        return Box(0, 1, (3,), np.float32)

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.count, self.agents = 0, list(self.possible_agents)
        return self.observe(), {name: {} for name in self.agents}

    def observe(self):
        self.corners = self.generator.integers(0, 3, 3)
        return {name: np.eye(3, dtype=np.float32)[corner] for name, corner in zip(self.agents, self.corners, strict=True)}

    def step(self, actions):
        self.count += 1
        rewards = {name: float(actions[name] == corner) for name, corner in zip(self.agents, self.corners, strict=True)}
        over = {name: self.count == self.length for name in self.agents}
        observations, infos = self.observe(), {name: {} for name in self.agents}
        if self.count == self.length:
            self.agents = []
        return observations, rewards, dict.fromkeys(over, False), over, infos


class Neighbours(ParallelEnv):
    """Two agents; each sees a bit of its own and is paid the other's, whatever it does. An episode is one step."""

    metadata: ClassVar = {"name": "neighbours"}
    possible_agents: ClassVar = ["a_0", "a_1"]

    def observation_space(self, agent):
        return Box(0, 1, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.bits = np.random.default_rng(seed).integers(0, 2, 2)
        self.agents = list(self.possible_agents)
        return self.observe(), {name: {} for name in self.agents}

    def observe(self):
        return {name: np.array([bit], np.float32) for name, bit in zip(self.agents, self.bits, strict=True)}

    def step(self, actions):
        names, observations = self.agents, self.observe()
        rewards = {"a_0": float(self.bits[1]), "a_1": float(self.bits[0])}
        self.agents = []
        return observations, rewards, dict.fromkeys(names, True), dict.fromkeys(names, False), {name: {} for name in names}


class Doors(ParallelEnv):
    """Two agents before three doors, of which the next one in each step (for b the last one, too) may be taken; else it raises.

    a sees the number of the step, b that and a sign. Masks stand beside the observations, or in infos.
    """

    metadata: ClassVar = {"name": "doors"}
    possible_agents: ClassVar = ["a", "b"]
    length = 4

    def __init__(self, inside=True, closed_at=10**9):
        self.inside, self.closed_at = inside, closed_at

    def observation_space(self, agent):
        parts = {"observation": Box(0, 9, (2,), np.float32)}
        parts |= {"action_mask": Box(0, 1, (3,), np.int8)} if self.inside else {}
        return Dict(parts | ({"sign": Discrete(2)} if agent == "b" else {}))

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.count, self.agents = 0, list(self.possible_agents)
        self.start = 0 if seed is None else seed % 3
        return self.observe(), self.infos()

    def masks(self):
        mask = np.arange(3) == (self.start + self.count) % 3
        over = self.count == self.length  # at its end an episode allows nothing
        some = {"a": mask, "b": mask | (np.arange(3) == 2)}
        return {name: (mask & (not over) & (self.count != self.closed_at)).astype(np.int8) for name, mask in some.items()}

    def observe(self):
        seen = np.array([self.count, self.start], np.float32)
        found = {"a": {"observation": seen}, "b": {"observation": seen, "sign": self.count % 2}}
        if self.inside:
            found = {name: {**parts, "action_mask": self.masks()[name]} for name, parts in found.items()}
        return {name: found[name] for name in self.possible_agents}

    def infos(self):
        return {name: {} if self.inside else {"action_mask": mask} for name, mask in self.masks().items()}

    def step(self, actions):
        masks, names = self.masks(), list(self.agents)
        for name, action in actions.items():
            if not masks[name][action]:
                raise RuntimeError(f"{name} ran into a closed door")
        self.count += 1
        over = self.count == self.length
        self.agents = [] if over else names
        return self.observe(), dict.fromkeys(names, 1.0), dict.fromkeys(names, False), dict.fromkeys(names, over), self.infos()


class DoorsInInfos(Doors):
    """The same with masks in infos."""

    def __init__(self):
        super().__init__(inside=False)


class DoorsInTurns(AECEnv):
    """The same, one agent after the other, which makes no difference to what each may do."""

    metadata: ClassVar = {"name": "doors", "is_parallelizable": True}
    render_mode = None

    def __init__(self):
        super().__init__()
        self.doors = Doors()
        self.possible_agents = list(Doors.possible_agents)

    def observation_space(self, agent):
        return self.doors.observation_space(agent)

    def action_space(self, agent):
        return self.doors.action_space(agent)

    def observe(self, agent):
        return self.seen[agent]

    def reset(self, seed=None, options=None):
        self.seen, self.infos = self.doors.reset(seed)
        self.agents, self.chosen, self.agent_selection = list(self.possible_agents), {}, "a"
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)

    def step(self, action):
        agent = self.agent_selection
        if self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self.chosen[agent] = action
        self.rewards = dict.fromkeys(self.agents, 0.0)
        if agent == "b":
            self.seen, self.rewards, self.terminations, self.truncations, self.infos = self.doors.step(self.chosen)
            self.chosen = {}
        self.agent_selection = "b" if agent == "a" else "a"
        self._accumulate_rewards()


class Louder(BaseParallelWrapper):
    """Multiplies all rewards, and fails where it is told to."""

    def __init__(self, env, times=2.0, fails=False):
        super().__init__(env)
        self.times, self.fails = times, fails

    def reset(self, seed=None, options=None):
        if self.fails:
            raise RuntimeError("no voice")
        return self.env.reset(seed=seed, options=options)

    def step(self, actions):
        observations, rewards, *rest = self.env.step(actions)
        return observations, {name: reward * self.times for name, reward in rewards.items()}, *rest


class Counts(BaseParallelWrapper):
    """Keeps over episodes how many there were, and shows it in what `steady` observes."""

    episodes = 0

    def reset(self, seed=None, options=None):
        self.episodes += 1
        return self.env.reset(seed=seed, options=options)

    def step(self, actions):
        observations, *rest = self.env.step(actions)
        observations["steady"][1] = self.episodes
        return observations, *rest
