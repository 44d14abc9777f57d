"""Records of runs: whole ones, those under way, and whatever a kill, a full disk or another hand leaves of one."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_one_error, call, rows, summary, train

from rltrain.errors import ConfigError
from rltrain.results.records import AgentRecord, find_runs, read_run, read_runs
from rltrain.runs import locked

KILL_AT = """
import os, rltrain.agents.base as base
def pre_interaction(self, timestep, timesteps):
    if timestep == {}:
        os.kill(os.getpid(), 9)
base.Agent.pre_interaction = pre_interaction
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with runs of several kinds."""
    folder = tmp_path_factory.mktemp("runs")
    before = os.getcwd()
    os.chdir(folder)
    try:
        train("run.dir=one", "trainer.timesteps=80", "evaluation.interval=40", "evaluation.episodes=2")
        scopes = ("agents=[fast:ppo,slow:a2c]", "agents.fast.count=2", "agents_scope=[1,1,2]", "agents.fast.rollout_length=32")
        call("train", *scopes, "env.num_envs=4", "trainer.timesteps=40", "tracking.interval=20", "run.dir=deep/er/three")
        train("run.dir=broken", "env=sample_envs:Faulty-v0", "env.kwargs.when=30", "trainer.timesteps=80", status=1)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def runs(trained, here):
    """A copy of them, in the current directory."""
    shutil.copytree(trained, here, dirs_exist_ok=True)
    return here


def test_a_finished_run(runs):
    record, told = read_run(Path("one")), summary(Path("one"))
    assert (record.name, record.state, record.reason, record.problems) == ("one", "finished", None, ())
    assert (record.env, record.backend, record.seed, record.num_envs) == ("CartPole-v1", "torch", 1, 4)
    assert record.agents == (AgentRecord("ppo", "ppo", "agents.ppo"),)
    assert (record.timestep, record.env_steps, record.total_env_steps) == (80, 320, 320)
    assert record.last_return == told["agents"]["ppo"]["episode_return_mean"]
    assert record.best_return == told["agents"]["ppo"]["best"]["score"]
    assert record.env_steps_per_second == told["env_steps_per_second"]
    assert [start["start"] for start in record.starts] == [1]
    assert 0 <= time.time() - record.started < 600 and record.updated >= record.started
    assert record.size == sum(path.lstat().st_blocks * 512 for path in Path("one").rglob("*") if not path.is_dir())


def test_settings_are_equal_where_only_the_seed_differs(runs):
    train("run.dir=other", "seed=2", "trainer.timesteps=80", "evaluation.interval=40", "evaluation.episodes=2")
    train("run.dir=third", "seed=2", "trainer.timesteps=80", "evaluation.interval=40", "evaluation.episodes=3")
    one, other, third = (read_run(Path(name)).settings for name in ("one", "other", "third"))
    assert one == other and one["agents.ppo.network.policy_sizes"] == [8]
    assert {key for key in one if one[key] != third[key]} == {"evaluation.episodes"}


def test_rows_are_columns_by_agent(runs):
    record = read_run(Path("deep/er/three"))
    assert [(agent.name, agent.kind, agent.key) for agent in record.agents] == [
        ("fast_0", "ppo", "agents.fast"), ("fast_1", "ppo", "agents.fast"), ("slow", "a2c", "agents.slow"),
    ]  # fmt: skip
    assert list(record.columns) == ["fast_0", "fast_1", "slow"]
    for name, columns in record.columns.items():
        own = [row for row in rows(Path("deep/er/three")) if row["agent"] == name]
        assert (
            columns["env_steps"].tolist()
            == [row["env_steps"] for row in own]
            == [20 * (1 + (name == "slow")), 40 * (1 + (name == "slow"))]
        )
        for tag in {tag for row in own for tag in row} - {"agent"}:
            expected = np.array([row.get(tag, np.nan) for row in own], np.float64)
            np.testing.assert_array_equal(columns[tag], expected, err_msg=tag)
    assert record.env_steps == 160
    means = [agent["episode_return_mean"] for agent in summary(Path("deep/er/three"))["agents"].values()]
    assert record.last_return == (None if None in means else pytest.approx(np.mean(means)))


def test_a_failed_run_says_why(runs):
    record = read_run(Path("broken"))
    assert record.state == "failed" and "RuntimeError" in record.reason
    Path("broken/summary.json").unlink()  # as after a kill in between
    record = read_run(Path("broken"))
    assert (record.state, record.reason) == ("failed", "RuntimeError: broken on purpose")


def test_a_job_that_failed_before_its_run_began(runs):
    Path("sweep/0_epochs-0").mkdir(parents=True)
    Path("sweep/0_epochs-0/job.json").write_text('{"job": 0, "overrides": {"a": "0"}, "error": "agents.ppo.epochs=0: no"}')
    [record] = read_runs(["sweep"])
    assert (record.state, record.reason, record.env, record.agents) == ("failed", "agents.ppo.epochs=0: no", None, ())


def test_running_killed_and_going_on(runs, zygote):
    with locked(Path("one")):
        record = read_run(Path("one"))
        assert (record.state, record.summary) == ("running", {})  # the summary there is of an earlier session
    command = ("seed=1", "env.num_envs=4", "trainer.timesteps=80", "tracking.interval=20", "evaluation.interval=20",
               "evaluation.episodes=2", "checkpoints.interval=20", "run.dir=killed", "tracking.tensorboard=false")  # fmt: skip
    assert zygote.run("train", *command, before=KILL_AT.format(45)).status == -signal.SIGKILL
    assert Path("killed/.lock").stat().st_size  # it wrote there who it was
    record = read_run(Path("killed"))
    assert (record.state, record.timestep, record.env_steps, record.total_env_steps) == ("unfinished", 40, 160, 320)
    told = rows(Path("killed"))
    assert record.last_return == told[-1]["rollout/episode_return_mean"]
    assert record.best_return == max(row["evaluation/episode_return_mean"] for row in told)
    assert record.env_steps_per_second > 0
    call("train", "resume=killed")
    record = read_run(Path("killed"))
    assert (record.state, record.env_steps, [start["timestep"] for start in record.starts]) == ("finished", 320, [0, 40])


def test_stopped_by_a_signal(runs):
    told = summary(Path("one"))
    for reason in ("stopped by SIGTERM", "interrupted"):
        Path("one/summary.json").write_text(json.dumps({**told, "exit_reason": reason}))
        assert (read_run(Path("one")).state, read_run(Path("one")).reason) == ("stopped", reason)


def test_what_is_found_and_how_it_is_named(runs, monkeypatch):
    assert [record.name for record in read_runs(["."])] == ["broken", "deep/er/three", "one"]
    os.symlink("one", "link")
    os.symlink(".", "one/loop")
    Path("one/checkpoints/config.yaml").touch()  # no run of its own
    Path(".hidden").mkdir()
    shutil.copytree("one/starts", ".hidden/checkpoints")
    assert [record.name for record in read_runs(["deep", "one", ".", "link", Path("one")])] == ["deep/er/three", "one", "broken"]
    assert [record.name for record in read_runs(["link"])] == ["one"]
    monkeypatch.chdir("deep/er")
    assert [record.name for record in read_runs([".", runs / "one"])] == ["three", "../../one"]
    with pytest.raises(ConfigError, match="runs=nowhere: no such directory"):
        find_runs(["nowhere"])


def test_a_run_in_a_run_s_directory_is_found(runs):
    shutil.copytree("deep", "one/deep")
    assert [record.name for record in read_runs(["one"])] == ["one", "one/deep/er/three"]


# -- damaged ---------------------------------------------------------------------------------------------------------------


def make(name: str, **files: str | bytes) -> Path:
    """Write a directory that is taken for a run."""
    folder = Path("damaged", name)
    (folder / "checkpoints").mkdir(parents=True)
    for file, content in files.items():
        (folder / file.replace("_", ".")).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_damaged_directories_are_listed_with_what_is_known(runs):
    text, told = Path("one/config.yaml").read_text(), Path("one/summary.json").read_text()
    lines = Path("one/metrics.jsonl").read_text().splitlines()
    make("empty")
    make("torn_row", config_yaml=text, metrics_jsonl="\n".join([*lines[:2], lines[2][:50]]))
    make(
        "rubbish_row",
        config_yaml=text,
        metrics_jsonl="\n".join(["[1]", '{"agent": 1}', lines[0], "\x00", '{"agent": "a"']) + "\n",
    )
    make("torn_summary", config_yaml=text, summary_json=told[:200], metrics_jsonl="\n".join(lines))
    make("odd_summary", config_yaml=text, summary_json='{"exit_reason": 3, "agents": [], "timestep": "x", "history": 1}')
    make("odd_agents", config_yaml=text, summary_json='{"exit_reason": "finished", "agents": {"ppo": {"best": null}, "a": 1}}')
    make("binary_config", config_yaml=b"\xff\x00")
    make("no_config", summary_json=told)
    make("list_config", config_yaml="- a\n- b\n")
    make("odd_config", config_yaml="seed: true\nenv: [1]\nagents:\n  x: 3\nbackend: null\ntrainer: {timesteps: many}\n")
    make("newer_config", config_yaml=text + "novelty:\n  depth: 3\nformat: 9\n")
    make("deep_config", config_yaml="a: " + "[" * 100_000)
    make(
        "bomb",
        config_yaml="a: &a [1, 2]\n" + "".join(f"x{i}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)),
    )
    os.mkfifo(make("pipes") / "config.yaml")
    os.mkfifo("damaged/pipes/metrics.jsonl")
    os.symlink("/dev/zero", make("links") / "summary.json")
    os.symlink("/dev/zero", "damaged/links/.lock")
    found = {record.directory.name: record for record in read_runs(["damaged"])}
    assert len(found) == 15
    for record in found.values():  # whatever is asked, nothing is raised
        attributes = [name for name in dir(type(record)) if not name.startswith("__")]
        assert len([getattr(record, name) for name in attributes]) > 15
    known = {name: (r.state, r.env, r.env_steps, len(r.agents), list(r.problems)) for name, r in found.items()}
    unread = ["config.yaml can't be read"]
    assert known == {
        "empty": ("unfinished", None, None, 0, []),
        "torn_row": ("unfinished", "CartPole-v1", json.loads(lines[1])["env_steps"], 1, []),
        "rubbish_row": ("unfinished", "CartPole-v1", json.loads(lines[0])["env_steps"], 1, []),
        "torn_summary": ("unfinished", "CartPole-v1", 320, 1, ["summary.json can't be read"]),
        "odd_summary": ("unfinished", "CartPole-v1", None, 1, []),
        "odd_agents": ("finished", "CartPole-v1", None, 1, []),
        "binary_config": ("unfinished", None, None, 0, unread),
        "no_config": ("finished", None, 320, 1, []),
        "list_config": ("unfinished", None, None, 0, unread),
        "odd_config": ("unfinished", None, None, 1, []),
        "newer_config": ("unfinished", "CartPole-v1", None, 1, []),
        "deep_config": ("unfinished", None, None, 0, unread),
        "bomb": ("unfinished", None, None, 0, unread),
        "pipes": ("unfinished", None, None, 0, unread),
        "links": ("unfinished", None, None, 0, ["summary.json can't be read"]),
    }
    assert found["newer_config"].settings["novelty.depth"] == 3
    assert found["torn_row"].columns["ppo"]["timestep"].tolist() == [20, 40]


def test_a_section_of_a_configuration_is_read_like_the_whole(runs):
    import yaml

    for name in ("one", "deep/er/three", "broken"):
        text = Path(name, "config.yaml").read_text()
        assert read_run(Path(name)).config == yaml.safe_load(text)
    odd = "a:\n- b\n- c: |\n    d\n'e': {f: 1,\n  g: 2}\n"
    assert read_run(make("odd", config_yaml=odd)).config == {"a": ["b", {"c": "d\n"}], "e": {"f": 1, "g": 2}}


def test_a_glance_at_the_lock_keeps_nobody_from_starting(runs):
    import fcntl
    import threading

    with open("one/.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.02, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with locked(Path("one")):
            pass
    with locked(Path("one")):
        assert_one_error(call("train", "resume=one"), 4, f"in use by pid {os.getpid()}")
