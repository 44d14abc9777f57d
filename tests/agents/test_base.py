"""The agent around an algorithm: when it learns, what it counts, what it keeps, and when it stops."""

import copy

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.errors import NonFiniteError
from rltrain.structures import UpdateSchedule

CFG = {"rollout_length": 4, "epochs": 1, "minibatches": 2, "network": {"policy_sizes": [4], "value_sizes": [4]}}


def make(seed: int = 0, **cfg) -> Agent:
    return Agent(PPO(Box(-1, 1, (3,)), Discrete(2), num_envs=2, cfg={**CFG, **cfg}, seed=seed), name="mine")


def turn(agent: Agent, t: int, *, reward: float = 1.0, ended=(False, False), learn: bool = True) -> np.ndarray:
    """Play timestep t on rows that depend on t only."""
    observations, following = (np.random.default_rng(t + i).normal(size=(2, 3)).astype(np.float32) for i in (0, 1))
    agent.pre_interaction(t, 100)
    actions = agent.act(observations, timestep=t, timesteps=100)
    agent.record_transition(
        observations=observations, states=None, actions=actions, rewards=np.full(2, reward, np.float32),
        next_observations=following, next_states=None, terminated=np.array(ended), truncated=np.zeros(2, bool), infos={},
        timestep=t, timesteps=100,
    )  # fmt: skip
    if learn:
        agent.post_interaction(t, 100)
    return actions


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (UpdateSchedule(every=4), [3, 7, 11]),
        (UpdateSchedule(learning_starts=5, every=1), [5, 6, 7, 8, 9, 10, 11]),
        (UpdateSchedule(learning_starts=5, every=4), [7, 11]),
        (UpdateSchedule(), list(range(12))),
    ],
)
def test_an_update_is_due(schedule, due):
    assert [t for t in range(12) if schedule.is_due(t)] == due


def test_an_agent_learns_when_due_and_counts():
    agent = make()
    for t in range(9):
        turn(agent, t, ended=(t == 2, False))
    assert agent.updates == 2 and agent.metrics["loss/value"] > 0
    assert agent.statistics.env_steps == 18 and list(agent.statistics.returns) == [3.0]


def test_a_loss_that_is_not_finite_ends_the_run():
    agent = make()
    for t in range(3):
        turn(agent, t)
    turn(agent, 3, reward=float("inf"), learn=False)
    expected = r"agents\.mine: .*loss/value=(nan|inf).* after update 1 at timestep 3; lower learning_rate"
    with pytest.raises(NonFiniteError, match=expected):
        agent.post_interaction(3, 100)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_parameter_that_is_not_finite_is_noticed(number):
    agent = make()
    assert agent.algorithm.is_finite()
    snapshot = agent.algorithm.snapshot()
    snapshot["policy"]["parameters"]["policy.weights.0"][0, 0] = number
    snapshot["policy"]["parameters"]["value.weights.0"][0, 0] = -number  # the sum of both infinities is not finite either
    agent.algorithm.restore(snapshot)
    assert not agent.algorithm.is_finite()


def test_evaluation_has_an_actor_of_its_own():
    agent, alone = make(), make()
    rows = np.zeros((5, 3), np.float32)
    for t in range(3):
        expected = turn(alone, t)
        agent.begin_evaluation(5, seed=t)
        first = agent.act(rows, timestep=0, timesteps=1, explore=True, evaluation=True)
        agent.end_evaluation_episodes(np.ones(5, bool))
        agent.begin_evaluation(5, seed=t)
        assert np.array_equal(agent.act(rows, timestep=0, timesteps=1, explore=True, evaluation=True), first)
        assert np.array_equal(turn(agent, t), expected)  # training draws what it would have drawn
    np.testing.assert_equal(agent.snapshot(), alone.snapshot())


def test_evaluation_between_act_and_record_does_not_change_what_is_recorded():
    agent, alone = make(), make()
    for one in (agent, alone):
        rows = np.ones((2, 3), np.float32)
        actions = one.act(rows, timestep=0, timesteps=1)
        if one is agent:
            agent.begin_evaluation(2, seed=0)
            agent.act(-rows, timestep=0, timesteps=1, explore=True, evaluation=True)
        flags = np.zeros(2, bool)
        one.record_transition(
            observations=rows, states=None, actions=actions, rewards=np.ones(2, np.float32), next_observations=rows,
            next_states=None, terminated=flags, truncated=flags, infos={}, timestep=0, timesteps=1,
        )  # fmt: skip
    np.testing.assert_equal(agent.snapshot(), alone.snapshot())


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_restored_goes_on_to_the_bit(stop):
    agent = make(normalize_observations=True)
    for t in range(stop):
        turn(agent, t, ended=(t % 3 == 2, False))
    snapshot = copy.deepcopy(agent.snapshot())
    other = make(seed=9, normalize_observations=True)
    for t in range(5):
        turn(other, t)
    other.restore(snapshot)
    for t in range(stop, 14):
        assert np.array_equal(turn(agent, t, ended=(t % 3 == 2, False)), turn(other, t, ended=(t % 3 == 2, False)))
    np.testing.assert_equal(other.snapshot(), agent.snapshot())


def test_interruption_cuts_the_episode_and_keeps_its_rows():
    agent = make()
    turn(agent, 0)
    agent.interrupt(np.full((2, 3), 0.5, np.float32))
    for t in range(1, 4):
        turn(agent, t, ended=(t == 3, False), learn=False)
    rollout = agent.algorithm.memory.read()
    assert rollout.truncated.tolist() == [[True, True], [False, False], [False, False], [False, False]]
    assert dict(zip(rollout.last_rows.tolist(), rollout.last_observations.tolist(), strict=True))[1] == [0.5, 0.5, 0.5]
    assert list(agent.statistics.returns) == [3.0]  # the first reward belonged to the episode that was left
