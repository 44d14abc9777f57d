"""An algorithm that is copied learns by itself, and as the one it was copied from."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.ppo.torch import PPO
from rltrain.agents.sac.torch import SAC
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.optimizers.torch import Adam, FlatParameters
from rltrain.trainers import SequentialTrainer

OFF = {"learning_starts": 10, "batch_size": 8, "memory_size": 100}
CASES = [
    (PPO, "CartPole-v1", {"rollout_length": 16}),
    (DQN, "CartPole-v1", {**OFF, "prioritized": True}),
    (SAC, "Pendulum-v1", OFF),
]


def train(algorithm: Any, env_id: str) -> dict[str, np.ndarray]:
    env = GymnasiumEnv({"id": env_id, "num_envs": 2}, seed=1)
    SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": 48, "disable_progressbar": True}).train()
    return algorithm.snapshot()["policy"]["parameters"]


@pytest.mark.parametrize(("kind", "env_id", "cfg"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_deep_copy_learns_apart_and_the_same(kind, env_id, cfg):
    env = GymnasiumEnv({"id": env_id, "num_envs": 2}, seed=1)
    algorithm = kind(env.observation_space, env.action_space, num_envs=2, cfg=cfg, seed=1)
    train(algorithm, env_id)
    twin = copy.deepcopy(algorithm)
    before = twin.snapshot()["policy"]["parameters"]
    learned = train(algorithm, env_id)
    for name, array in twin.snapshot()["policy"]["parameters"].items():
        assert np.array_equal(array, before[name])
    assert any((learned[name] != before[name]).any() for name in learned)
    for name, array in train(twin, env_id).items():
        assert np.array_equal(array, learned[name]), name


def test_parameters_that_travelled_are_views_of_one_vector_again():
    network = PPO(*spaces(), num_envs=2).networks.policy
    copied = pickle.loads(pickle.dumps(network))
    flat = FlatParameters(dict(copied.named_parameters()), copied.weights[0].device)
    flat.freeze({"weights.0"})
    again, optimizer = pickle.loads(pickle.dumps((flat, Adam(flat, 0.1))))
    assert optimizer.parameters is again and again.frozen == {"weights.0"}
    before = again.snapshot()
    for parameter in again.named.values():
        parameter.grad.fill_(1.0)
    again.clip_gradients(0.0)
    optimizer.step()
    after = again.snapshot()
    assert {name for name in before if (before[name] != after[name]).any()} == before.keys() - {"weights.0"}


def spaces() -> Any:
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=1)
    return env.observation_space, env.action_space
