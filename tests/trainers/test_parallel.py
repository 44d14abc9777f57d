"""The parallel trainer is equal to the sequential one, bit for bit, in both placements and both backends."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, rows, summary, wait_until
from diary_agents import Diary
from resumed import kept
from run_folders import assert_same_runs, checkpoints_of

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import ParallelTrainer, SequentialTrainer, Trainer

SMALL = {"rollout_length": 8, "epochs": 2, "minibatches": 2, "network": {"policy_sizes": [8], "value_sizes": [8]}}
RUN = (
    "train", "agents=[ppo,a2c]", "agents_scope=[2,3]", "seed=1", "env.num_envs=5", "trainer.timesteps=100",
    "agents.ppo.rollout_length=16", "agents.ppo.epochs=2", "agents.a2c.rollout_length=5", "checkpoints.interval=35",
    "checkpoints.keep=20", "evaluation.interval=30", "evaluation.episodes=3", "tracking.interval=25",
    "tracking.tensorboard=false", "tracking.infos=[reward_survive]",
)  # fmt: skip
ENVIRONMENTS = {"torch": ("env=Hopper-v5",), "jax": ("env=CartPole-v1",)}


def train(run: Path, *overrides: str) -> Any:
    result = call(*RUN, f"run.dir={run}", *overrides)
    assert result.status == 0, result.err
    return result


@pytest.fixture(scope="module")
def sequential(tmp_path_factory):
    """The run of the sequential trainer, by backend."""

    @functools.cache
    def of(backend: str) -> Path:
        run = tmp_path_factory.mktemp("sequential") / backend
        train(run, f"backend={backend}", *ENVIRONMENTS[backend])
        return run

    return of


@pytest.mark.parametrize(
    ("placement", "backend"),
    [
        ("partitioned", "jax"),
        pytest.param("shared", "torch", marks=pytest.mark.slow),
        pytest.param("partitioned", "torch", marks=pytest.mark.slow),
        pytest.param("shared", "jax", marks=pytest.mark.slow),
    ],
)
def test_parallel_is_sequential(placement, backend, sequential, tmp_path):
    pytest.importorskip({"torch": "mujoco", "jax": "jax"}[backend])
    run = tmp_path / "run"
    result = train(run, f"backend={backend}", *ENVIRONMENTS[backend], "trainer=parallel", f"trainer.placement={placement}")
    assert_same_runs(run, sequential(backend))
    assert f"placement: {placement}" in result.err
    assert len(rows(run)) == 2 * 7 and len(summary(run)["agents"]["ppo"]["best"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["partitioned", "shared"])
def test_parallel_is_sequential_without_snapshots_and_at_a_resume_of_such(placement, tmp_path):
    """Box2D's state can't be had: slices are reset as the whole was."""
    how = ("env=LunarLander-v3", "schedule.horizon=120")
    for kind in (("trainer=sequential",), ("trainer=parallel", f"trainer.placement={placement}")):
        run = tmp_path / kind[0]
        train(run, *how, *kind, "trainer.timesteps=60")
        assert call("train", f"resume={run}", "trainer.timesteps=120").status == 0
    assert_same_runs(tmp_path / "trainer=sequential", tmp_path / "trainer=parallel")


@pytest.mark.slow
def test_copies_in_processes_of_their_own_and_jobs_of_joblib(sequential, tmp_path):
    """Workers may have processes of their own, and be those of a process that is one itself."""
    run = tmp_path / "run"
    train(run, *ENVIRONMENTS["torch"], "trainer=parallel", "env.vectorization=async")
    assert_same_runs(run, sequential("torch"))
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path}/sweep")
    command = [sys.executable, "-m", "rltrain", *RUN, *ENVIRONMENTS["torch"], "-m", "trainer=sequential,parallel", *launcher]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert_same_runs(tmp_path / "sweep/0_trainer-sequential", tmp_path / "sweep/1_trainer-parallel")


# -- in a script -------------------------------------------------------------------------------------------------------------


def make(kind: type[Trainer] = ParallelTrainer, timesteps: int = 40, agents: type[Agent] = Agent, **cfg: Any) -> Trainer:
    """Return a trainer of two agents on five copies of CartPole."""
    vectorization = cfg.pop("vectorization", "auto")
    settings = {"id": "CartPole-v1", "num_envs": 5, "vectorization": vectorization}
    env = GymnasiumEnv(settings, seed=3)
    made = [
        agents(PPO(env.observation_space, env.action_space, num_envs=copies, cfg=SMALL, seed=3, index=i), name="AB"[i])
        for i, copies in enumerate((2, 3))
    ]
    cfg = {"timesteps": timesteps, "disable_progressbar": True, **cfg}
    evaluation_env = GymnasiumEnv(settings, seed=3, role=EVALUATION_ENVIRONMENTS)
    return kind(env, made, [2, 3], cfg, evaluation_env=evaluation_env, horizon=90)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["partitioned", "shared"])
def test_the_trainer_holds_everything_afterwards(placement):
    """Between calls it is as a sequential one: evaluation, a snapshot, training on, also by another trainer."""
    parallel, sequential = make(placement=placement), make(SequentialTrainer)
    for trainer in (parallel, sequential):
        trainer.train()
    np.testing.assert_equal(kept(parallel), kept(sequential))
    assert parallel.eval(episodes=4) == sequential.eval(episodes=4)
    there, back = make(SequentialTrainer, 90), make(timesteps=90, placement=placement)
    there.restore(kept(parallel))
    back.restore(kept(sequential))
    for trainer in (parallel, sequential):
        trainer.timesteps = 90
    for trainer in (parallel, sequential, there, back):
        trainer.train()
    for trainer in (parallel, there, back):
        np.testing.assert_equal(kept(trainer), kept(sequential))


def test_an_environment_that_cannot_be_split_is_shared():
    trainer = make(vectorization="native")
    assert trainer.placement == "shared"
    with pytest.raises(ConfigError) as raised:
        make(vectorization="native", placement="partitioned")
    assert str(raised.value) == "trainer.placement=partitioned: the environment can't be split; use shared or auto"


def test_one_agent_runs_as_sequential_said_once():
    said = []
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=0)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=2, cfg=SMALL))
    trainer = ParallelTrainer(env, agent, cfg={"timesteps": 10, "disable_progressbar": True})
    trainer.run.say = said.append  # type: ignore[method-assign]
    trainer.train()
    assert trainer.timestep == 10
    assert said == ["trainer=parallel: one agent runs as with trainer=sequential"]


def test_nobody_drifts_too_far_and_hooks_are_called_in_workers(tmp_path, monkeypatch):
    diary = tmp_path / "diary"
    monkeypatch.setenv("DIARY", str(diary))
    make(agents=Diary, max_drift=5, timesteps=100).train()
    lines = [line.split() for line in diary.read_text().splitlines()]
    assert [[int(t) for name, t, _ in lines if name == agent] for agent in "AB"] == [list(range(100))] * 2
    assert len({pid for *_, pid in lines} | {str(os.getpid())}) == 3
    at, furthest = {"A": 0, "B": 0}, 0
    for name, timestep, _ in lines:
        at[name] = int(timestep)
        furthest = max(furthest, at["A"] - at["B"])
    assert 2 <= furthest <= 6  # B may have begun a timestep and not yet written so


# -- what can't travel -------------------------------------------------------------------------------------------------------


def test_what_cannot_travel_is_told():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 4}, seed=0, make=lambda: __import__("gymnasium").make("CartPole-v1"))
    agents = [Agent(PPO(env.observation_space, env.action_space, num_envs=2, cfg=SMALL), name=name) for name in "AB"]
    trainer = ParallelTrainer(env, agents, cfg={"timesteps": 10, "disable_progressbar": True})
    with pytest.raises(
        ConfigError, match=r"^env.id=CartPole-v1: can't be sent to a worker process: .*; use classes and functions at"
    ):
        trainer.train()
    trainer = make()
    assert trainer.agents[1].recipe is not None
    trainer.agents[1].recipe[2]["key"] = lambda: "agents.B"
    with pytest.raises(ConfigError, match=r"^agents.B=PPO: can't be sent to a worker process"):
        trainer.train()
    trainer.agents[1].recipe = None
    with pytest.raises(ConfigError, match=r"^agents.B=PPO: doesn't say how it was made"):
        trainer.train()


SCRIPT = """
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import ParallelTrainer

