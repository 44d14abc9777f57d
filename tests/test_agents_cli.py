"""A run of several agents on the command line: rows, checkpoints, a best each, evaluation, going on."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import assert_one_error, call, rows, summary
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointStore, read_manifest, read_part, tree_sha256, verify
from rltrain.trainers import Trainer

NAMES = ("fast", "slow")
SMALL = (
    "seed=1", "env.num_envs=4", "agents=[fast:ppo,slow:a2c]", "agents_scope=[1,3]", "agents.fast.rollout_length=20",
    "agents.fast.minibatches=2", "agents.fast.epochs=2", "agents.fast.network.policy_sizes=[8]",
    "agents.fast.network.value_sizes=[8]", "agents.slow.network.policy_sizes=[4]", "agents.slow.network.value_sizes=[4]",
    "trainer.disable_progressbar=true",
)  # fmt: skip
LENGTH = ("trainer.timesteps=60", "tracking.interval=20", "evaluation.interval=30", "evaluation.episodes=3")
SCORES = {"fast": {20: 1.0, 40: 5.0, 60: 2.0, 80: 3.0}, "slow": {20: 4.0, 40: 1.0, 60: 6.0, 80: 0.0}}
BEST = {"fast": 40, "slow": 60}


def store_of(run: Path) -> CheckpointStore:
    return CheckpointStore(run / "checkpoints")


def points_at(run: Path, name: str) -> Path:
    path = store_of(run).pointer(name)
    assert path is not None
    return path


def policy_sha256(checkpoint: Path, agent: str) -> str:
    return tree_sha256(read_part(checkpoint, f"agents/{agent}/policy", verify(checkpoint)))


def evaluated(*arguments: str) -> dict[str, Any]:
    """Evaluate and return what stands in eval.json."""
    shutil.rmtree("there", ignore_errors=True)
    result = call("eval", *arguments, "run.dir=there")
    assert result.status == 0, result.err
    return json.loads(Path("there/eval.json").read_text())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A finished run of 60 timesteps on CartPole, evaluated after 30 and 60; copy it to change it."""
    run = tmp_path_factory.mktemp("pair") / "run"
    result = call("train", *SMALL, *LENGTH, f"run.dir={run}")
    assert result.status == 0, result.err
    return run


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A run of 80 timesteps on Pendulum whose evaluations came out as SCORES: each agent was best at a time of its own."""
    run = tmp_path_factory.mktemp("scripted") / "run"

    def single_agent_eval(self, episodes=None):
        self.last_evaluation = {
            name: {"returns": [SCORES[name][self.timestep]], "lengths": [200], "successes": []} for name in NAMES
        }
        return self.last_evaluation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "single_agent_eval", single_agent_eval)
        every = ("trainer.timesteps=80", "evaluation.interval=20", "checkpoints.interval=10", "checkpoints.keep=1")
        result = call("train", *SMALL, *every, "env=Pendulum-v1", "tracking.tensorboard=false", f"run.dir={run}")
    assert result.status == 0, result.err
    (run / "closing.txt").write_text(result.out)
    return run


# -- what a run leaves -----------------------------------------------------------------------------------------------------


def test_every_agent_has_rows_of_its_own(pair):
    found = rows(pair)
    assert [(row["timestep"], row["agent"]) for row in found] == [(t, name) for t in (20, 30, 40, 60) for name in NAMES]
    for row in found:
        assert row["env_steps"] == row["timestep"] * {"fast": 1, "slow": 3}[row["agent"]]
        assert ("evaluation/episode_return_mean" in row) == (row["timestep"] in (30, 60))
        assert ("policy/clip_fraction" in row) == (row["agent"] == "fast" and row["timestep"] != 30)  # updates at 20, 40, 60
        assert ("loss/policy" in row) == (row["agent"] == "slow" or row["timestep"] != 30)  # A2C's, every 8


def test_every_agent_has_a_sub_run_in_tensorboard(pair):
    assert not list(pair.glob("events.*"))
    for name in NAMES:
        events = EventAccumulator(str(pair / name), size_guidance={"scalars": 0}).Reload()
        own = [row for row in rows(pair) if row["agent"] == name]
        tags = {tag for row in own for tag in row} - {"timestep", "env_steps", "agent"}
        assert set(events.Tags()["scalars"]) == tags | {"time/env_steps_per_second"}
        for tag in tags:
            expected = [(row["env_steps"], row[tag]) for row in own if tag in row]
            assert [event.step for event in events.Scalars(tag)] == [step for step, _ in expected]
            assert [event.value for event in events.Scalars(tag)] == [np.float32(value) for _, value in expected]


def test_every_agent_has_parts_of_a_checkpoint(pair):
    manifest = verify(points_at(pair, "latest"))
    parts = {f"agents/{name}/{part}.safetensors" for name in NAMES for part in ("policy", "training")}
    assert manifest["files"].keys() == parts | {"trainer.safetensors", "config.yaml"}
    assert (manifest["agents"], manifest["env_steps"]) == ({"fast": "PPO", "slow": "A2C"}, 240)
    told = summary(pair)["agents"]
    assert {name: told[name]["parameters_sha256"] for name in NAMES} == {
        name: policy_sha256(points_at(pair, "latest"), name) for name in NAMES
    }
    assert [(told[name]["env_steps"], told[name]["updates"]) for name in NAMES] == [(60, 3), (180, 7)]


def test_the_best_of_each_agent_is_its_first_best_evaluation(pair):
    for name in NAMES:
        scores = {
            row["timestep"]: row["evaluation/episode_return_mean"]
            for row in rows(pair)
            if row["agent"] == name and "evaluation/episode_return_mean" in row
        }
        timestep = max(scores, key=scores.__getitem__)
        assert summary(pair)["agents"][name]["best"] == {"score": scores[timestep], "timestep": timestep}
        assert points_at(pair, f"best-{name}").name == str(timestep)


def test_bests_stay_when_all_else_is_pruned(scripted):
    assert {path.name for path in (scripted / "checkpoints").iterdir()} == {"40", "60", "80", "latest", "best-fast", "best-slow"}
    for name in NAMES:
        assert points_at(scripted, f"best-{name}").name == str(BEST[name])
        assert verify(points_at(scripted, f"best-{name}"))["timestep"] == BEST[name]
        best = {"score": SCORES[name][BEST[name]], "timestep": BEST[name]}
        assert summary(scripted)["agents"][name]["best"] == best
        assert read_part(points_at(scripted, "latest"), "trainer", verify(points_at(scripted, "latest")))["best"][name] == best
    lines = (scripted / "closing.txt").read_text().splitlines()
    cells = {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[-3:-1]] for line in lines if "│" in line}
    assert cells == {"fast": ["5.0", "40"], "slow": ["6.0", "60"]}


# -- eval ------------------------------------------------------------------------------------------------------------------

TWO = ("episodes=2", "seed=3")


def test_eval_of_best_takes_each_agents_own(scripted, here):
    paths = {name: f"{scripted}/checkpoints/{BEST[name]}" for name in NAMES}
    best = evaluated(f"{scripted}/best", *TWO)
    assert best["about"]["checkpoint"] == paths
    assert best["about"]["timestep"] == BEST
    assert best["about"]["env_steps"] == {"fast": 160, "slow": 240}
    each = {name: evaluated(paths[name], *TWO) for name in NAMES}
    for name, other in (NAMES, NAMES[::-1]):
        assert best["episodes"][name] == each[name]["episodes"][name]
        assert best["episodes"][name] != each[other]["episodes"][name]  # the other's best is not this one's


def test_eval_of_a_run_and_of_one_agents_best_take_one_checkpoint(scripted, here):
    latest = evaluated(str(scripted), *TWO)
    assert (latest["about"]["checkpoint"], latest["about"]["timestep"]) == (f"{scripted}/checkpoints/80", 80)
    for path in (f"{scripted}/best-fast", f"{scripted}/checkpoints/best-fast"):
        own = evaluated(path, *TWO)
        assert (own["about"]["checkpoint"], own["about"]["timestep"]) == (f"{scripted}/checkpoints/40", 40)
        assert list(own["agents"]) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("best-nobody", "this run has no best-nobody checkpoint: it has best-fast, best-slow"),
        ("best-", "no such run or checkpoint"),
    ],
)
def test_a_best_of_nobody(name, sentence, scripted, here):
    assert_one_error(call("eval", f"{scripted}/{name}"), 2, f"{name}: {sentence}")
    assert_one_error(call("checkpoint", "verify", f"{scripted}/{name}"), 2, f"{name}: {sentence}")


def test_show_and_verify_of_best_take_the_newest(scripted, here):
    assert call("checkpoint", "verify", f"{scripted}/best").out.startswith(f"{scripted}/checkpoints/60: good, 6 files, ")
    assert call("checkpoint", "verify", f"{scripted}/best-fast").out.startswith(f"{scripted}/checkpoints/40: good, 6 files, ")
    shown = json.loads(call("checkpoint", "show", f"{scripted}/best").out)
    assert (shown["path"], shown["agents"]) == (f"{scripted}/checkpoints/60", {"fast": "PPO", "slow": "A2C"})


def test_eval_of_best_notices_damage_to_either(scripted, here):
    shutil.copytree(scripted, "run")
    path = here / "run/checkpoints/40/agents/fast/policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert_one_error(call("eval", "run/best", *TWO), 3, "run/checkpoints/40/agents/fast/policy.safetensors")
    assert call("eval", "run/best-slow", *TWO).status == 0


def test_fail_under_names_who_is_below(scripted, here):
    means = {name: agent["mean"] for name, agent in evaluated(str(scripted), *TWO)["agents"].items()}
    below, above = sorted(means, key=means.__getitem__)
    for bound, named in [((means[below] + means[above]) / 2, below), (1, "fast, slow"), (-9999, None)]:
        result = call("eval", str(scripted), *TWO, f"fail_under={bound}")
        assert result.status == (1 if named else 0)
        assert result.err == (f"error: fail_under={bound:g}: the mean of {named} is below\n" if named else "")


def test_an_evaluation_needs_no_more_copies_than_agents(here):
    """16 minibatches are too many for one copy's 8 rows; only learning minds."""
    many = ("agents=ppo", "agents.ppo.count=2", "agents.ppo.rollout_length=8", "agents.ppo.minibatches=16", "env.num_envs=4")
    quick = ("seed=1", "trainer.timesteps=8", "tracking.tensorboard=false", "trainer.disable_progressbar=true")
    assert call("train", *many, *quick, "run.dir=run").status == 0
    about = evaluated("run", "env.num_envs=2", "episodes=3")
    assert (about["about"]["copies"], about["agents"]["ppo_1"]["episodes"]) == (2, 3)
    assert_one_error(call("eval", "run", "env.num_envs=1"), 2, "env.num_envs=1: 2 agents need a copy each; give at least 2")
    result = call("train", *many, *quick, "env.num_envs=2", "run.dir=other")
    assert_one_error(result, 2, "agents.ppo.minibatches=16: more than rollout_length=8 x 1 copies = 8 rows; give at most 8")


