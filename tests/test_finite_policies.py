"""Policies and evaluations that are not finite never pass for success."""

import shutil
from importlib import import_module

import numpy as np
import pytest
from command_line import assert_one_error, call
from forgery import put_file

from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointStore, read_part, verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import NonFiniteError
from rltrain.trainers import SequentialTrainer
from rltrain.trainers.bookkeeping import Best
from rltrain.trainers.evaluating import note_best
from rltrain.trees import pack


def poison(tree, value):
    """Put a value into every array of floats; return how many there were."""
    if isinstance(tree, dict):
        return sum(poison(item, value) for item in tree.values())
    if isinstance(tree, np.ndarray) and tree.dtype.kind == "f" and tree.size:
        tree[...] = value
        return 1
    return 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_policy_that_is_not_finite_is_unusable_though_its_hashes_are_right(value, trained, here):
    shutil.copytree(trained, "run")
    path = CheckpointStore(here / "run/checkpoints").pointer("latest")
    policy = read_part(path, "agents/ppo/policy", verify(path))
    assert poison(policy, value)
    put_file(path, "agents/ppo/policy.safetensors", pack(policy))
    verify(path)
    for command in (("eval", "run"), ("train", "resume=run", "trainer.timesteps=210")):
        assert_one_error(call(*command), 3, "holds numbers that are not finite: agents.ppo can't act by them")
    assert not list(here.glob("outputs/**/eval.json"))


def test_a_score_that_is_not_finite_is_never_the_best():
    best = {"a": Best(1.0, 5)}
    results = {name: {"returns": [value, 2.0]} for name, value in (("a", np.nan), ("b", np.inf), ("c", 4.0))}
    assert note_best(best, results, 9) == ["c"]
    assert best == {"a": Best(1.0, 5), "c": Best(3.0, 9)}


def test_returns_that_are_not_finite_are_no_success(trained, here, monkeypatch):
    from rltrain.evaluation import EpisodeCounter

    real = EpisodeCounter.results
    monkeypatch.setattr(EpisodeCounter, "results", lambda self: real(self) | {"returns": [float("nan"), 1.0]})
    result = call("eval", str(trained), "episodes=2", "fail_under=0")
    assert result.status == 1 and "error: agents.ppo: 1 of 2 episodes have a return that is not finite (nan)" in result.err
    assert not list(here.glob("outputs/**/eval.json"))


@pytest.mark.parametrize("value", [np.nan, 3e38])
@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize(
    "algorithm", ["a2c CartPole-v1", "dqn CartPole-v1", "sac CartPole-v1", "ppo Pendulum-v1", "td3 Pendulum-v1"]
)
def test_a_policy_that_gives_no_numbers_names_its_agent(algorithm, backend, value):
    """Also one whose weights are finite: the likeliest of infinite logits, and tanh of infinity, are actions like any other."""
    if backend == "jax":
        pytest.importorskip("jax")
    name, env_id = algorithm.split()
    kind = getattr(import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
    env = GymnasiumEnv({"id": env_id, "num_envs": 2}, seed=1)
    agent = Agent(kind(env.observation_space, env.action_space, num_envs=2), name="A")
    policy = agent.snapshot()["policy"]
    assert poison(policy, value)
    agent.restore({"policy": policy})
    with pytest.raises(NonFiniteError, match=r"agents\.A: its policy gives numbers that are not finite"):
        SequentialTrainer(env, agent, cfg={"timesteps": 1, "disable_progressbar": True}).eval(2)
