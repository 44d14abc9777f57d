"""Several agents beside one another: each learns to the bit what it would learn alone on its own copies."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.checkpoints import tree_sha256
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import CheckpointError
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import SequentialTrainer

SEED, TIMESTEPS = 5, 50
NETWORK = {"policy_sizes": [8], "value_sizes": [8]}
CAST: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (PPO, {"rollout_length": 8, "epochs": 2, "minibatches": 2}),
    "long ppo": (PPO, {"rollout_length": 20, "epochs": 1, "minibatches": 4, "learning_rate_schedule": "linear"}),
    "ppo with statistics": (PPO, {"rollout_length": 10, "epochs": 2, "minibatches": 1, "normalize_observations": True,
                                  "normalize_rewards": True, "normalize_values": True}),
    "a2c": (A2C, {"rollout_length": 5}),
    "wide a2c": (A2C, {"rollout_length": 6, "learning_rate": 1e-3, "network": {"policy_sizes": [16], "value_sizes": [4]}}),
}  # fmt: skip
IDS = ["CartPole-v1", "Pendulum-v1"]


def make(
    env_id: str, parts: Sequence[str], sizes: Sequence[int], *, first: int = 0, indices: Sequence[int] = (), seed: int = SEED,
    timesteps: int = TIMESTEPS, horizon: int = TIMESTEPS,
) -> SequentialTrainer:  # fmt: skip
    """Return a trainer of one agent per part on copies `first` and up; an agent's index is its place unless given."""
    cfg = {"id": env_id, "num_envs": sum(sizes)}
    env = GymnasiumEnv(cfg, seed=SEED, first_copy=first)
    evaluation_env = GymnasiumEnv(cfg, seed=SEED, first_copy=first, role=EVALUATION_ENVIRONMENTS)
    agents = []
    for place, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        algorithm, settings = CAST[part]
        index = indices[place] if indices else place
        settings = {"network": NETWORK, **settings}
        spaces = env.observation_space, env.action_space
        agents.append(Agent(algorithm(*spaces, num_envs=size, cfg=settings, seed=seed, index=index), name=f"agent_{index}"))
    how = {"timesteps": timesteps, "disable_progressbar": True}
    return SequentialTrainer(env, agents, list(sizes), how, evaluation_env=evaluation_env, horizon=horizon)


def trained(trainer: SequentialTrainer) -> list[dict[str, Any]]:
    """Train and return what each agent has become, everything it carries included."""
    trainer.train()
    return [agent.snapshot() for agent in trainer.agents]