# -- init_from -------------------------------------------------------------------------------------------------------------

PENDULUM = ("env=Pendulum-v1", "trainer.timesteps=4", "tracking.tensorboard=false", "run.dir=run")


def test_init_from_best_takes_each_agents_own(scripted, here):
    assert call("train", *SMALL, *PENDULUM, f"init_from={scripted}/best").status == 0  # no update in 4 timesteps
    told = summary(here / "run")["agents"]
    assert {name: told[name]["parameters_sha256"] for name in NAMES} == {
        name: policy_sha256(points_at(scripted, f"best-{name}"), name) for name in NAMES
    }
    assert told["fast"]["best"] is None


@pytest.mark.parametrize(
    ("agents", "path", "status", "sentence"),
    [
        (
            "[fast:ppo,last:ppo]",
            "/best",
            2,
            "/best: this run has no best checkpoint of an agent 'last': it has best-fast, best-slow",
        ),
        ("[last:ppo,fast:ppo]", "", 3, "checkpoints/80: has no agent 'last'; it has fast, slow"),
        ("[fast:a2c,slow:a2c]", "/best", 3, "checkpoints/40: agent 'fast' was trained by PPO, not by A2C"),
        ("[fast:ppo,slow:a2c]", "/best", 3, "agents.fast: written by another architecture"),
    ],
)
def test_init_from_a_run_of_other_agents(agents, path, status, sentence, scripted, here):
    command = ("seed=1", "env.num_envs=4", f"agents={agents}", *PENDULUM, f"init_from={scripted}{path}")
    assert_one_error(call("train", *command), status, sentence)
    assert not list(here.iterdir())


