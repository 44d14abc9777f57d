"""Policies that remember, in every trainer: learning unrolls what acting did, and a resumed run is the uninterrupted one."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_one_error, call
from team_envs import Corners, Relay

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.trainers import SequentialTrainer

NETWORK = {"cell": "gru", "cell_size": 8, "policy_sizes": [8], "value_sizes": [8]}
CFG = {"rollout_length": 16, "epochs": 1, "minibatches": 1, "network": NETWORK}
CELL = [
    "seed=3", "env.num_envs=4", "agents.ppo.network.cell=gru", "agents.ppo.network.cell_size=8", "agents.ppo.rollout_length=16",
    "agents.ppo.minibatches=2", "agents.ppo.sequence_length=8", "agents.ppo.network.policy_sizes=[8]",
    "agents.ppo.network.value_sizes=[8]", "checkpoints.interval=20",
]  # fmt: skip


OFF_POLICY = [
    "agents=dqn", "seed=3", "env.num_envs=4", "agents.dqn.network.cell=gru", "agents.dqn.network.cell_size=8",
    "agents.dqn.network.sizes=[8]", "agents.dqn.sequences=4", "agents.dqn.learning_starts=20", "checkpoints.interval=30",
    "agents.dqn.network.remembers_actions=true", "agents.dqn.prioritized=true", "checkpoints.memory=true",
]  # fmt: skip


def make(name: str, backend: str, env: Any, **cfg: Any) -> Agent:
    pytest.importorskip(backend)
    kind = getattr(importlib.import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
    states = {"state_space": env.state_space} if name == "mappo" else {}
    return Agent(kind(env.observation_space, env.action_space, num_envs=env.num_envs, cfg={**CFG, **cfg}, seed=1, **states))


def envs(kind: str) -> Any:
    if kind in ("sync", "native"):
        return GymnasiumEnv({"id": "CartPole-v1", "num_envs": 3, "vectorization": kind}, seed=1)
    return PettingZooEnv({"id": "own", "num_envs": 2}, seed=1, make={"relay": Relay, "corners": Corners}[kind])


def remembered(algorithm: Any, actor: Any) -> tuple[Any, Any]:
    """Return where something else begins next, what acting carries, and what learning goes on from."""
    learned = algorithm.state.carries[0] if hasattr(algorithm, "state") else algorithm.carries[0]
    starts, carried, _, _ = actor.carry
    return np.asarray(starts), [(np.asarray(one), np.asarray(other)) for one, other in zip(carried, learned, strict=True)]


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "kind", "cfg"),
    [
        ("ppo", "sync", {}),
        ("ppo", "native", {"network": {**NETWORK, "cell": "lstm"}}),
        ("ppo", "sync", {"normalize_observations": True}),
        ("ppo", "sync", {"network": {**NETWORK, "remembers_actions": True}}),
        ("ippo", "relay", {"parameter_sharing": "none", "rollout_length": 15}),
        ("mappo", "corners", {"parameter_sharing": "all"}),
    ],
)
def test_learning_goes_on_from_what_acting_remembers(name, kind, cfg, backend):
    env = envs(kind)
    agent = make(name, backend, env, **cfg)
    SequentialTrainer(env, agent, cfg={"timesteps": 6 * agent.algorithm.schedule.every, "disable_progressbar": True}).train()
    parts = getattr(agent.algorithm, "parts", {"": agent.algorithm})
    running = 0
    for group, part in parts.items():
        starts, pairs = remembered(part, agent.actor[group] if group else agent.actor)
        running += int((~starts).sum())
        for acted, learned in pairs:
            assert np.abs(acted[starts]).sum() == 0
            np.testing.assert_allclose(learned[~starts], acted[~starts], rtol=1e-4, atol=1e-5)
    assert running > 0 and agent.statistics.episodes > 0


def hashes(run: str) -> list[str]:
    agents = json.loads(Path(run, "summary.json").read_text())["agents"]
    return [agent["parameters_sha256"] for agent in agents.values()]


def mean_of(run: str, *overrides: str) -> float:
    (agent,) = json.loads(call("eval", run, "episodes=8", "json=true", *overrides).out)["agents"].values()
    return agent["mean"]


@pytest.mark.parametrize("settings", [CELL, pytest.param(OFF_POLICY, marks=pytest.mark.slow)], ids=["ppo", "dqn"])
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_run_resumed_in_mid_episode_and_rollout_is_the_uninterrupted_one(backend, settings, here):
    pytest.importorskip(backend)
    rest = [*settings, f"backend={backend}", "schedule.horizon=80"]
    assert (
        call("train", *rest, "trainer.timesteps=80", "run.dir=whole", "evaluation.interval=30", "evaluation.episodes=2").status
        == 0
    )
    assert (
        call("train", *rest, "trainer.timesteps=37", "run.dir=part", "evaluation.interval=30", "evaluation.episodes=2").status
        == 0
    )
    assert call("train", "resume=part", "trainer.timesteps=80").status == 0
    assert hashes("whole") == hashes("part") and mean_of("whole") == mean_of("part")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_trainer_gives_the_same(backend, here):
    pytest.importorskip(backend)
    two = [
        "+agents@agents.second=ppo",
        "agents_scope=[3,1]",
        "agents.second.rollout_length=16",
        "agents.second.network.cell=lstm",
    ]
    third = ["+agents@agents.second=dqn", "agents_scope=[3,1]", "agents.second.network.cell=lstm", "trainer.timesteps=64"]
    third += ["agents.second.sequences=4", "agents.second.learning_starts=20", "agents.second.memory_size=100"]
    for trainer in ("sequential", "parallel", "step"):
        rest = [*CELL, *two, "agents.second.minibatches=1", f"backend={backend}", f"trainer={trainer}", "trainer.timesteps=64"]
        result = call("train", *rest, f"run.dir={trainer}")
        assert result.status == 0, result.text
        result = call("train", *OFF_POLICY, *third, f"backend={backend}", f"trainer={trainer}", f"run.dir={trainer}-dqn")
        assert result.status == 0, result.text
    assert hashes("sequential") == hashes("parallel") == hashes("step")
    assert hashes("sequential-dqn") == hashes("parallel-dqn") == hashes("step-dqn")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [CELL, OFF_POLICY], ids=["ppo", "dqn"])
def test_a_policy_of_one_backend_acts_in_the_other(settings, here):
    pytest.importorskip("jax")
    assert call("train", *settings, "trainer.timesteps=64", "run.dir=run").status == 0
    assert mean_of("run", "backend=torch") == mean_of("run", "backend=jax")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["agents.ppo.minibatches=9", "agents.ppo.network.cell=gru"],
            "agents.ppo.minibatches=9: more than the 4 sequences of 16 timesteps",
        ),
        (["agents.ppo.sequence_length=5", "agents.ppo.network.cell=gru"], "agents.ppo.rollout_length=16 is no multiple of it"),
        (["agents.ppo.sequence_length=32", "agents.ppo.network.cell=gru"], "agents.ppo.sequence_length=32: "),
        (["agents.ppo.sequence_length=4"], "agents.ppo.sequence_length=4: has no effect on networks that remember nothing"),
        (["agents.ppo.network.cell_size=4"], "agents.ppo.network.cell_size=4: has no effect without a cell"),
        (["agents.ppo.network.cell=gro"], "agents.ppo.network.cell=gro: "),
    ],
)
def test_settings_that_fit_no_memory_are_refused(overrides, message, here):
    result = call("train", "seed=1", "env.num_envs=4", "agents.ppo.rollout_length=16", "run.dir=run", *overrides)
    assert_one_error(result, 2, message)
    assert not (here / "run").exists()
