"""Off-policy agents that share a memory, in trainers: all record before any learns; resumed = uninterrupted; what is refused."""

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_one_error, call, summary
from resumed import resumed
from test_resume import everything, latest

from rltrain.agents.base import Agent
from rltrain.checkpoints import verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.trainers import ParallelTrainer, SequentialTrainer, Trainer

SEED, TIMESTEPS, SIZES = 5, 50, [1, 2, 1]
SMALL: dict[str, Any] = {"learning_starts": 12, "batch_size": 8, "network": {"sizes": [8]}}
AC: dict[str, Any] = {**SMALL, "network": {"policy_sizes": [8], "critic_sizes": [8]}}
PRIORITIES = {"prioritized": True, "n_steps": 3, "normalize_observations": True}
CHOICES = [
    ("dqn", {**SMALL, "memory_size": 120, **PRIORITIES}),  # of four copies: 30 timesteps, fewer than the run's
    ("ddqn", {**SMALL, **PRIORITIES, "priority_exponent": 0.9}),
    ("sac", {**AC, "update_interval": 2}),
]
FORCES = [("td3", {**AC, "memory_size": 120}), ("sac", {**AC, "n_steps": 2}), ("ddpg", AC)]
CAST = {"CartPole-v1": CHOICES, "Pendulum-v1": FORCES}
backends = pytest.mark.parametrize("backend", ["torch", "jax"])


def algorithm(kind: str, backend: str) -> Any:
    pytest.importorskip(backend)
    return getattr(importlib.import_module(f"rltrain.agents.{kind}.{backend}"), kind.upper())


def make(
    env_id: str = "CartPole-v1", backend: str = "torch", *, timesteps: int = TIMESTEPS, kind: type[Trainer] = SequentialTrainer,
    owner: str = "agent_0", cast: Any = None, **cfg: Any,
) -> Trainer:  # fmt: skip
    """Return a trainer of three agents that share the first one's memory."""
    env = GymnasiumEnv({"id": env_id, "num_envs": sum(SIZES), "kwargs": {"max_episode_steps": 11}}, seed=SEED)
    agents = []
    for i, (name, settings) in enumerate(cast or CAST[env_id]):
        own = {**settings, "memory_of": owner} if i and name != "ppo" else settings
        spaces = env.observation_space, env.action_space
        made = algorithm(name, backend)(*spaces, num_envs=SIZES[i], cfg=own, seed=SEED, index=i)
        agents.append(Agent(made, name=f"agent_{i}"))
    how = {"timesteps": timesteps, "disable_progressbar": True, **cfg}
    return kind(env, agents, SIZES, how, horizon=TIMESTEPS)


def memories(trainer: Trainer) -> list[Any]:
    """Return each agent's memory on the host."""
    return [getattr(agent.algorithm.memory, "host", agent.algorithm.memory) for agent in trainer.agents]


@backends
def test_all_record_before_any_learns_and_each_draws_from_what_all_recorded(backend, monkeypatch):
    trainer = make(backend=backend, timesteps=40)
    seen: list[tuple[str, int, int]] = []
    for agent, memory in zip(trainer.agents, memories(trainer), strict=True):

        def draw(*args: Any, name: str = agent.name, memory: Any = memory, own: Any = memory.draw) -> Any:
            sample = own(*args)
            seen.append((name, trainer.timestep, memory.count))
            copies.setdefault(name, set()).update((sample.rows % 4).tolist())
            return sample

        monkeypatch.setattr(memory, "draw", draw)
    copies: dict[str, set[int]] = {}
    trainer.train()
    assert {name for name, *_ in seen} == {"agent_0", "agent_1", "agent_2"} and len(seen) > 20
    assert all(count == 4 * min(timestep + 1, 30) for _, timestep, count in seen)  # this timestep's rows of all are there
    assert copies == {agent.name: {0, 1, 2, 3} for agent in trainer.agents}
    rows = memories(trainer)[0].read()
    assert rows["truncated"].any() and (rows["next_observations"][:-1] != rows["observations"][1:]).any()
    for memory in memories(trainer)[1:]:
        np.testing.assert_equal(memory.read(), rows)


@pytest.mark.parametrize(
    ("env_id", "backend", "stop"),
    [("CartPole-v1", "torch", 1), ("CartPole-v1", "torch", 13), ("CartPole-v1", "torch", 41), ("Pendulum-v1", "torch", 37),
     *(pytest.param(*case, marks=pytest.mark.slow) for case in (("CartPole-v1", "jax", 41), ("Pendulum-v1", "jax", 37)))],
)  # fmt: skip
def test_resumed_is_uninterrupted(env_id, backend, stop):
    trainer = resumed(lambda timesteps: make(env_id, backend, timesteps=timesteps), TIMESTEPS, stop)
    assert [memory.filled for memory in memories(trainer)] == [30, 30, 30]


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_without_the_memory_a_resume_is_not_exact_and_fills_it_first(backend):
    stopped = make(backend=backend, timesteps=40)
    for agent in stopped.agents:
        agent.keeps_memory = False
    stopped.train()
    parts, exact = copy.deepcopy(stopped.snapshot())
    assert not exact
    again = make(backend=backend, timesteps=52)
    again.restore(parts)
    assert [memory.count for memory in memories(again)] == [0, 0, 0]
    updates = [agent.read_metrics() or agent.updates for agent in again.agents]
    again.train()
    assert [memory.filled for memory in memories(again)] == [12, 12, 12]
    assert [agent.read_metrics() for agent in again.agents] == [{}, {}, {}] and len(updates) == 3  # nothing was learned


