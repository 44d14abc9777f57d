"""What is kept of every start of a run, and what is said of settings that a resume changes."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import SMALL, call, merged, summary, train
from omegaconf import OmegaConf

from rltrain import config as configuration
from rltrain.commands.commit import read_commit
from rltrain.commands.history import command_line, compare, describe, read_settings, read_starts

A, B = "a" * 40, "b" * 40
SHORT = ("trainer.timesteps=8", "run.dir=run")


def test_what_a_resume_changes_is_said_and_kept(here, monkeypatch):
    monkeypatch.setenv("OWN_TOKEN", "hunter2hunter2")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    train(*SHORT, "trainer.environment_info=${oc.env:OWN_TOKEN}")
    first = Path("run/config.yaml").read_text()
    for name, value in (("JOB_ID", "71"), ("ARRAY_JOB_ID", "70"), ("ARRAY_TASK_ID", "3"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    changed = ("trainer.timesteps=16", "agents.ppo.learning_rate=1e-4", "trainer=parallel", "trainer.environment_info=seen")
    result = call("train", "resume=run", *changed, "env.kwargs.api_key=hush")
    assert result.status == 2  # CartPole takes no such thing
    result = call("train", "resume=run", *changed)
    assert result.status == 0, result.err
    line = (
        "resumed at 8: trainer sequential -> parallel, trainer.timesteps 8 -> 16, "
        "trainer.environment_info ${oc.env:OWN_TOKEN} -> seen, agents.ppo.learning_rate 2.5e-4 -> 1e-4"
    )
    assert line in result.err.splitlines() and line in Path("run/train.log").read_text()
    start, resumed = summary(here / "run")["history"]
    assert (start["timestep"], start["changed"], start["slurm"], start["checkpoint"]) == (0, {}, None, None)
    assert start["command"].startswith("rltrain train seed=1 ")
    assert resumed["changed"]["agents.ppo.learning_rate"] == {"old": 0.00025, "new": 0.0001}
    assert resumed["slurm"] == {"job_id": "71", "array_job_id": "70", "array_task_id": "3", "restart_count": "1"}
    assert (resumed["timestep"], resumed["checkpoint"], resumed["host"]) == (8, "8", socket.gethostname())
    assert resumed["command"] == f"rltrain train resume=run {' '.join(changed)}"
    assert resumed["working_directory"] == str(here) and resumed["versions"]["rltrain"] and resumed["time"] > start["time"][:10]
    assert Path("run/starts/1.yaml").read_text() == first
    assert Path("run/starts/2.yaml").read_text() == Path("run/config.yaml").read_text() != first
    assert not any(b"hunter2" in path.read_bytes() for path in here.rglob("*") if path.is_file())
    assert call("train", "resume=run").status == 0  # it is finished: nothing is started
    assert Path("run/train.log").read_text().count("resumed at") == 1
    assert [start["timestep"] for start in summary(here / "run")["history"]] == [0, 8]


KILL = """
import os, rltrain.agents.base as base
def pre_interaction(self, timestep, timesteps):
    if timestep == 5:
        os.kill(os.getpid(), 9)