env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 4}, seed=0)
agents = [Agent(PPO(env.observation_space, env.action_space, num_envs=2), name=name) for name in "AB"]
ParallelTrainer(env, agents, cfg={"timesteps": 10, "disable_progressbar": True}).train()
"""


def test_a_script_without_a_main_guard_is_told_once(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.count("put what it does under `if __name__ == '__main__':`") == 1
    assert result.stderr.count("Traceback") == 1


# -- stopping ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["partitioned", pytest.param("shared", marks=pytest.mark.slow)])
def test_a_signal_stops_all_at_one_timestep_and_either_trainer_goes_on(placement, zygote, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    timesteps = ("trainer.timesteps=2000", "evaluation.interval=100", "checkpoints.interval=400")
    train(whole, *timesteps)
    how = (*timesteps, "trainer=parallel", f"trainer.placement={placement}", f"run.dir={stopped}")
    process = zygote.start(*RUN, *how)
    wait_until(lambda: (stopped / "metrics.jsonl").exists() and len(rows(stopped)) > 10, 60)
    process.send(signal.SIGTERM)
    result = process.wait()
    assert result.status == 143, result.err
    timestep = max(int(name) for name in checkpoints_of(stopped) if name.isdigit())
    assert summary(stopped)["exit_reason"] == "stopped by SIGTERM" and 0 < summary(stopped)["timestep"] == timestep < 2000
    assert f"stopped by SIGTERM at timestep {timestep:,}" in result.err
    assert call("train", f"resume={stopped}", "trainer=sequential").status == 0
    assert rows(whole) == rows(stopped)
    assert summary(whole)["agents"] == summary(stopped)["agents"]
    np.testing.assert_equal(checkpoints_of(whole)["2000"], checkpoints_of(stopped)["2000"])