@functools.cache
def alone(env_id: str, part: str, size: int, first: int, index: int) -> dict[str, Any]:
    """Return the agent that nobody stood beside."""
    (snapshot,) = trained(make(env_id, [part], [size], first=first, indices=[index]))
    assert snapshot["training"]["updates"] == TIMESTEPS // CAST[part][1]["rollout_length"]
    return snapshot


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare the networks bit for bit, and all that an agent carries."""
    assert tree_sha256(one["policy"]) == tree_sha256(other["policy"])
    np.testing.assert_equal(one, other)


# -- alone == beside others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (["ppo", "ppo"], [3, 5]),
        (["ppo", "a2c"], [3, 5]),
        (["a2c", "long ppo"], [3, 5]),
        (["ppo", "ppo with statistics", "a2c"], [1, 2, 5]),
        (["wide a2c", "a2c", "long ppo"], [1, 2, 5]),
    ],
)
def test_every_agent_learns_what_it_would_learn_alone(env_id, parts, sizes):
    together = trained(make(env_id, parts, sizes))
    for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        assert_same(together[i], alone(env_id, part, size, sum(sizes[:i]), i))


@pytest.mark.parametrize(
    ("before", "after", "sizes"),
    [
        (["ppo"], ["a2c"], [1, 2, 5]),
        (["a2c"], ["ppo"], [1, 2, 5]),
        (["wide a2c"], ["ppo with statistics"], [1, 2, 5]),
        (["ppo"], [], [1, 2]),
        (["ppo"], ["a2c", "a2c"], [1, 2, 1, 4]),
        (["ppo"], ["long ppo", "a2c", "ppo"], [1, 2, 2, 2, 1]),
    ],
)
def test_neither_the_others_algorithms_nor_their_number_matter(before, after, sizes):
    together = trained(make("CartPole-v1", [*before, "ppo", *after], sizes))
    assert_same(together[1], alone("CartPole-v1", "ppo", 2, 1, 1))


@pytest.mark.parametrize("env_id", IDS)
def test_the_others_may_change_places(env_id):
    """The agents of index 0 and 2 swap copies: both learn something else, the one between them does not notice."""
    parts, sizes = ["ppo", "a2c", "long ppo"], [2, 3, 2]
    first = trained(make(env_id, parts, sizes))
    swapped = trained(make(env_id, parts[::-1], sizes, indices=[2, 1, 0]))
    assert_same(first[1], swapped[1])
    for before, after in ((first[0], swapped[2]), (first[2], swapped[0])):
        assert before["policy"]["parameters"].keys() == after["policy"]["parameters"].keys()
        assert tree_sha256(before["policy"]) != tree_sha256(after["policy"])


def test_the_order_in_which_agents_stand_is_not_what_tells_them_apart():
    """Copies 0 and up, an index of its own: the agent learns the same at whatever place of the list."""
    (there,) = trained(make("CartPole-v1", ["a2c"], [3], indices=[4]))
    assert_same(trained(make("CartPole-v1", ["a2c", "ppo"], [3, 2], indices=[4, 0]))[0], there)


def test_agents_of_the_same_settings_differ():
    """Own parameters from the start, own random actions, own minibatches."""
    trainer = make("CartPole-v1", ["ppo"] * 3, [2, 2, 2])
    before = [agent.snapshot() for agent in trainer.agents]
    rows = np.zeros((2, 4), np.float32)
    draws = [
        [agent.act(rows, timestep=0, timesteps=1).tolist() for _ in range(40)]
        for agent in make("CartPole-v1", ["ppo"] * 3, [2] * 3).agents
    ]
    assert draws[0] != draws[1] != draws[2] != draws[0]
    for snapshots in (before, trained(trainer)):
        assert len({tree_sha256(snapshot["policy"]) for snapshot in snapshots}) == 3
        assert len({tree_sha256(snapshot["training"]["actor"]) for snapshot in snapshots}) == 3
        generators = [snapshot["training"]["algorithm"]["generator"] for snapshot in snapshots]
        assert len({generator.tobytes() for generator in generators}) == 3


@pytest.mark.parametrize("env_id", IDS)
def test_an_evaluation_says_of_an_agent_what_it_would_say_alone(env_id):
    parts, sizes = ["ppo", "a2c", "long ppo"], [1, 2, 5]
    results = make(env_id, parts, sizes).eval(episodes=3)
    for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        single = make(env_id, [part], [size], first=sum(sizes[:i]), indices=[i]).eval(episodes=3)
        assert results[f"agent_{i}"] == single[f"agent_{i}"]
        assert len(results[f"agent_{i}"]["returns"]) == 3


def test_an_evaluation_in_between_changes_nothing():
    trainer = make("CartPole-v1", ["ppo", "a2c"], [3, 5], timesteps=13)
    trainer.train()
    trainer.eval(episodes=4)
    trainer.timesteps = TIMESTEPS
    for i, (snapshot, part) in enumerate(zip(trained(trainer), ("ppo", "a2c"), strict=True)):
        assert_same(snapshot, alone("CartPole-v1", part, [3, 5][i], [0, 3][i], i))


# -- resumed == uninterrupted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("stop", [1, 25, 32, 40, 49])
def test_resumed_is_uninterrupted(env_id, stop):
    """25 ends a rollout of A2C in the middle of PPO's (8), 32 one of PPO in the middle of A2C's (5), 40 ends both."""
    parts, sizes = ["ppo with statistics", "a2c", "ppo"], [1, 2, 2]
    whole = make(env_id, parts, sizes)
    trained(whole)
    stopped = make(env_id, parts, sizes, timesteps=stop)
    stopped.train()
    assert [agent.updates for agent in stopped.agents] == [stop // 10, stop // 5, stop // 8]
    saved, exact = copy.deepcopy(stopped.snapshot())
    assert exact
    resumed = make(env_id, parts, sizes, seed=99)  # whatever it drew itself is replaced
    resumed.restore(saved)
    resumed.train()
    for one, other in zip(resumed.agents, whole.agents, strict=True):
        assert_same(one.snapshot(), other.snapshot())
    ends = [trainer.snapshot()[0]["trainer"] | {"training_seconds": 0} for trainer in (resumed, whole)]
    np.testing.assert_equal(*ends)


def test_a_checkpoint_of_other_scopes_or_agents_does_not_fit():
    saved, _ = make("CartPole-v1", ["ppo", "a2c"], [1, 3], timesteps=5).snapshot()
    with pytest.raises(CheckpointError, match=r"agents_scope: .* with \[1, 3\] copies per agent, not \[2, 2\]"):
        make("CartPole-v1", ["ppo", "a2c"], [2, 2]).restore(saved)
    with pytest.raises(CheckpointError, match=r"agents\.agent_0: the checkpoint does not fit this agent"):
        make("CartPole-v1", ["wide a2c", "a2c"], [1, 3]).restore(saved)
