"""Off-policy agents in trainers: resumed = uninterrupted, alone = beside others, evaluation in between changes nothing."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from command_line import call, summary
from resumed import resumed
from test_resume import at, everything, latest, send  # noqa: F401

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.ddqn.torch import DDQN
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.ppo.torch import PPO
from rltrain.agents.sac.torch import SAC
from rltrain.agents.td3.torch import TD3
from rltrain.checkpoints import verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import SequentialTrainer

SEED, TIMESTEPS = 5, 60
SMALL: dict[str, Any] = {"learning_starts": 12, "batch_size": 8, "memory_size": 120}  # smaller than the run
Q, AC = {"network": {"sizes": [8]}}, {"network": {"policy_sizes": [8], "critic_sizes": [8]}}
CAST: dict[str, tuple[Any, dict[str, Any]]] = {
    "dqn": (DQN, {**SMALL, **Q, "target_update_interval": 10}),
    "ddqn+": (DDQN, {**SMALL, **Q, "prioritized": True, "n_steps": 3, "normalize_observations": True, "gradient_steps": "auto"}),
    "sac": (SAC, {**SMALL, **AC}),
    "sac+": (SAC, {**SMALL, **AC, "prioritized": True, "n_steps": 2, "update_interval": 5, "learning_rate_schedule": "linear"}),
    "td3": (TD3, {**SMALL, **AC, "gradient_steps": 1}),
    "ddpg": (DDPG, {**SMALL, **AC, "noise": "ornstein_uhlenbeck", "update_interval": 2, "normalize_observations": True}),
    "ppo": (PPO, {"rollout_length": 8, "epochs": 1, "minibatches": 2, "network": {"policy_sizes": [8], "value_sizes": [8]}}),
}
CASES = [
    ("CartPole-v1", "dqn"), ("CartPole-v1", "ddqn+"), ("CartPole-v1", "sac"), ("Pendulum-v1", "sac+"), ("Pendulum-v1", "td3"),
    ("Pendulum-v1", "ddpg"),
]  # fmt: skip


def make(
    env_id: str, parts: Sequence[str], sizes: Sequence[int], *, first: int = 0, indices: Sequence[int] = (),
    timesteps: int = TIMESTEPS, seed: int = SEED,
) -> SequentialTrainer:  # fmt: skip
    """Return a trainer of one agent per part on copies `first` and up; an agent's index is its place unless given."""
    cfg = {"id": env_id, "num_envs": sum(sizes), "kwargs": {"max_episode_steps": 11}}  # both kinds of ends
    env = GymnasiumEnv(cfg, seed=SEED, first_copy=first)
    evaluation_env = GymnasiumEnv(cfg, seed=SEED, first_copy=first, role=EVALUATION_ENVIRONMENTS)
    agents = []
    for place, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        algorithm, settings = CAST[part]
        index = indices[place] if indices else place
        spaces = env.observation_space, env.action_space
        agents.append(Agent(algorithm(*spaces, num_envs=size, cfg=settings, seed=seed, index=index), name=f"agent_{index}"))
    how = {"timesteps": timesteps, "disable_progressbar": True}
    return SequentialTrainer(env, agents, list(sizes), how, evaluation_env=evaluation_env, horizon=TIMESTEPS)


def trained(trainer: SequentialTrainer) -> list[dict[str, Any]]:
    trainer.train()
    return [agent.snapshot() for agent in trainer.agents]


@functools.cache
def alone(env_id: str, part: str, size: int, first: int, index: int) -> dict[str, Any]:
    """Return the agent that nobody stood beside."""
    (snapshot,) = trained(make(env_id, [part], [size], first=first, indices=[index]))
    return snapshot


@pytest.mark.parametrize(("env_id", "part"), CASES)
@pytest.mark.parametrize("stop", [1, 12, 13, 41, 59])
def test_resumed_is_uninterrupted(env_id, part, stop):
    """1 is in the warm-up, 12 its end, 13 follows the first update, at 41 the memory of 60 timesteps or fewer goes round."""
    whole = resumed(lambda timesteps: make(env_id, [part], [3], timesteps=timesteps), TIMESTEPS, stop)
    algorithm = whole.agents[0].algorithm
    assert algorithm.gradient_steps > 5 and algorithm.memory.filled == 40 < TIMESTEPS
    assert algorithm.memory.read()["truncated"].any()


@pytest.mark.parametrize(
    ("env_id", "parts", "sizes"),
    [
        ("CartPole-v1", ["dqn", "ddqn+"], [3, 2]),
        ("CartPole-v1", ["ppo", "sac", "dqn"], [2, 1, 3]),
        ("Pendulum-v1", ["td3", "sac+", "ddpg"], [1, 2, 3]),
    ],
)
def test_every_agent_learns_what_it_would_learn_alone(env_id, parts, sizes):
    together = trained(make(env_id, parts, sizes))
    for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        np.testing.assert_equal(together[i], alone(env_id, part, size, sum(sizes[:i]), i))


