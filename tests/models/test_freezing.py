"""Parameters that don't learn, in both backends: they stay, add nothing to the norm, and targets follow."""

import importlib
from typing import Any

import numpy as np
import pytest
from command_line import assert_one_error, call

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.models.freezing import find_frozen
from rltrain.trainers import SequentialTrainer

NAMES = ["policy.encoder.weights.0", "policy.weights.0", "policy.weights.1", "value.weights.10", "log_std"]
ON: dict[str, Any] = {"rollout_length": 8, "network": {"policy_sizes": [8], "value_sizes": [8]}}
OFF: dict[str, Any] = {"learning_starts": 8, "batch_size": 8, "memory_size": 200}
AC = {**OFF, "network": {"policy_sizes": [8], "critic_sizes": [8]}}
CAST: dict[str, tuple[str, Any]] = {
    "ppo": ("CartPole-v1", ON), "a2c": ("CartPole-v1", ON), "dqn": ("CartPole-v1", {**OFF, "network": {"sizes": [8]}}),
    "td3": ("Pendulum-v1", AC), "sac": ("Pendulum-v1", AC),
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("encoder", {"policy.encoder.weights.0"}),
        ("policy", {"policy.encoder.weights.0", "policy.weights.0", "policy.weights.1"}),
        ("policy.weights.0", {"policy.weights.0"}),
        ("weights.1", {"policy.weights.1"}),
        ("log_std", {"log_std"}),
    ],
)
def test_entries_are_whole_parts_of_names(entry, found):
    assert find_frozen(NAMES, [entry], "k") == found


def test_an_entry_that_is_in_no_name_tells_the_nearest():
    with pytest.raises(ConfigError, match=r"^k\.frozen=encodr: is in no parameter's name; did you mean 'encoder'\? options: "):
        find_frozen(NAMES, ["policy", "encodr"], "k")


def make(name: str, backend: str, frozen: list[str], **more: Any) -> Agent:
    pytest.importorskip(backend)
    env_id, settings = CAST[name]
    env = GymnasiumEnv({"id": env_id, "num_envs": 2}, seed=1)
    cfg = {**settings, **more, "network": {**settings["network"], "frozen": frozen}}
    kind = getattr(importlib.import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
    return Agent(kind(env.observation_space, env.action_space, num_envs=2, cfg=cfg, seed=1))


def train(agent: Agent, timesteps: int) -> dict[str, np.ndarray]:
    """Return the parameters after training."""
    env = GymnasiumEnv({"id": CAST[agent.kind.lower()][0], "num_envs": 2}, seed=1)
    SequentialTrainer(env, agent, cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    return agent.snapshot()["policy"]["parameters"]


CASES = [
    ("ppo", ["policy.weights.0", "value"]), ("dqn", ["q.weights.0"]), ("td3", ["critic_0", "policy.biases"]),
    pytest.param("a2c", ["policy"], marks=pytest.mark.slow), pytest.param("sac", ["policy.weights"], marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "entries"), CASES)
def test_what_is_frozen_stays_and_all_else_learns(name, entries, backend):
    agent = make(name, backend, entries)
    before = agent.snapshot()["policy"]["parameters"]
    after = train(agent, 16)
    frozen = find_frozen(before, entries, "k")
    moved = {parameter for parameter in before if (before[parameter] != after[parameter]).any()}
    assert frozen and not moved & frozen
    assert {parameter for parameter in before if ".weights." in parameter} - frozen <= moved
    targets = agent.snapshot()["training"]["algorithm"].get("targets", {})
    for own in targets.values():
        assert all((own[parameter] == before[parameter]).all() for parameter in own if parameter in frozen)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_moments_from_before_move_nothing_and_the_norm_is_that_of_what_learns(backend):
    free = make("ppo", backend, [])
    train(free, 8)
    agent = make("ppo", backend, ["value"])
    agent.restore(free.snapshot())
    before = agent.snapshot()["policy"]["parameters"]
    after = train(agent, 8)
    assert all((before[name] == after[name]).all() for name in before if name.startswith("value."))
    assert (before["policy.weights.0"] != after["policy.weights.0"]).any()
    norms = []
    for entries in ([], ["value"], ["value", "policy"]):
        agent = make("ppo", backend, entries, epochs=1, minibatches=1)
        train(agent, 8)
        norms.append(agent.metrics["policy/grad_norm"])
    assert norms[0] > norms[1] > norms[2] == 0


def test_a_command_that_freezes_what_isnt_there_says_what_there_is(here):
    pytest.importorskip("torch")
    result = call("train", "seed=1", "dry_run=true", "agents.ppo.network.frozen=[encoder]")
    assert_one_error(
        result, 2, "error: agents.ppo.network.frozen=encoder: is in no parameter's name; options: ", "policy.weights.0"
    )
