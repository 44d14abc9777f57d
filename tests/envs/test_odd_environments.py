"""Environments as people write them first: no render_mode, enums in attributes, is_success only where there is one."""

import enum

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rltrain.envs.gymnasium import GymnasiumEnv
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


class Mode(enum.IntEnum):
    FAST = 1


class WithEnum(Plain):
    def reset(self, *, seed=None, options=None):
        self.mode = Mode.FAST
        return super().reset(seed=seed)


@pytest.fixture(autouse=True)
def _registered():
    gymnasium.register("Plain-v0", Plain)
    gymnasium.register("WithEnum-v0", WithEnum)
    yield
    for name in ("Plain-v0", "WithEnum-v0"):
        del gymnasium.registry[name]


def test_an_environment_that_takes_no_arguments():
    env = GymnasiumEnv({"id": "Plain-v0", "num_envs": 2})
    assert env.reset().shape == (2, 1)


def test_an_attribute_that_is_not_plain_data_has_no_snapshot():
    env = GymnasiumEnv({"id": "WithEnum-v0", "num_envs": 1})
    env.reset()
    assert env.snapshot() is None


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
