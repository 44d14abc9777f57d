"""Agents that see: pictures are learned from, kept as bytes, and a run that was stopped goes on to the bit, in both backends."""

import importlib
from typing import Any

import numpy as np
import pytest
from pixel_envs import Spot
from resumed import kept, resumed

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import ParallelTrainer, SequentialTrainer, Trainer

CNN = [[8, 3, 1], 32]
ON = {"learning_rate": 5e-3, "discount_factor": 0.5, "network": {"cnn": CNN, "policy_sizes": [16], "value_sizes": [16]}}
OFF = {"learning_starts": 32, "batch_size": 32, "memory_size": 2000, "learning_rate": 2e-3, "discount_factor": 0.5}
CAST: dict[str, tuple[int, dict[str, Any]]] = {  # timesteps of 8 copies, settings
    "ppo": (240, {**ON, "rollout_length": 16, "learning_rate": 2e-3}),
    "a2c": (480, {**ON, "rollout_length": 8, "optimizer": "adam"}),
    "dqn": (
        200,
        {**OFF, "target_update_interval": 20, "exploration_fraction": 0.3, "network": {"cnn": CNN, "sizes": [16]}},
    ),
    "sac": (
        280,
        {**OFF, "entropy_coefficient": 0.02, "network": {"cnn": CNN, "policy_sizes": [16], "critic_sizes": [16]}},
    ),
}


def start(
    name: str,
    backend: str,
    timesteps: int,
    *,
    copies: int = 8,
    agents: int = 1,
    kind: type[Trainer] = SequentialTrainer,
    **cfg: Any,
) -> Any:
    """Return a trainer of agents that see Spot's pictures."""
    pytest.importorskip(backend)
    made = getattr(importlib.import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
    env = GymnasiumEnv({"num_envs": copies * agents}, seed=0, make=Spot)
    settings = {**CAST[name][1], **cfg}
    arguments = env.observation_space, env.action_space
    team = [Agent(made(*arguments, num_envs=copies, cfg=settings, index=i), name=f"a{i}") for i in range(agents)]
    silent = {"timesteps": timesteps, "disable_progressbar": True}
    return kind(env=env, agents=team, agents_scope=[copies] * agents, cfg=silent)


QUICK = {("ppo", "torch"), ("dqn", "torch")}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=[] if (name, backend) in QUICK else pytest.mark.slow)
        for name in CAST
        for backend in ("torch", "jax")
    ],
)
def test_where_the_spot_stands_is_learned(name, backend):
    trainer = start(name, backend, CAST[name][0])
    trainer.train()
    returns = list(trainer.agents[0].statistics.returns)
    assert np.mean(returns[-20:]) > 4.25  # of 5; by chance 1.67


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_an_encoder_of_ones_own_learns_it_too(backend):
    network = {"encoder": f"own_encoders_{backend}:Pixels", "policy_sizes": [16], "value_sizes": [16]}
    trainer = start("ppo", backend, 240, network=network)
    before = {key: array.copy() for key, array in parameters_of(trainer).items()}
    trainer.train()
    assert np.mean(list(trainer.agents[0].statistics.returns)[-20:]) > 4.25
    for key, array in parameters_of(trainer).items():
        assert (array != before[key]).any(), key


def parameters_of(trainer: Any, agent: int = 0) -> dict[str, np.ndarray]:
    return trainer.agents[agent].algorithm.snapshot()["policy"]["parameters"]


# -- exact resume ----------------------------------------------------------------------------------------------------------------

SMALL = {
    "ppo": {"rollout_length": 8, "epochs": 2, "minibatches": 2, "normalize_observations": True},
    "dqn": {"learning_starts": 8, "batch_size": 8, "memory_size": 100, "prioritized": True, "n_steps": 2},
}


def pictures_in(tree: Any) -> list[np.ndarray]:
    """Return every array of pictures in what a trainer keeps."""
    if isinstance(tree, dict | list | tuple):
        return [found for one in (tree.values() if isinstance(tree, dict) else tree) for found in pictures_in(one)]
    return [tree] if isinstance(tree, np.ndarray) and tree.shape[-3:] == (6, 6, 3) else []


@pytest.mark.parametrize(
    ("name", "backend"),
    [("ppo", "torch"), ("dqn", "torch"), *(pytest.param(name, "jax", marks=pytest.mark.slow) for name in ("ppo", "dqn"))],
)
def test_resumed_is_uninterrupted(name, backend):
    """Stopped and ended in the middle of a rollout."""
    whole = resumed(lambda timesteps: start(name, backend, timesteps, copies=2, **SMALL[name]), 44, 20)
    assert whole.agents[0].updates >= 5
    pictures = pictures_in(kept(whole)["agents/a0/training"])
    assert pictures and all(array.dtype == np.uint8 for array in pictures)  # as the environment gave them


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_parallel_is_sequential_also_when_it_was_resumed(backend):
    def begin(kind: type[Trainer], timesteps: int) -> Any:
        return start("dqn", backend, timesteps, copies=2, agents=2, kind=kind, **SMALL["dqn"])

    whole, parallel = begin(SequentialTrainer, 40), begin(ParallelTrainer, 40)
    for trainer in (whole, parallel):
        trainer.train()
    np.testing.assert_equal(kept(parallel), kept(whole))
    first, rest = begin(ParallelTrainer, 20), begin(ParallelTrainer, 40)
    first.horizon = 40
    first.train()
    rest.restore(kept(first))
    rest.train()
    np.testing.assert_equal(kept(rest), kept(whole))