@pytest.mark.parametrize(("env_id", "part"), CASES)
def test_the_same_command_twice_is_the_same_and_another_seed_is_not(env_id, part):
    first = alone(env_id, part, 3, 0, 0)
    np.testing.assert_equal(first, trained(make(env_id, [part], [3]))[0])
    other = trained(make(env_id, [part], [3], seed=6))[0]
    assert not np.array_equal(*(s["training"]["algorithm"]["memory"]["arrays"]["actions"] for s in (first, other)))


@pytest.mark.parametrize(("env_id", "part"), CASES)
def test_an_evaluation_in_between_changes_nothing(env_id, part):
    trainer = make(env_id, [part], [3], timesteps=7)
    trainer.train()
    returns = trainer.eval(episodes=4)["agent_0"]["returns"]
    assert trainer.eval(episodes=4)["agent_0"]["returns"] == returns  # in the warm-up, yet nothing is random
    trainer.timesteps = TIMESTEPS
    np.testing.assert_equal(trained(trainer)[0], alone(env_id, part, 3, 0, 0))


@pytest.mark.parametrize(("env_id", "part"), CASES)
def test_without_its_memory_a_resume_is_not_exact_and_fills_it_first(env_id, part):
    stopped = make(env_id, [part], [3], timesteps=40)
    stopped.agents[0].algorithm.keeps_memory = False
    stopped.train()
    saved, exact = copy.deepcopy(stopped.snapshot())
    assert not exact
    again = make(env_id, [part], [3])
    again.restore(saved)
    again.timesteps = 52
    again.train()
    before, after = (trainer.agents[0].algorithm for trainer in (stopped, again))
    assert after.gradient_steps == before.gradient_steps and after.memory.filled == 12
    again.timesteps = TIMESTEPS
    again.train()
    assert after.gradient_steps > before.gradient_steps and after.memory.filled == 20


RUN = (
    "agents=dqn", "env.num_envs=2", "trainer.timesteps=80", "agents.dqn.learning_starts=10", "agents.dqn.batch_size=8",
    "agents.dqn.memory_size=100", "agents.dqn.prioritized=true", "evaluation.interval=40", "evaluation.episodes=2", "seed=3",
)  # fmt: skip


def test_a_run_with_its_memory_in_the_checkpoint_resumes_to_the_bit(at, here):  # noqa: F811
    assert call("train", *RUN, "checkpoints.memory=true", "run.dir=whole").status == 0
    at(53, send("SIGTERM"))
    assert call("train", *RUN, "checkpoints.memory=true", "run.dir=run").status == 143
    assert verify(latest(here / "run"))["exact_resume"] is True
    at(-1, None)
    result = call("train", "resume=run")
    assert result.status == 0 and "memory" not in result.text
    numbers = everything(here / "run")
    assert numbers == everything(here / "whole") and len(numbers) > 50
    assert summary(here / "run")["agents"] == summary(here / "whole")["agents"]


def test_a_run_without_says_once_that_it_is_not_exact(at, here):  # noqa: F811
    at(53, send("SIGTERM"))
    assert call("train", *RUN, "run.dir=run").status == 143
    assert verify(latest(here / "run"))["exact_resume"] is False
    at(-1, None)
    result = call("train", "resume=run")
    assert result.status == 0
    sentence = "agents.dqn: the checkpoint has no memory, which fills anew before learning goes on (exact_resume is false)"
    assert (here / "run" / "train.log").read_text().count(sentence) == 1


@pytest.mark.parametrize(
    ("placement", "memory"),
    [
        ("partitioned", True),
        pytest.param("partitioned", False, marks=pytest.mark.slow),
        pytest.param("shared", True, marks=pytest.mark.slow),
        pytest.param("shared", False, marks=pytest.mark.slow),
    ],
)
def test_parallel_is_sequential(placement, memory, here):
    run = (
        "train", "agents=[dqn,sac]", "env.num_envs=5", "agents_scope=[2,3]", "trainer.timesteps=60", "checkpoints.interval=25",
        "agents.dqn.learning_starts=10", "agents.dqn.batch_size=8", "agents.dqn.memory_size=60", "agents.sac.learning_starts=15",
        "agents.sac.batch_size=8", "agents.sac.memory_size=60", "agents.sac.network.policy_sizes=[8]",
        "agents.sac.network.critic_sizes=[8]", "evaluation.interval=30", "evaluation.episodes=2", "seed=3",
        f"checkpoints.memory={str(memory).lower()}",
    )  # fmt: skip
    assert call(*run, "run.dir=sequential").status == 0
    result = call(*run, "trainer=parallel", f"trainer.placement={placement}", "run.dir=parallel")
    assert result.status == 0, result.err
    assert "has no memory" not in result.text
    for name in ("sequential", "parallel"):
        assert verify(latest(here / name))["exact_resume"] is memory
    assert summary(here / "sequential")["agents"] == summary(here / "parallel")["agents"]
    numbers = [{key: value for key, value in everything(here / name).items()} for name in ("sequential", "parallel")]
    assert numbers[0] == numbers[1]
