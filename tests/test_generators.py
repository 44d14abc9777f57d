"""Environments that draw from their process's generators: repeatable, resumed exactly, told. A script keeps its own."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import call, merged, summary, train
from dicing_envs import Dicing, DicingTeam
from run_folders import checkpoints_of

from rltrain import generators
from rltrain.agents.base import Agent
from rltrain.agents.ippo.torch import IPPO
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.runs import Run
from rltrain.trainers import SequentialTrainer, StepTrainer

DICING = ("env=dicing_envs:Dicing-v0", "agents.ppo.rollout_length=16", "trainer.timesteps=60")
TWO = ("agents=[ppo,fast:ppo]", "agents.fast.rollout_length=20", "agents.fast.network.policy_sizes=[8]", "agents_scope=[1,3]")
OFTEN = ("checkpoints.interval=7", "evaluation.interval=11", "evaluation.episodes=3")
TEAM = (
    "train", "env=pettingzoo", "env.id=dicing_envs:DicingTeam", "env.num_envs=2", "agents=ippo", "trainer.timesteps=60", "seed=1",
    "agents.ippo.rollout_length=16", "tracking.tensorboard=false",
)  # fmt: skip


def states():
    return generators.read()


def assert_ends_alike(one, other):
    """Compare everything in the last checkpoints."""
    checkpoints = [checkpoints_of(run)["60"] for run in (one, other)]
    np.testing.assert_equal(*checkpoints)


def hashes(run):
    return {name: agent["parameters_sha256"] for name, agent in summary(run)["agents"].items()}


def exact(run, timestep):
    return json.loads((run / "checkpoints" / str(timestep) / "manifest.json").read_text())["exact_resume"]


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("env.vectorization=async", "env.num_envs=2"),
        ("trainer=step",),
        pytest.param((*TWO, "trainer=parallel", "trainer.placement=shared"), marks=pytest.mark.slow),
        pytest.param((*TWO, "trainer=parallel", "trainer.placement=partitioned"), marks=pytest.mark.slow),
    ],
    ids=["sync", "async", "step", "shared", "partitioned"],
)
def test_the_same_again_and_after_a_stop_and_whatever_is_evaluated_or_kept(more, here):
    """One run, the same with evaluations and checkpoints, and the same with a stop in the middle: equal to the bit."""
    before = states()
    train(*DICING, "run.dir=whole", *more)
    result = train(*DICING, "run.dir=often", *OFTEN, *more)
    said = [line for line in result.text.splitlines() if "generators that its whole process shares" in line]
    assert len(said) == 1 and "Dicing-v0" in said[0] and "self.np_random" in said[0], result.text
    assert "np.random, random, torch: " in said[0] and "checkpoints keep their states" in said[0]
    train(*DICING, "run.dir=stopped", *more, "trainer.timesteps=33", "schedule.horizon=60")
    assert exact(here / "stopped", 33) and exact(here / "often", 60)
    assert call("train", "resume=stopped", "trainer.timesteps=60").status == 0
    assert_ends_alike(here / "stopped", here / "whole")
    assert hashes(here / "often") == hashes(here / "whole")
    assert not generators.moved(before, states())  # the caller of a command keeps its own


def test_other_seeds_draw_other_numbers_and_an_evaluation_the_same_again(here):
    train(*DICING, "run.dir=one")
    train(*DICING, "run.dir=two", "seed=2")
    one, two = (summary(here / run)["agents"]["ppo"]["episode_return_mean"] for run in ("one", "two"))
    assert one != two
    returns = [json.loads(call("eval", "one", "episodes=5", "json=true").out)["agents"]["ppo"]["mean"] for _ in range(2)]
    assert returns[0] == returns[1]


def test_a_team_goes_on_from_its_attributes(here):
    pytest.importorskip("pettingzoo")
    for run, *more in (("whole",), ("often", *OFTEN), ("stopped", "trainer.timesteps=33", "schedule.horizon=60")):
        assert call(*merged(TEAM, (*more, f"run.dir={run}"))).status == 0
    assert exact(here / "stopped", 33)
    assert call("train", "resume=stopped", "trainer.timesteps=60").status == 0
    assert_ends_alike(here / "stopped", here / "whole")
    assert hashes(here / "often") == hashes(here / "whole")


def trainer_of(env, run=None, kind=SequentialTrainer, timesteps=20):
    cfg = {"rollout_length": 8, "network": {"policy_sizes": [8], "value_sizes": [8]}}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=env.num_envs, cfg=cfg, seed=0), name="ppo")
    return kind(env, agent, cfg={"timesteps": timesteps}, run=run)


def test_a_scripts_generators_are_never_touched_and_its_checkpoints_say_so(here, capsys):
    """The script's seed decides what the environment draws; rltrain draws, seeds and restores nothing."""
    drawn = []
    for _ in range(2):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        env = GymnasiumEnv({"id": "own", "num_envs": 1}, seed=0, make=Dicing)
        trainer = trainer_of(env, Run(directory=here / f"run{len(drawn)}"))
        trainer.train()
        drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
    assert "exact_resume is false" in capsys.readouterr().err
    assert not exact(here / "run0", 20)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    alone = Dicing()
    alone.reset()
    for _ in range(20):
        if alone.step(0)[3]:
            alone.reset()
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == drawn[0]


@pytest.mark.parametrize("kind", [SequentialTrainer, StepTrainer])
def test_nothing_moves_where_the_environment_draws_from_its_own(kind, here):
    before = states()
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=0)
    trainer = trainer_of(env, Run(directory=here / "run"), kind)
    for _ in range(20 if kind is StepTrainer else 1):
        trainer.train()
    trainer.eval(episodes=2)
    assert exact(here / "run", 20) and not generators.moved(before, states())


def test_a_teams_trial_replay_leaves_the_generators(here):
    pytest.importorskip("pettingzoo")
    env = PettingZooEnv({"id": "own", "num_envs": 2}, seed=0, make=DicingTeam)
    agent = Agent(IPPO(env.observation_space, env.action_space, num_envs=2, seed=0), name="ippo")
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 10})
    trainer.train()
    before = states()
    trainer.snapshot()
    assert not generators.moved(before, states())


def test_torch_is_seeded_when_somebody_imports_it():
    """A process without torch imports none; the seed waits, and so do states that are put back."""
    code = """
import sys
from rltrain import generators
generators.seed(5)
before = generators.read()
assert "torch" not in sys.modules
import torch
assert generators.moved(before, generators.read()) == []
first = float(torch.rand(()))
assert generators.moved(before, generators.read()) == ["torch"]
torch.manual_seed(5)
assert first == float(torch.rand(())), first
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_state_comes_back():
    """Also the normal number that `random` and NumPy keep for later."""
    with generators.kept():
        random.gauss(0, 1), np.random.randn(1), torch.rand(3)
        start = generators.read()
        first = random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist()
        assert generators.moved(start, generators.read()) == ["random", "np.random", "torch"]
        generators.put(start)
        assert first == (random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist())