base.Agent.pre_interaction = pre_interaction
"""


def test_no_kill_loses_a_start(here, zygote):
    command = ("train", *merged(SMALL, (*SHORT, "resume=auto")))
    for job, episodes in (("1", "3"), ("2", "4")):  # killed before there was a checkpoint
        how = {"cwd": here, "before": KILL, "SLURM_JOB_ID": job}
        assert zygote.start(*command, f"evaluation.episodes={episodes}", **how).wait().status == -9
    result = zygote.run(*command, "evaluation.episodes=4", cwd=here, SLURM_JOB_ID="3")
    assert result.status == 0 and "evaluation" not in result.err
    history = summary(here / "run")["history"]
    assert [(start["start"], start["timestep"], start["slurm"]["job_id"]) for start in history] == [
        (1, 0, "1"), (2, 0, "2"), (3, 0, "3")
    ]  # fmt: skip
    assert [start["changed"] for start in history] == [{}, {"evaluation.episodes": {"old": 3, "new": 4}}, {}]
    assert "started anew at 0: evaluation.episodes 3 -> 4" in Path("run/train.log").read_text()
    kept = [yaml.safe_load(Path(f"run/starts/{n}.yaml").read_text())["evaluation"]["episodes"] for n in (1, 2, 3)]
    assert kept == [3, 4, 4]


def test_a_run_of_before_there_was_a_history_keeps_its_configuration(here):
    train(*SHORT)
    shutil.rmtree("run/starts")
    before = Path("run/config.yaml").read_text()
    assert call("train", "resume=run", "trainer.timesteps=12").status == 0
    first, second = read_starts(here / "run")
    assert first == {"start": 1, "time": None, "timestep": 0} and Path("run/starts/1.yaml").read_text() == before
    assert second["changed"] == {"trainer.timesteps": {"old": 8, "new": 12}}
    Path("run/starts/1.json").write_text("{")
    assert read_starts(here / "run")[0] == {"start": 1, "error": "1.json can't be read"}


def test_a_run_of_before_there_was_a_setting_is_gone_on_with_by_auto(here):
    train(*SHORT)
    cfg = yaml.safe_load(Path("run/config.yaml").read_text())
    del cfg["env"]["on_nonfinite"], cfg["agents"]["ppo"]["kl_stop"], cfg["evaluation"]["max_episode_steps"]
    Path("run/config.yaml").write_text(yaml.safe_dump(cfg, sort_keys=False))
    result = train("trainer.timesteps=12", "run.dir=run", "resume=auto")
    assert "resumed at 8: trainer.timesteps 8 -> 12" in result.err.splitlines()


def test_a_job_of_a_sweep_has_a_history_too(here, zygote):
    for timesteps in (8, 12):
        how = ("seed=1,2", f"trainer.timesteps={timesteps}", "hydra.sweep.dir=sweep")
        assert zygote.run("train", "-m", *merged(SMALL, how), cwd=here).status == 0
    starts = summary(here / "sweep/0_seed-1")["history"]
    longer = {"trainer.timesteps": {"old": 8, "new": 12}}
    assert [(start["timestep"], start["changed"]) for start in starts] == [(0, {}), (8, longer)]
    assert "seed=1 " in starts[0]["command"] and starts[0]["command"].endswith(f"run.dir={here}/sweep/0_seed-1 resume=auto")


# -- what is compared and shown ----------------------------------------------------------------------------------------------


def settings(*overrides: str, without: tuple[str, ...] = ()):
    cfg = OmegaConf.create(OmegaConf.to_container(configuration.compose(list(overrides))))
    for key in without:
        section, _, name = key.rpartition(".")
        del cfg[section][name]
    return read_settings(configuration.check(cfg), cfg)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((), (), ""),
        ((), ("run.dir=there", "evaluation.interval=0"), ""),
        (("trainer=parallel",), ("trainer=step",), "trainer parallel -> step"),
        (("trainer=parallel", "trainer.max_drift=9"), (), "trainer parallel -> sequential, trainer.max_drift 9 -> 512"),
        ((), ("env.kwargs.gravity=3",), "env.kwargs.gravity null -> 3"),
        ((), ("env.kwargs.token=hush",), "env.kwargs.token null -> ***"),
        (("env.kwargs.at=http://me:one@host",), ("env.kwargs.at=http://me:two@host",),
         "env.kwargs.at http://me:***@host -> http://me:***@host"),
        (("init_from=a",), ("checkpoints.keep=5",), "init_from a -> null, checkpoints.keep 3 -> 5"),
        (("agents.ppo.network.policy_sizes=[4]",), ("agents.ppo.network.policy_sizes=[4,5]",),
         "agents.ppo.network.policy_sizes [4] -> [4, 5]"),
        (("seed=3", "schedule.horizon=3"), ("seed=3", "schedule.horizon=${seed}"), ""),
    ],
)  # fmt: skip
def test_what_differs(old, new, said):
    assert describe(compare(settings(*old), settings(*new))) == said


def test_a_setting_that_an_older_configuration_lacks_is_at_its_default():
    old = settings(without=("evaluation.max_episode_steps", "trainer.fused"))
    assert compare(old, settings()) == {}
    assert describe(compare(old, settings("trainer.fused=false"))) == "trainer.fused auto -> false"


def test_secrets_on_a_command_line_are_masked():
    arguments = ["train", "env.kwargs.api_key=one", "env.kwargs={password: two, gravity: 3}", "env.kwargs.at=http://me:three@host",
                 "env.kwargs.token=${oc.env:TOKEN}", "env.kwargs.at=http://host?token=four:4", "run.dir=a b"]  # fmt: skip
    text = command_line(arguments)
    assert not any(secret in text for secret in ("one", "two", "three", "four")), text
    assert "'env.kwargs.token=${oc.env:TOKEN}'" in text and text.endswith(" 'run.dir=a b'")


# -- the commit of the working directory -------------------------------------------------------------------------------------


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{A}\n"}, (A, "main")),
        ({".git/HEAD": f"{A}\n"}, (A, None)),
        ({".git/HEAD": "ref: refs/heads/x/y\n", ".git/packed-refs": f"# pack\n{B} refs/heads/y\n{A} refs/heads/x/y\n^{B}\n"},
         (A, "x/y")),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{A}\n", ".git/packed-refs": f"{B} refs/heads/main\n"},
         (A, "main")),
        ({".git": "gitdir: tree/.git/worktrees/w\n", "tree/.git/worktrees/w/HEAD": "ref: refs/heads/w\n",
          "tree/.git/worktrees/w/commondir": "../..\n", "tree/.git/refs/heads/w": f"{A}\n"}, (A, "w")),
        ({".git": "gitdir: tree/.git/worktrees/w\n", "tree/.git/worktrees/w/HEAD": f"{A}\n"}, (A, None)),
        ({".git/HEAD": "ref: refs/heads/main\n"}, (None, "main")),
        ({".git/HEAD": "ref: refs/heads/a\n", ".git/refs/heads/a": "ref: refs/heads/a\n"}, (None, "a")),
        ({".git/HEAD": "ref: refs/../../secret\n", "secret": f"{A}\n"}, (None, None)),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": "not a commit\n"}, (None, "main")),
        ({".git": "gitdir: nowhere\n"}, None),
        ({".git": "rubbish"}, None),
    ],
)  # fmt: skip
def test_the_commit_is_read_from_files(files, expected, tmp_path):
    lay(tmp_path, files)
    (tmp_path / "deep/er").mkdir(parents=True)
    assert read_commit(tmp_path / "deep/er") == (expected and dict(zip(("commit", "branch"), expected, strict=True)))


def test_what_is_no_regular_file_is_not_read(tmp_path):
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git/HEAD")
    assert read_commit(tmp_path) is None
    os.remove(tmp_path / ".git/HEAD")
    (tmp_path / ".git/HEAD").symlink_to("/dev/zero")
    assert read_commit(tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_it_is_what_git_says(here):
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main", "one")
    os.chdir("one")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
    git("worktree", "add", "-q", "../two")
    git("pack-refs", "--all")
    for directory, branch in (("../one", "main"), ("../two", "two")):
        os.chdir(directory)
        assert read_commit(Path()) == {"commit": git("rev-parse", "HEAD"), "branch": branch}
    git("checkout", "-q", "--detach")
    assert read_commit(Path()) == {"commit": git("rev-parse", "HEAD"), "branch": None}


def test_the_commit_of_the_working_directory_is_in_the_history(here):
    lay(here, {".git/HEAD": f"{A}\n"})
    train(*SHORT)
    assert json.loads(Path("run/starts/1.json").read_text())["git"] == {"commit": A, "branch": None}