# -- going on --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [47, 38])
def test_resumed_is_uninterrupted(stop, pair, here, monkeypatch):
    """After 48 timesteps A2C has just updated in the middle of PPO's rollout of 20; after 39 both are in the middle."""

    def pre_interaction(self, timestep, timesteps):
        if timestep == stop and self.name == "slow":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "pre_interaction", pre_interaction)
        assert call("train", *SMALL, *LENGTH, "run.dir=run").status == 143
    assert points_at(here / "run", "latest").name == str(stop + 1)
    assert [summary(here / "run")["agents"][name]["updates"] for name in NAMES] == [(stop + 1) // 20, (stop + 1) // 8]
    assert call("train", "resume=run").status == 0
    assert rows(here / "run") == rows(pair)
    assert summary(here / "run")["agents"] == summary(pair)["agents"]
    for name in ("latest", "best-fast", "best-slow"):
        assert points_at(here / "run", name).name == points_at(pair, name).name
    files, expected = (read_manifest(points_at(run, "latest"))["files"] for run in (here / "run", pair))
    for name in files.keys() - {"config.yaml", "trainer.safetensors"}:
        assert files[name] == expected[name], name


@pytest.mark.parametrize("left", ["", "30"])
def test_a_best_that_a_kill_left_behind_is_mended(left, pair, here):
    """The checkpoint says when each agent was best; the pointers are written after it, one by one."""
    shutil.copytree(pair, "run")
    for name in NAMES:
        (here / f"run/checkpoints/best-{name}").unlink()
        if left:
            (here / f"run/checkpoints/best-{name}").write_text(left)
    assert call("train", "resume=run", "trainer.timesteps=62").status == 0
    for name in NAMES:
        assert points_at(here / "run", f"best-{name}").name == points_at(pair, f"best-{name}").name


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "agents.fast.count=2 agents_scope.sizes=null",
            "agents=fast_0, fast_1, slow: the run was started with fast, slow, which a resume can't change",
        ),
        ("agents_scope=[2,2]", "agents_scope.sizes=[2, 2]: the run was started with [1, 3], which a resume can't change"),
        ("agents_scope.sizes=null", "agents_scope.sizes=null: the run was started with [1, 3], which a resume can't change"),
        ("agents_scope=[1,2]", "agents_scope.sizes=[1, 2]: add up to 3, but the environment has 4 copies"),
        ("agents=[fast:ppo]", "agents=[fast:ppo]: can't be changed here"),
        ("+agents@agents.last=ppo", "agents=ppo: can't be changed here"),
        ("agents.slow.rollout_length=4", "agents.slow.rollout_length=4: the run was started with 8"),
        ("agents.last.epochs=4", "agents.last={'epochs': 4}: nothing is chosen under that name"),
        ("agents.slow.epochs=4", "agents.slow.epochs=4: no such key"),
    ],
)
def test_a_resume_refuses_other_agents(override, sentence, pair, here):
    shutil.copytree(pair, "run")
    before = (here / "run/config.yaml").read_bytes()
    assert_one_error(call("train", "resume=run", *override.split(" ")), 2, sentence)
    assert (here / "run/config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["agents=[slow:a2c,fast:ppo]"], "agents=slow, fast: run/config.yaml has fast, slow; their order is that of scopes"),
        (["agents_scope=[3,1]"], "agents_scope.sizes=[3, 1]: run/config.yaml has [1, 3]; repeat the run's own"),
        (["agents.slow.count=2", "agents_scope=[1,1,2]"], "agents.slow.count=2: run/config.yaml has 1; repeat the run's own"),
    ],
)
def test_auto_refuses_other_agents(overrides, sentence, pair, here):
    """Agents that changed places would go on with one another's copies."""
    shutil.copytree(pair, "run")
    assert_one_error(call("train", *SMALL, *LENGTH, *overrides, "run.dir=run", "resume=auto"), 2, sentence)