def test_workers_in_lock_step_learn_what_the_sequential_trainer_learns():
    made = [make(timesteps=20, kind=kind) for kind in (SequentialTrainer, ParallelTrainer)]
    for trainer in made:
        trainer.train()
    for one, other in zip(*(trainer.agents for trainer in made), strict=True):
        np.testing.assert_equal(one.snapshot(), other.snapshot())


@backends
def test_the_memory_is_counted_once(backend):
    trainer = make(backend=backend)
    own, *others = (agent.algorithm.describe()["memory_bytes"] for agent in trainer.agents)
    row = 4 * 4 + 8 + 7 + 4  # observation, action, reward and flags, where a successor is kept
    assert own == row * 31 * 4 and others == [0, 0]


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"owner": "agent_7"}, r"agents\.agent_1\.memory_of=agent_7: no other agent of that name"),
        ({"owner": "agent_2"}, r"agents\.agent_1\.memory_of=agent_2: agent_2 is listed after agent_1"),
        ({"owner": "agent_1"}, r"agents\.agent_2\.memory_of=agent_1: .*"),
        ({"cast": [CHOICES[0], ("dqn", {**SMALL, "memory_size": 50}), CHOICES[2]]}, r"agents\.agent_1\.memory_size=50: has no"),
        ({"cast": [("ppo", {}), CHOICES[1], CHOICES[2]]}, r"agent_0 \(PPO\) has no memory that can be shared"),
        ({"kind": ParallelTrainer, "placement": "partitioned"}, r"trainer\.placement=partitioned: agents share a"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_told(how, error):
    if how.get("owner") == "agent_1":  # names itself: has a memory of its own, which the third one may share
        assert [memory.num_envs for memory in memories(make(**how))] == [1, 3, 3]
        return
    with pytest.raises(ConfigError, match=error):
        make(**how)


def test_a_shared_memory_is_on_the_host_and_not_fused():
    pytest.importorskip("jax")
    from functional_envs import Walk, make_trainer

    settings = {**SMALL, "memory_size": 60, "learning_starts": 100}
    cast = [
        (algorithm("dqn", "jax"), 2, settings),
        (algorithm("ddqn", "jax"), 1, {**settings, "memory_of": "a0"}),
    ]
    with pytest.raises(ConfigError, match=r"trainer\.fused=.*dqn shares its memory, which is on the host; use auto or false"):
        make_trainer(cast, Walk(), timesteps=30)
    trainer = make_trainer(cast, Walk(), timesteps=30, fused="auto")
    trainer.train()
    assert [(memory.filled, memory.num_envs) for memory in memories(trainer)] == [(20, 3), (20, 3)]


# -- from the command line ---------------------------------------------------------------------------------------------

RUN = (
    "train", "agents=[a:dqn,b:ddqn]", "agents_scope=[2,2]", "env.num_envs=4", "agents.b.memory_of=a", "trainer.timesteps=40",
    "agents.a.learning_starts=10", "agents.b.learning_starts=15", "agents.a.batch_size=8", "agents.b.batch_size=8",
    "agents.a.memory_size=120", "agents.b.prioritized=true", "agents.a.network.sizes=[8]", "agents.b.network.sizes=[8]",
    "seed=3", "checkpoints.memory=true", "tracking.tensorboard=false",
)  # fmt: skip


def sha(run: Path) -> list[str]:
    return [agent["parameters_sha256"] for agent in summary(run)["agents"].values()]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_lock_step_is_sequential_and_either_goes_on_from_the_other(backend, here):
    pytest.importorskip(backend)
    for name, timesteps, trainer in (("whole", 40, "sequential"), ("run", 25, "parallel")):
        result = call(*RUN, f"backend={backend}", f"trainer={trainer}", f"trainer.timesteps={timesteps}", f"run.dir={name}",
                      "schedule.horizon=40")  # fmt: skip
        assert result.status == 0, result.err
    assert "placement: shared, agents share a memory" in result.text and verify(latest(here / "run"))["exact_resume"]
    result = call("train", "resume=run", "trainer.timesteps=40")
    assert result.status == 0 and "exact" not in result.text, result.err
    assert sha(here / "run") == sha(here / "whole") and everything(here / "run") == everything(here / "whole")
    assert call("eval", "run", "episodes=2", "env.num_envs=2").status == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["agents.a.memory_size=7", "agents.a.batch_size=4"], ["agents.a.memory_size=7", "4 copies", "at least 8"]),
        (["agents.b.batch_size=130"], ["agents.a.memory_size=120", "agents.b.batch_size=130"]),
        (["trainer=parallel", "trainer.placement=partitioned"], ["trainer.placement=partitioned", "use shared or auto"]),
        (["agents.b.memory_of=c"], ["agents.b.memory_of=c", "no other agent of that name"]),
    ],
)
def test_what_does_not_fit_is_told_before_the_run(overrides, words, here):
    keys = {override.partition("=")[0] for override in overrides}
    base = [override for override in RUN[1:] if override.partition("=")[0] not in keys]
    assert_one_error(call("train", *base, *overrides), 2, *words)


def test_what_a_run_shares_is_fixed(here):
    assert call(*RUN, "trainer.timesteps=5", "run.dir=run").status == 0
    assert_one_error(call("train", "resume=run", "agents.b.memory_of=null"), 2, "agents.b.memory_of=null", "started with a")
