"""Teams of named agents on the command line: metrics, checkpoints, exact resume, evaluation, in every trainer."""

import json
import signal

import numpy as np
import pytest
from command_line import assert_one_error, call, merged, rows, summary
from run_folders import assert_same_runs, checkpoints_of

pytest.importorskip("pettingzoo")

from rltrain.agents.base import Agent
from rltrain.checkpoints import tree_sha256

SMALL = (
    "seed=1",
    "env=pettingzoo",
    "env.id=team_envs:Corners",
    "env.num_envs=4",
    "tracking.interval=20",
    "tracking.tensorboard=false",
)
RELAY = ("env.id=team_envs:Relay",)
SIZES = ("rollout_length=16", "epochs=2", "minibatches=2", "network.policy_sizes=[8]", "network.value_sizes=[8]")
KILL_AT = """
import os, rltrain.agents.base as base
def pre_interaction(self, timestep, timesteps):
    if timestep == {}:
        os.kill(os.getpid(), 9)
base.Agent.pre_interaction = pre_interaction
"""


def of(*agents):
    return [f"agents.{name}.{setting}" for name in agents for setting in SIZES]


def train(*overrides, agents=("ippo",), status=0):
    result = call("train", *merged(SMALL, (f"agents=[{','.join(agents)}]", *of(*agents), *overrides)))
    assert result.status == status, result.err
    return result


def test_rows_summary_and_evaluation_of_members(here):
    result = train("run.dir=run", "total_env_steps=320", "evaluation.interval=40", "evaluation.episodes=4", agents=["mappo"])
    assert "critics read the observations of all members" in result.err
    row = rows(here / "run")[-1]
    means = [row[f"members/a_{i}/episode_return_mean"] for i in range(3)]
    assert row["rollout/episode_return_mean"] == pytest.approx(np.mean(means)) and row["rollout/episode_length_mean"] == 5
    assert row["env_steps"] == 320 and row["rollout/episodes"] == 64  # of copies, however many members act
    evaluated = [row[f"members/a_{i}/evaluation_return_mean"] for i in range(3)]
    assert row["evaluation/episode_return_mean"] == pytest.approx(np.mean(evaluated))
    ended = summary(here / "run")
    assert ended["env_steps"] == 320 and ended["environment"]["state"] == "joined"
    assert [ended["agents"]["mappo"]["members"][f"a_{i}"]["episodes"] for i in range(3)] == [64] * 3
    result = call("eval", "run", "episodes=6", "json=true")
    figures = json.loads(result.out)["agents"]["mappo"]
    means = [figures["members"][f"a_{i}"]["mean"] for i in range(3)]
    assert figures["mean"] == pytest.approx(np.mean(means)) and figures["sum_mean"] == pytest.approx(np.sum(means))
    assert figures["episodes"] == 6 and figures["members"]["a_2"]["episodes"] == 6
    result = call("eval", "run", "episodes=6")
    assert "mean of the members' sum" in result.out and "mean of a_2" in result.out


def test_figures_of_members_that_come_and_go(here):
    """Known by heart: 1 + 2 for early, 10 x (2 + 3 + 4) for late, 1 + 2 + 3 + 4 for steady."""
    train("run.dir=run", "total_env_steps=160", *RELAY)
    members = summary(here / "run")["agents"]["ippo"]["members"]
    assert {name: (member["episode_return_mean"], member["episode_length_mean"]) for name, member in members.items()} == {
        "early": (3, 2), "late": (90, 3), "steady": (10, 4)
    }  # fmt: skip
    assert [member["env_steps"] for member in members.values()] == [80, 120, 160]
    figures = json.loads(call("eval", "run", "episodes=6", "json=true").out)["agents"]["ippo"]
    assert figures["mean"] == pytest.approx(103 / 3) and figures["sum_mean"] == 103 and figures["length_mean"] == 4
    assert figures["members"]["late"]["mean"] == 90 and figures["members"]["late"]["length_mean"] == 3


