"""Environments as people write them first: no render_mode, enums in attributes, is_success only where there is one, leaves as
they come, one array used over and over.
"""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.evaluation import EpisodeCounter
from rltrain.structures import Step


class Plain(gymnasium.Env):
    """No __init__, so no argument is taken; tells of success only in episodes that begin with an even number."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {"is_success": True} if self.episode % 2 == 0 else {}


@pytest.fixture(autouse=True)
def _registered():
    gymnasium.register("Plain-v0", Plain)
    yield
    del gymnasium.registry["Plain-v0"]


def test_an_environment_that_takes_no_arguments():
    env = GymnasiumEnv({"id": "Plain-v0", "num_envs": 2})
    assert env.reset().shape == (2, 1)


@pytest.mark.parametrize("copies", [1, 4])
def test_success_that_is_told_only_where_it_happened(copies):
    """Of each copy's two episodes the first succeeds: half of all, however many copies play them."""
    env = GymnasiumEnv({"id": "Plain-v0", "num_envs": copies})
    env.reset()
    counter = EpisodeCounter(np.full(copies, 2))
    while not counter.is_full:
        counter.record(env.step(np.zeros(copies, np.int64)))
        env.reset_done()
    assert counter.results()["successes"] == [1.0, 0.0] * copies


def test_no_success_rate_where_none_is_told():
    counter = EpisodeCounter(np.array([1]))
    done = np.array([True])
    counter.record(Step(np.zeros((1, 1)), None, np.ones(1), done, ~done, None, {}))
    assert counter.results()["successes"] == []


# -- spaces ----------------------------------------------------------------------------------------------------------------

UNIT = spaces.Box(0, 1, (2,), np.float32)


class Loose(gymnasium.Env):
    """Shows `observation` of `observation_space`, brings `infos`, both the same objects each time."""

    action_space = spaces.Discrete(2)

    def __init__(self, observation_space, observation, infos=None, state_space=None):
        self.observation_space, self.observation, self.infos = observation_space, observation, infos or {}
        if state_space is not None:
            self.state_space = state_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation, self.infos

    def step(self, action):
        return self.observation, 1.0, False, False, self.infos


def loose(*args, **kwargs) -> GymnasiumEnv:
    return GymnasiumEnv({"num_envs": 2}, make=lambda: Loose(*args, **kwargs))


def test_bounds_that_are_left_a_little_are_no_error_in_a_leaf_either():
    far = np.array([0.5, 1.01], np.float32)
    assert loose(UNIT, far).reset().tolist() == [far.tolist()] * 2
    assert loose(spaces.Dict({"x": UNIT}), {"x": far}).reset()["x"].tolist() == [far.tolist()] * 2


@pytest.mark.filterwarnings("ignore:.*Casting input")
def test_a_tuple_may_come_as_a_list_and_a_number_as_python_has_it():
    space = spaces.Tuple((UNIT, spaces.Discrete(3), spaces.Box(0, 9, (), np.float32)))
    observations = loose(space, [np.ones(2, np.float32), 2, np.float32(7)]).reset()
    assert {path: array.tolist() for path, array in observations.items()} == {"0": [[1, 1], [1, 1]], "1": [2, 2], "2": [7, 7]}


@pytest.mark.parametrize("observation", [(np.ones(2, np.float32),), {"0": np.ones(2, np.float32)}, None])
def test_a_tuple_of_another_length_or_kind(observation):
    space = spaces.Tuple((UNIT, spaces.Discrete(3)))
    with pytest.raises(EnvironmentFailure, match="copy 0: reset at step 0: expected observations in a tuple"):
        loose(space, observation).reset()


def test_what_an_environment_changes_in_place_is_not_what_was_handed_out():
    x, state, mask = np.zeros(2, np.float32), np.zeros(2, np.float32), np.ones(2, bool)
    env = loose(spaces.Dict({"x": UNIT}), {"x": x}, {"state": state, "action_mask": mask}, UNIT)
    first = (env.reset()["x"], env.state(), env.action_masks())
    x[:], state[:], mask[0] = 0.5, 0.25, False
    step = env.step(np.ones(2, np.int64))
    second = (step.next_observations["x"], step.next_states, env.action_masks())
    x[:], state[:], mask[:] = 1.0, 1.0, True
    env.step(np.ones(2, np.int64))
    assert [array.tolist() for array in first] == [[[0, 0]] * 2, [[0, 0]] * 2, [[True, True]] * 2]
    assert [array.tolist() for array in second] == [[[0.5, 0.5]] * 2, [[0.25, 0.25]] * 2, [[False, True]] * 2]


def test_wrappers_around_an_environment_hide_nothing():
    def make():
        env = Loose(spaces.Dict({"x": UNIT, "y": UNIT}), {"x": np.ones(2, np.float32), "y": np.zeros(2, np.float32)},
                    {"state": np.ones(2), "action_mask": np.array([0, 1])}, UNIT)  # fmt: skip
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.FilterObservation(env, ["y"]), 3)

    env = GymnasiumEnv({"num_envs": 2}, make=make)
    assert list(env.reset()) == ["y"]
    assert env.state_space == UNIT and env.state().tolist() == [[1, 1], [1, 1]]
    assert env.action_masks().tolist() == [[False, True]] * 2


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Text(4), r"env.observation_space=Text.*: Text.* can't be read; this agent reads Box, Discrete, MultiDiscrete,"),
        (spaces.Dict({"x": UNIT, "y": spaces.Sequence(UNIT)}), r"env.observation_space=Dict.*: Sequence.* can't be read"),
    ],
)
def test_observations_that_no_network_reads(space, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        PPO(space, spaces.Discrete(2), num_envs=1)


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple((UNIT,)), spaces.Box(0, 9, (2,), np.int64)]
)
def test_actions_that_no_policy_takes(space):
    with pytest.raises(
        ConfigError, match=r"^env.action_space=.*: this agent acts in Discrete, MultiDiscrete, MultiBinary, and in"
    ):
        PPO(UNIT, space, num_envs=1)