def test_a_resume_takes_settings_of_one_agent(pair, here):
    shutil.copytree(pair, "run")
    assert call("train", "resume=run", "agents.slow.learning_rate=0.1", "trainer.timesteps=64").status == 0
    saved = yaml.safe_load(Path("run/config.yaml").read_text())["agents"]
    assert (saved["fast"]["learning_rate"], saved["slow"]["learning_rate"]) == (2.5e-4, 0.1)
    told = summary(here / "run")["agents"]
    assert told["fast"]["parameters_sha256"] == summary(pair)["agents"]["fast"]["parameters_sha256"]  # updates at 60 and 80
    assert told["slow"]["updates"] == 8


# -- and besides -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_all_agents(here):
    """4-8-2 and 4-8-1: 58 + 49 parameters; 4-4-2 and 4-4-1: 30 + 25. 60 / 20 updates of 2 x 2 steps, 60 / 8 of one."""
    result = call("train", *SMALL, "trainer.timesteps=60", "dry_run=true")
    assert result.status == 0
    for line in (
        "  fast: PPO, copies 0 to 0",
        "  slow: A2C, copies 1 to 3",
        "60 timesteps x 4 copies = 240 env steps, seed 1",
        "fast: 107 parameters, 0.00 MiB of memory, 3 updates of 4 gradient steps",
        "slow: 55 parameters, 0.00 MiB of memory, 7 updates of 1 gradient steps",
    ):
        assert line in result.out.splitlines()
    assert not list(here.iterdir())