@pytest.mark.parametrize(("env", "timestep"), [("Corners", 17), ("Relay", 46), pytest.param("Relay", 39, marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted(env, timestep, here, monkeypatch):
    """17 is in the middle of a rollout and an episode, 39 is followed by an evaluation, at 46 a member has just left."""
    more = (
        f"env.id=team_envs:{env}",
        "trainer.timesteps=60",
        "evaluation.interval=40",
        "evaluation.episodes=3",
        "checkpoints.interval=30",
    )
    train("run.dir=whole", *more, agents=["mappo"])

    at = timestep

    def stop(self, timestep, timesteps):
        if timestep == at:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "pre_interaction", stop)
        train("run.dir=run", *more, agents=["mappo"], status=143)
    result = call("train", "resume=run")
    assert result.status == 0, result.err
    assert rows(here / "run") == rows(here / "whole")
    one, other = (checkpoints_of(run)["60"] for run in (here / "run", here / "whole"))
    np.testing.assert_equal(one, other)
    assert one["manifest"]["exact_resume"] and one["manifest"]["env_steps"] == 240


def test_killed_and_resumed_is_uninterrupted(here, zygote):
    """Killed at 45, in the middle of a rollout and an episode of 25 steps; the last checkpoint is that of 40."""
    pytest.importorskip("mpe2")
    more = ("env.id=mpe/simple_spread_v3", "env.num_envs=2", "trainer.timesteps=80", "checkpoints.interval=20")
    train("run.dir=whole", *more)
    command = merged(SMALL, ("agents=ippo", *of("ippo"), *more, "run.dir=run"))
    assert zygote.run("train", *command, before=KILL_AT.format(45)).status == -signal.SIGKILL
    assert (here / "run/checkpoints/latest").read_text().strip() == "40"
    result = call("train", "resume=run")
    assert result.status == 0, result.err
    assert_same_runs(here / "run", here / "whole")


TEAMS = ("trainer.timesteps=50", "evaluation.interval=25", "evaluation.episodes=3", "agents_scope=[1,3]")


@pytest.fixture(scope="module")
def sequential(tmp_path_factory):
    run = tmp_path_factory.mktemp("teams") / "run"
    train(f"run.dir={run}", *TEAMS, *RELAY, agents=["mappo", "ippo"])
    return run


@pytest.mark.parametrize(
    "trainer",
    [
        ("step",),
        ("parallel", "trainer.placement=partitioned"),
        pytest.param(("parallel", "trainer.placement=shared"), marks=pytest.mark.slow),
    ],
)
def test_every_trainer_comes_to_the_same(trainer, here, sequential):
    train("run.dir=run", f"trainer={trainer[0]}", *trainer[1:], *TEAMS, *RELAY, agents=["mappo", "ippo"])
    assert rows(here / "run") == rows(sequential)
    np.testing.assert_equal(checkpoints_of(here / "run")["50"], checkpoints_of(sequential)["50"])


def test_a_team_beside_another_learns_what_it_would_alone(here, sequential):
    train("run.dir=run", *TEAMS[:-1], *RELAY, "env.num_envs=1", agents=["mappo"])
    alone, beside = (checkpoints_of(run)["50"]["agents/mappo/policy"] for run in (here / "run", sequential))
    assert tree_sha256(alone) == tree_sha256(beside)


def test_members_infos_are_numbers_to_track(here):
    train("run.dir=run", "trainer.timesteps=20", "tracking.infos=[steady.count,late.count]", *RELAY)
    row = rows(here / "run")[-1]
    assert (row["info/steady.count"], row["info/late.count"]) == (2.5, 3)  # of 1 2 3 4 and of 2 3 4


def test_settings_by_member(here):
    more = ("agents.ippo.parameter_sharing=none", "agents.ippo.overrides.a_1.learning_rate=0.5", "trainer.timesteps=20")
    train("run.dir=run", *more)
    row = rows(here / "run")[-1]
    assert row["groups/a_1/policy/learning_rate"] == 0.5 and row["groups/a_0/policy/learning_rate"] == 2.5e-4
    result = call("train", "resume=run", "agents.ippo.overrides.a_1.learning_rate=0.1")
    assert_one_error(result, 2, "agents.ippo.overrides", "the run was started with")


def test_random_actions_stand_beside_a_team(here):
    """In the relay everyone is paid by the number of the step, whoever acts: 1 + 2, 10 x (2 + 3 + 4) and 1 + 2 + 3 + 4."""
    train("run.dir=run", "trainer.timesteps=20", *RELAY)
    told = json.loads(call("eval", "run", "episodes=6", "json=true").out)
    at_random = told["random"]["ippo"]
    assert (at_random["episodes"], at_random["sum_mean"]) == (6, 103) and at_random["mean"] == pytest.approx(103 / 3)
    assert {name: member["mean"] for name, member in at_random["members"].items()} == {"early": 3, "late": 90, "steady": 10}
    assert json.loads(call("eval", "run", "episodes=6", "json=true", "random=true").out) == told
    assert call("eval", "run", "episodes=6").out.count("ippo at random") == 1
    without = call("eval", "run", "episodes=6", "json=true", "random=false")
    assert json.loads(without.out) == {"agents": told["agents"]}


def test_random_actions_are_asked_for_beside_one_agent(here, trained):
    assert "random" not in json.loads(call("eval", str(trained), "episodes=2", "json=true").out)
    assert "random" in json.loads(call("eval", str(trained), "episodes=2", "json=true", "random=true").out)


def test_an_algorithm_for_one_agent_is_refused(here):
    result = call("train", *merged(SMALL, ("agents=ppo", "run.dir=run")))
    assert_one_error(result, 2, "agents.ppo=PPO: team_envs:Corners has named agents (a_0, a_1, a_2)", "use ippo or mappo")
    result = call("train", "agents=ippo", "run.dir=run")
    assert_one_error(result, 2, "agents.ippo=IPPO: plays environments with named agents", "use ppo")
    assert not (here / "run").exists()


@pytest.mark.parametrize("env", ["Doors", "DoorsInInfos", "DoorsInTurns"])
def test_masks_are_honoured_by_learning_evaluation_and_random_actions(env, here):
    """A member that takes a door which is masked ends the run."""
    train("run.dir=run", f"env.id=team_envs:{env}", "trainer.timesteps=40", "checkpoints.interval=18")
    whole = summary(here / "run")["agents"]["ippo"]
    told = json.loads(call("eval", "run", "episodes=6", "json=true").out)
    assert told["agents"]["ippo"]["sum_mean"] == told["random"]["ippo"]["sum_mean"] == 8
    train("run.dir=part", f"env.id=team_envs:{env}", "trainer.timesteps=18", "schedule.horizon=40")
    assert call("train", "resume=part", "trainer.timesteps=40").status == 0
    assert summary(here / "part")["agents"]["ippo"]["parameters_sha256"] == whole["parameters_sha256"]


def test_an_environment_that_fails_names_where_and_leaves_a_checkpoint(here):
    result = train("run.dir=run", "env.id=team_envs:Failing", "trainer.timesteps=20", status=1)
    assert "error: env.id=team_envs:Failing: copy 0: step at step 2: RuntimeError: out of batons\nTraceback" in result.err
    assert (here / "run/checkpoints/latest").read_text().strip() == "2"


def test_kwargs_and_presets_of_simple_spread(here):
    """Two agents and three steps an episode, the critic reading both observations of 12 numbers, and whose row it is."""
    result = call(
        "train", "experiment=mappo_spread", "env.kwargs.N=2", "env.kwargs.max_cycles=3", "env.num_envs=2", "run.dir=run",
        "total_env_steps=100", "tracking.tensorboard=false", "agents.mappo.epochs=1", "seed=1",
    )  # fmt: skip
    assert result.status == 0, result.err
    row = rows(here / "run")[-1]
    assert row["rollout/episode_length_mean"] == 3 and {"members/agent_0/episode_return_mean", "loss/value"} <= row.keys()
    parameters = checkpoints_of(here / "run")["50"]["agents/mappo/policy"]["groups"]["agent"]["parameters"]
    assert {array.shape[1] for name, array in parameters.items() if array.ndim == 2} == {2 * 12 + 2, 12 + 2, 64}