def test_a_loss_that_is_not_finite_names_its_agent(here):
    """Only slow's rewards are beyond all measure; the checkpoint before it has both agents as they were."""
    huge = ("agents.slow.reward_scale=1e38", "checkpoints.interval=5", "trainer.timesteps=40", "run.dir=run")
    result = call("train", *SMALL, "tracking.tensorboard=false", *huge)
    assert result.status == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: agents.slow: ") and "not finite after update 1 at timestep 7; lower learning_rate" in line
    assert summary(here / "run")["exit_reason"].startswith("failed: NonFiniteError: agents.slow: ")
    assert verify(points_at(here / "run", "latest"))["timestep"] == 5


def test_an_agent_that_raises_is_named(here, monkeypatch):
    from rltrain.agents.a2c.torch import A2C

    def update(self, progress):
        raise ZeroDivisionError("my agent is broken")

    monkeypatch.setattr(A2C, "update", update)
    result = call("train", *SMALL, "tracking.tensorboard=false", "trainer.timesteps=40", "run.dir=run")
    assert result.status == 1
    assert "error: agents.slow: post_interaction, timestep 7: ZeroDivisionError: my agent is broken" in result.err.splitlines()


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        (["agents=[fast:ppo,slow:a2c]"], "fast+slow"),
        (["agents.ppo.count=3"], "ppo_0+ppo_1+ppo_2"),
        (["agents.ppo.count=64", "env.num_envs=64"], "ppo_0+63_more"),
    ],
)
def test_where_a_run_lands(overrides, folder, here):
    """The names of 64 agents side by side are longer than a file's name may be."""
    quick = ("seed=1", "trainer.timesteps=2", "tracking.tensorboard=false", "trainer.disable_progressbar=true")
    result = call("train", *quick, *overrides)
    assert result.status == 0, result.err
    (path,) = here.glob(f"outputs/CartPole-v1/{folder}/*/summary.json")
    assert len(json.loads(path.read_text())["agents"]) == 64 if "64" in overrides[-1] else True
    assert (here / "outputs/latest").resolve() == path.parent
