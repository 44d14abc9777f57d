"""Resumed == uninterrupted, bit for bit, wherever and however a run was stopped; nothing else changes what is learned."""

import json
import os
import shlex
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import SMALL, assert_one_error, call, merged, rows, summary, train, wait_until

from rltrain import runs
from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointStore, read_part, verify
from rltrain.errors import ConfigError
from rltrain.evaluation import EpisodeCounter
from rltrain.runs import make_run_directory

LENGTH = "trainer.timesteps=150"
EVALUATED = ("evaluation.interval=50", "evaluation.episodes=3")
PENDULUM = ("env=Pendulum-v1", "agents.ppo.normalize_observations=true", "agents.ppo.normalize_values=true")
SETTINGS = {
    "cartpole": EVALUATED,
    "async": ("env.vectorization=async", "env.num_envs=2"),
    "pendulum": (*PENDULUM, *EVALUATED),
    "two agents": ("+agents@agents.fast=ppo", "agents.fast.rollout_length=20", "agents_scope=[1,3]"),
    "single copy": ("env.num_envs=1",),
    "native": ("env=sample_envs:Constant-v0", "env.vectorization=native"),
}
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 138, "SIGUSR2": 140}
KILL_AT = """
import os, rltrain.agents.base as base
def pre_interaction(self, timestep, timesteps):
    if timestep == {}:
        os.kill(os.getpid(), 9)
base.Agent.pre_interaction = pre_interaction
"""


def store_of(run: Path) -> CheckpointStore:
    return CheckpointStore(run / "checkpoints")


def latest(run: Path) -> Path:
    path = store_of(run).pointer("latest")
    assert path is not None
    return path


def hashes(run: Path) -> dict[str, str]:
    return {name: agent["parameters_sha256"] for name, agent in summary(run)["agents"].items()}


def flat(tree, path=""):
    """Return every leaf of a tree by its path, arrays as bytes."""
    if isinstance(tree, dict):
        return {key: leaf for name, item in tree.items() for key, leaf in flat(item, f"{path}/{name}").items()}
    if isinstance(tree, list | tuple):
        return {key: leaf for i, item in enumerate(tree) for key, leaf in flat(item, f"{path}/{i}").items()}
    return {path: (tree.dtype, tree.shape, tree.tobytes()) if isinstance(tree, np.ndarray | np.generic) else repr(tree)}


def everything(run: Path) -> dict:
    """Return every number of a run's latest checkpoint."""
    path = latest(run)
    manifest = verify(path)
    parts = {name: read_part(path, name.removesuffix(".safetensors"), manifest) for name in manifest["files"] if "safe" in name}
    del parts["trainer.safetensors"]["training_seconds"]
    return flat(parts)


def assert_same(resumed: Path, uninterrupted: Path) -> None:
    """Compare hashes, statistics, rows and every number of the last checkpoint."""
    a, b = summary(resumed), summary(uninterrupted)
    for key in ("agents", "timestep", "timesteps", "env_steps"):
        assert a[key] == b[key], key
    assert all("best" in agent for agent in a["agents"].values())  # so that it was compared too
    assert rows(resumed) == rows(uninterrupted)
    numbers = everything(resumed)
    assert numbers == everything(uninterrupted)
    assert len(numbers) > 50


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Return the run that was never stopped, made once per setting."""
    directory, made = tmp_path_factory.mktemp("uninterrupted"), {}

    def make(name, *more):
        if name not in made:
            made[name] = directory / str(len(made))
            train(LENGTH, *SETTINGS[name], *more, f"run.dir={made[name]}")
        return made[name]

    return make


@pytest.fixture
def at(monkeypatch):
    """Return a function that has `action()` called before a timestep."""

    def at(timestep, action):
        stop_at, done = timestep, []

        def pre_interaction(self, timestep, timesteps):
            if timestep == stop_at and not done:
                done.append(action())

        monkeypatch.setattr(Agent, "pre_interaction", pre_interaction)

    return at


def send(name):
    return lambda: os.kill(os.getpid(), getattr(signal, name))


# -- stopped by a signal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestep", "name"),
    [(0, "SIGTERM"), (1, "SIGINT"), (31, "SIGUSR1"), (32, "SIGUSR2"), (49, "SIGHUP"), (77, "SIGTERM"), (99, "SIGINT"),
     (148, "SIGTERM")],
)  # fmt: skip
def test_stopped_at_any_timestep(timestep, name, at, uninterrupted, here):
    """31 is an update, 49 and 99 are followed by an evaluation, the others are in the middle of a rollout."""
    at(timestep, send(name))
    result = train(LENGTH, *EVALUATED, "run.dir=run", status=STATUS[name])
    assert summary(here / "run")["exit_reason"] == f"stopped by {name}"
    assert verify(latest(here / "run"))["timestep"] == timestep + 1
    assert f"stopped by {name} at timestep {timestep + 1}" in result.text
    at(-1, None)
    assert call("train", "resume=run").status == 0
    assert summary(here / "run")["exit_reason"] == "finished"
    assert_same(here / "run", uninterrupted("cartpole"))


@pytest.mark.parametrize("setting", ["async", "pendulum", "two agents", "single copy", "native"])
def test_stopped_in_other_settings(setting, at, uninterrupted, here):
    at(70, send("SIGTERM"))
    train(LENGTH, *SETTINGS[setting], "run.dir=run", status=143)
    at(-1, None)
    assert call("train", "resume=run").status == 0
    assert_same(here / "run", uninterrupted(setting))


def test_stopped_again_and_again(at, uninterrupted, here):
    first = ("train", *merged(SMALL, (LENGTH, *EVALUATED, "run.dir=run")))
    for timestep in (10, 11, 50, 64, 149):
        at(timestep, send("SIGTERM"))
        result = call(*(first if timestep == 10 else ("train", "resume=run")))
        assert result.status == 143
    at(-1, None)
    assert call("train", "resume=run").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))


@pytest.mark.parametrize("when", [1, 40])
def test_stopped_in_an_evaluation(when, uninterrupted, here, monkeypatch):
    """The evaluation is made anew at the resume, and its row stands there once; a kill right after doesn't double it."""
    real, calls = EpisodeCounter.record, [0]

    def record(self, step):
        calls[0] += 1
        if calls[0] == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step)

    monkeypatch.setattr(EpisodeCounter, "record", record)
    train(LENGTH, *EVALUATED, "run.dir=run", status=143)
    assert verify(latest(here / "run"))["timestep"] == 50
    assert max(row["timestep"] for row in rows(here / "run")) == 40
    shutil.copytree("run", "copy")
    assert call("train", "resume=run").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))
    shutil.copy("run/metrics.jsonl", "copy/metrics.jsonl")  # as if killed before the next checkpoint
    assert call("train", "resume=copy").status == 0
    assert_same(here / "copy", uninterrupted("cartpole"))


def test_stopped_in_the_same_evaluation_again(uninterrupted, here, monkeypatch):
    """Nothing happened in between, so the checkpoint is not written again: no moment without one that verifies."""

    def record(self, step, real=EpisodeCounter.record):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeCounter, "record", record)
        train(LENGTH, *EVALUATED, "run.dir=run", status=143)
        before = latest(here / "run").stat().st_ino
        assert call("train", "resume=run").status == 143
    assert latest(here / "run").stat().st_ino == before
    assert call("train", "resume=run").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))


def test_a_signal_in_the_last_timestep(at, here, uninterrupted):
    at(149, send("SIGTERM"))
    train(LENGTH, *EVALUATED, "run.dir=run", status=143)
    assert call("train", "resume=run").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))


def test_a_handler_that_stood_there_before_is_called_after_the_save(at, here):
    """submitit requeues a job this way."""
    seen = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append((number, latest(here / "run").name)))
    try:
        at(20, send("SIGUSR2"))
        train(LENGTH, "run.dir=run", status=140)
        assert seen == [(signal.SIGUSR2, "21")]
        assert signal.getsignal(signal.SIGUSR2) is not previous
    finally:
        signal.signal(signal.SIGUSR2, previous)


@pytest.mark.parametrize("name", list(STATUS))
def test_exit_status_of_a_process(name, here, zygote):
    process = zygote.start("train", *SMALL, "trainer.timesteps=10000000", "run.dir=run")
    metrics = here / "run/metrics.jsonl"
    wait_until(lambda: (metrics.exists() and metrics.stat().st_size) or process.poll() is not None, 30)
    process.send(getattr(signal, name))
    process.send(getattr(signal, name))  # as GNU timeout does: to the process, and to its group
    result = process.wait(20)
    assert result.status == STATUS[name], result.err
    assert "Traceback" not in result.err
    manifest = verify(latest(here / "run"))
    assert manifest["timestep"] == summary(here / "run")["timestep"] > 0


def test_an_ignored_signal_stays_ignored(here, zygote):
    """nohup ignores HUP; a run under it goes on when the terminal is closed."""
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = zygote.start("train", *SMALL, "trainer.timesteps=10000000", "run.dir=run", before=nohup)
    metrics = here / "run/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, 30, lambda: process.err.read_text())
    process.send(signal.SIGHUP)
    size = metrics.stat().st_size
    wait_until(lambda: metrics.stat().st_size > size + 5000, 30, lambda: process.err.read_text())
    process.send(signal.SIGTERM)
    assert process.wait(10).status == 143


def sleeps(pid: int) -> bool:
    """Tell whether a process waits for something for a fifth of a second; one that only lacks a core doesn't."""
    for _ in range(10):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")]
)
def test_a_second_interrupt_or_term_quits_at_once(first, second, here, zygote):
    """The environment hangs in a step, so the first one is not seen."""
    hanging = ("env=sample_envs:Faulty-v0", "env.kwargs.what=hang", "env.kwargs.when=45")
    process = zygote.start("train", *SMALL, *hanging, LENGTH, "run.dir=run")
    metrics = here / "run/metrics.jsonl"
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) == 2, 30, lambda: process.err.read_text())
    wait_until(lambda: sleeps(process.pid), 30)  # before, the first one would end it in good order
    process.send(getattr(signal, first))
    with pytest.raises(AssertionError, match="still running"):
        process.wait(0.5)
    process.send(getattr(signal, second))
    result = process.wait(20)
    assert result.status == STATUS[second]
    assert "Traceback" not in result.err


# -- killed --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timestep", [47, 80, 95])
def test_killed_with_checkpoints(timestep, here, zygote, uninterrupted):
    """At most one interval is lost, rows stand there once, and the end is the same."""
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "checkpoints.interval=16", "run.dir=run"))
    result = zygote.run("train", *overrides, before=KILL_AT.format(timestep))
    assert result.status == -9
    saved = verify(latest(here / "run"))["timestep"]
    assert timestep - 16 <= saved <= timestep
    assert not (here / "run/summary.json").exists()
    again = call("train", *overrides, "resume=auto")
    assert again.status == 0
    assert f"going on from run/checkpoints/{saved}" in again.text
    assert_same(here / "run", uninterrupted("cartpole"))


def test_killed_between_a_checkpoint_and_its_pointer(here, zygote, uninterrupted):
    """A checkpoint is there, `latest` names the one before: a resume goes on from the newer one, and `latest` follows at once."""
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "checkpoints.interval=16", "run.dir=run"))
    assert zygote.run("train", *overrides, before=KILL_AT.format(95)).status == -9
    newest = latest(here / "run").name
    (here / "run/checkpoints/latest").write_text(str(int(newest) - 16))
    again = zygote.run("train", *overrides, "resume=auto", before=KILL_AT.format(int(newest) + 3))  # before the next one
    assert again.status == -9 and f"going on from run/checkpoints/{newest}" in again.text
    assert latest(here / "run").name == newest
    assert call("train", *overrides, "resume=auto").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))


def test_killed_before_the_first_checkpoint_starts_anew(here, zygote, uninterrupted):
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "run.dir=run"))
    assert zygote.run("train", *overrides, before=KILL_AT.format(45)).status == -9
    assert rows(here / "run")
    assert_one_error(call("train", "resume=run"), 3, "resume=run: the run has no checkpoint yet")
    assert call("train", *overrides, "resume=auto").status == 0
    assert_same(here / "run", uninterrupted("cartpole"))


def test_a_row_that_was_written_by_half_is_dropped(trained, here):
    shutil.copytree(trained, "run")
    expected = rows(here / "run")
    with open("run/metrics.jsonl", "a") as file:
        file.write('{"wall_time": 1.0, "timest')
    assert call("train", "resume=run", "trainer.timesteps=220").status == 0
    assert rows(here / "run")[: len(expected)] == expected
    assert [row["timestep"] for row in rows(here / "run")][len(expected) :] == [220]


def test_tensorboard_shows_every_step_once(here):
    """The rows after the checkpoint of 80 were written, then the process was killed: they are purged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("trainer.timesteps=120", "checkpoints.interval=80", "tracking.tensorboard=true", "run.dir=run")
    shutil.rmtree("run/checkpoints/120")
    Path("run/checkpoints/latest").write_text("80")
    assert call("train", "resume=run").status == 0
    events = EventAccumulator("run", size_guidance={"scalars": 0}).Reload()
    for tag in ("rollout/episodes", "rollout/episode_return_mean", "loss/policy", "time/env_steps_per_second"):
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == [row["env_steps"] for row in rows(here / "run") if tag in row or tag.startswith("time/")]
        assert len(steps) == len(set(steps)) >= (3 if tag.startswith("loss") else 5)  # losses where an update was


# -- resume=auto ---------------------------------------------------------------------------------------------------------


def test_auto_starts_goes_on_and_does_no_more(at, here, uninterrupted):
    command = ("train", *merged(SMALL, (LENGTH, *EVALUATED, "run.dir=run", "resume=auto")))
    at(60, send("SIGTERM"))
    assert call(*command).status == 143
    at(-1, None)
    assert call(*command).status == 0
    assert_same(here / "run", uninterrupted("cartpole"))
    before = everything(here / "run")
    assert call(*command).status == 0  # finished already
    assert everything(here / "run") == before
    assert_same(here / "run", uninterrupted("cartpole"))


def corrupt(checkpoint: Path) -> None:
    path = checkpoint / "trainer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_auto_skips_what_is_corrupt_and_says_so(here, uninterrupted):
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "checkpoints.interval=40", "checkpoints.keep=9", "run.dir=run"))
    assert call("train", *overrides).status == 0
    corrupt(here / "run/checkpoints/150")
    (here / "run/checkpoints/120/manifest.json").unlink()
    assert_one_error(call("train", "resume=run"), 3, "checkpoints/150", "run.dir=run resume=auto, goes on from the newest one")
    result = call("train", *overrides, "resume=auto")
    assert result.status == 0
    for name in ("150", "120"):
        assert f"skipped: run/checkpoints/{name}" in result.text
    assert "going on from run/checkpoints/80" in result.text
    assert_same(here / "run", uninterrupted("cartpole"))


def tree(directory: Path) -> dict[str, bytes | str]:
    """Return all that is under a directory: bytes of files, targets of links."""
    paths = sorted(directory.rglob("*"))
    return {str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "" for path in paths}


def set_aside(run: Path) -> Path:
    """Leave the only checkpoint as a process does that is killed between the two renames of a save over it."""
    path = latest(run)
    return path.rename(path.with_name(f".old-{path.name}-12345"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: corrupt(latest(run)), "200/trainer.safetensors: its sha256 is not the manifest's; the file is corrupt"),
        (lambda run: (latest(run) / "manifest.json").unlink(), "200: manifest.json is missing"),
        (lambda run: shutil.rmtree(latest(run)), "200: it is the latest"),
        (lambda run: corrupt(set_aside(run)), ".old-200-12345/trainer.safetensors: its sha256 is not the manifest's"),
    ],
    ids=["corrupt", "half", "gone", "aside"],
)
def test_where_no_checkpoint_verifies_all_stays_as_it_is(damage, sentence, trained, here, zygote):
    run = here / "outputs/multirun/0"
    shutil.copytree(trained, run)
    for path in store_of(run).all()[1:]:
        shutil.rmtree(path)
    (here / "outputs/latest").symlink_to("multirun/0")
    (run / ".lock").write_text("pid 1 on host of-the-dead")
    damage(run)
    before = tree(here)
    command = ("train", *SMALL, LENGTH, "run.dir=outputs/latest", "resume=auto")
    assert_one_error(call(*command), 3, sentence, "nothing was changed: put", "or start anew in another directory")
    assert_one_error(call("train", "resume=latest"), 3, sentence, "start", "anew in another directory")
    assert tree(here) == before
    sweep = zygote.run("train", "-m", *SMALL, LENGTH, "hydra.sweep.dir=outputs/multirun", cwd=here)
    assert (sweep.status, sentence in sweep.err) == (1, True), sweep.err
    assert before.items() <= tree(here).items()  # Hydra's own files apart


def test_a_checkpoint_that_stands_aside_is_gone_on_from(here, uninterrupted):
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "run.dir=run"))
    assert call("train", *overrides, "trainer.timesteps=100").status == 0
    aside = set_aside(here / "run")
    shutil.copytree(aside, latest(here / "run"))
    corrupt(latest(here / "run"))  # of two of the same timestep the one in place doesn't verify
    result = call("train", *overrides, "resume=auto")
    assert result.status == 0
    assert ("going on from run/checkpoints/.old-100" in result.text, aside.exists()) == (True, False)
    set_aside(here / "run")
    assert call("train", "resume=run").status == 0
    verify(latest(here / "run"))


def test_auto_starts_where_a_kill_left_no_checkpoint_yet(here, uninterrupted):
    overrides = merged(SMALL, (LENGTH, *EVALUATED, "run.dir=run"))
    assert call("train", *overrides).status == 0
    latest(here / "run").rename(here / "run/checkpoints/.tmp-50-12345")  # killed just before the rename
    for path in (here / "run/checkpoints").glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = call("train", *overrides, "resume=auto")
    assert "the run has no checkpoint yet: starting from the beginning" in result.text
    assert_same(here / "run", uninterrupted("cartpole"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed=2", "seed=2: run/config.yaml has 1"),
        ("env.num_envs=8", "env.num_envs=8: run/config.yaml has 4"),
        ("agents.ppo.network.policy_sizes=[9]", "agents.ppo.network.policy_sizes=[9]: run/config.yaml has [8]"),
        ("env=Pendulum-v1", "env.id=Pendulum-v1: run/config.yaml has CartPole-v1"),
    ],
)
def test_auto_refuses_another_experiment_in_the_same_directory(override, sentence, trained, here):
    shutil.copytree(trained, "run")
    assert_one_error(call("train", *merged(SMALL, (override,)), LENGTH, "run.dir=run", "resume=auto"), 2, sentence)


def test_auto_with_a_seed_drawn_goes_on_with_it(at, here):
    command = ("train", *merged(SMALL, ("seed=null", "trainer.timesteps=60", "run.dir=run", "resume=auto")))
    at(30, send("SIGTERM"))
    assert call(*command).status == 143
    seed = yaml.safe_load(Path("run/config.yaml").read_text())["seed"]
    at(-1, None)
    assert call(*command).status == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["seed"] == seed
    train("trainer.timesteps=60", f"seed={seed}", "run.dir=again")
    assert hashes(here / "run") == hashes(here / "again")


# -- what a resume takes and refuses ----------------------------------------------------------------------------------------


def test_longer_keeps_the_horizon_and_says_so(trained, here):
    shutil.copytree(trained, "run")
    result = call("train", "resume=run", "total_env_steps=1000", "agents.ppo.learning_rate_schedule=linear")
    assert result.status == 0
    said = "schedules keep their horizon of 200 timesteps (schedule.horizon): this is not equal"
    assert result.text.count(said) == 1
    path = latest(here / "run")
    assert path.name == "250"
    assert read_part(path, "trainer", verify(path))["horizon"] == 200
    result = call("train", "resume=run", "trainer.timesteps=260", "schedule.horizon=260")
    assert "schedules keep" not in result.text
    path = latest(here / "run")
    assert read_part(path, "trainer", verify(path))["horizon"] == 260


@pytest.mark.parametrize(
    "override", ["env=Pendulum-v1", "env=gymnasium", "agents=ppo", "agents_scope=even", "experiment=ppo_cartpole"]
)
def test_a_resume_refuses_another_group(override, trained, here):
    shutil.copytree(trained, "run")
    before = (here / "run/config.yaml").read_bytes()
    assert_one_error(call("train", "resume=run", override), 2, "can't be changed here; groups that can: trainer, backend")
    assert (here / "run/config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.num_envs=8", "env.num_envs=8: the run was started with 4, which a resume can't change"),
        ("env.id=Acrobot-v1", "env.id=Acrobot-v1: the run was started with CartPole-v1"),
        ("seed=2", "seed=2: the run was started with 1"),
        ("agents.ppo.rollout_length=16", "agents.ppo.rollout_length=16: the run was started with 32"),
        ("agents.ppo.network.policy_sizes=[9]", "agents.ppo.network.policy_sizes=[9]: the run was started with [8]"),
        ("agents_scope=[4]", "agents_scope.sizes=[4]: the run was started with "),
        ("trainer.timesteps=100", "trainer.timesteps=100: the run is at timestep 200, 800 env steps, already"),
        ("total_env_steps=400", "total_env_steps=400: the run is at timestep 200, 800 env steps, already"),
        ("run.dir=elsewhere", "run.dir=elsewhere: resume is given too"),
    ],
)
def test_a_resume_that_can_not_fit_changes_nothing(override, sentence, trained, here):
    shutil.copytree(trained, "run")
    before = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file() and path.suffix != ".log"}
    assert_one_error(call("train", "resume=run", override), 2, sentence)
    after = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file() and path.suffix != ".log"}
    after.pop(here / "run/.lock", None)
    before.pop(here / "run/.lock", None)
    assert after == before


def test_a_checkpoint_is_not_a_run(trained, here):
    assert_one_error(call("train", f"resume={trained}/checkpoints/200"), 2, "is a checkpoint; name its run")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("agents.ppo.epochz=3", "no such key; did you mean 'agents.ppo.epochs'?"),
        ("+agents.ppo.epochz=3", "no such key"),
        ("agents.ppo.epochs=0", "agents.ppo.epochs=0: must be"),
        ("seed=1,2", "seed=1,2"),
        ("seed=[1", "seed=[1"),
        ("backend=toch", "backend=toch: no such choice; did you mean 'torch'?"),
        ("init_from=x", "init_from=x: resume is given too"),
    ],
)
def test_a_resume_checks_its_overrides(override, sentence, trained, here):
    shutil.copytree(trained, "run")
    assert_one_error(call("train", "resume=run", override), 2, sentence)


def test_a_resume_takes_values_and_the_groups_that_do_not_matter(trained, here):
    shutil.copytree(trained, "run")
    result = call("train", "resume=run", "trainer=sequential", "backend=torch", "agents.ppo.epochs=3", "trainer.timesteps=210")
    assert result.status == 0, result.err
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (saved["agents"]["ppo"]["epochs"], saved["agents"]["ppo"]["rollout_length"]) == (3, 32)
    assert saved["trainer"]["timesteps"] == 210


def test_a_resume_of_nothing(here):
    assert_one_error(call("train", "resume=nowhere"), 2, "resume=nowhere: no such run; name a run's directory")
    Path("empty").mkdir()
    assert_one_error(call("train", "resume=empty"), 2, "resume=empty: holds no run")
    assert_one_error(call("train", "resume=latest"), 2, "resume=latest: no such run (no run was started under outputs/ here)")
    assert not list(Path("empty").iterdir())


@pytest.mark.parametrize("path", ["run", "run/", "run/latest", "run/checkpoints/latest", "outputs/latest", "latest"])
def test_a_run_can_be_named_in_these_ways(path, trained, here):
    directory = here / "outputs/a/run" if "outputs" in path or path == "latest" else here / "run"
    shutil.copytree(trained, directory)
    if "outputs" in str(directory):
        (here / "outputs/latest").symlink_to("a/run")
    assert call("train", f"resume={path}", "trainer.timesteps=210").status == 0
    assert verify(latest(directory))["timestep"] == 210
    assert yaml.safe_load((directory / "config.yaml").read_text())["run"]["dir"] == str(directory.relative_to(here))


def test_a_checkpoint_without_what_a_resume_needs_names_it(trained, here):
    shutil.copytree(trained, "run")
    path = here / "run/checkpoints/200"
    (path / "agents/ppo/training.safetensors").unlink()
    from forgery import edit_manifest

    edit_manifest(path, lambda manifest: manifest["files"].pop("agents/ppo/training.safetensors"))
    assert_one_error(call("train", "resume=run", "trainer.timesteps=210"), 3, "can't be resumed, it lacks agents/ppo/training")
    assert call("eval", "run", "episodes=1").status == 0  # the policy is enough for that


def test_an_environment_that_can_not_be_saved(at, here):
    overrides = ("env=sample_envs:Opaque-v0", "env.num_envs=2", LENGTH, "run.dir=run")
    at(40, send("SIGTERM"))
    train(*overrides, status=143)
    assert verify(latest(here / "run"))["exact_resume"] is False
    at(-1, None)
    result = call("train", "resume=run")
    assert result.status == 0
    assert result.text.count("(exact_resume is false)") == 1
    shutil.copytree("run", "again")
    assert summary(here / "run")["env_steps"] == 300
    assert call("train", "resume=again", "trainer.timesteps=170").status == 0
    assert call("train", "resume=run", "trainer.timesteps=170").status == 0
    assert hashes(here / "run") == hashes(here / "again")  # the seeds of the new episodes are derived, not drawn


def test_an_environment_that_saves_itself(at, here):
    overrides = ("env=sample_envs:SpeaksForItself-v0", "env.num_envs=2", "trainer.timesteps=60")
    train(*overrides, "run.dir=whole")
    at(40, send("SIGTERM"))
    train(*overrides, "run.dir=run", status=143)
    assert verify(latest(here / "run"))["exact_resume"] is True
    at(-1, None)
    assert "exact_resume" not in call("train", "resume=run").text
    assert_same(here / "run", here / "whole")


def test_init_from_takes_the_weights_and_nothing_else(trained, here):
    train("trainer.timesteps=8", f"init_from={trained}", "run.dir=run", "seed=5")
    assert hashes(here / "run") == hashes(trained)  # no update in 8 timesteps
    assert summary(here / "run")["env_steps"] == 32
    train("trainer.timesteps=32", f"init_from={trained}/best", "run.dir=best", "seed=5")
    assert hashes(here / "best") != hashes(trained)
    assert summary(here / "best")["agents"]["ppo"]["updates"] == 1
    assert_one_error(call("train", "init_from=nowhere"), 2, "init_from=nowhere: no such run or checkpoint")


# -- directories ----------------------------------------------------------------------------------------------------------


def test_a_directory_that_holds_a_run_is_refused(trained, here):
    shutil.copytree(trained, "run")
    before = sorted((path, path.stat().st_mtime_ns) for path in (here / "run").rglob("*"))
    assert_one_error(call("train", *SMALL, LENGTH, "run.dir=run"), 2, "run.dir=run: holds a run already; add resume=auto")
    assert sorted((path, path.stat().st_mtime_ns) for path in (here / "run").rglob("*")) == before


def test_a_file_is_no_directory(here):
    Path("file").write_text("x")
    assert_one_error(call("train", *SMALL, LENGTH, "run.dir=file"), 2, "run.dir=file: is a file")
    assert_one_error(call("train", *SMALL, LENGTH, "run.dir=file/run"), 4, "run.dir=file/run: Not a directory")


def test_two_runs_in_one_directory(here, zygote):
    process = zygote.start("train", *SMALL, "trainer.timesteps=10000000", "checkpoints.interval=20", "run.dir=run")
    pointer = here / "run/checkpoints/latest"
    wait_until(lambda: pointer.exists() or process.poll() is not None, 30, lambda: process.err.read_text())
    sentence = f"error: run.dir=run: in use by pid {process.pid} on host {socket.gethostname()}"
    for overrides in ([*SMALL, LENGTH, "run.dir=run"], ["resume=run"], [*SMALL, LENGTH, "run.dir=run", "resume=auto"]):
        assert_one_error(call("train", *overrides), 4, sentence)
    assert process.poll() is None
    process.send(signal.SIGKILL)
    assert process.wait().status == -9
    assert (here / "run/.lock").read_text() == f"pid {process.pid} on host {socket.gethostname()}"
    timestep = verify(latest(here / "run"))["timestep"]
    assert call("train", "resume=run", f"trainer.timesteps={timestep + 5}").status == 0  # the lock of the dead is taken over


def test_two_runs_in_the_same_second(here, monkeypatch):
    class Clock(runs.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs, "datetime", Clock)
    made = [make_run_directory(None, "a:Own/X-v0", ["ppo", "fast"], 7) for _ in range(3)]
    assert [str(path) for path in made] == [
        f"outputs/a_Own_X-v0/ppo+fast/2026-01-02_03-04-05_s7{end}" for end in ("", "_1", "_2")
    ]  # fmt: skip
    with pytest.raises(ConfigError):
        make_run_directory("outputs/../" + _started(made[0]), "a", ["ppo"], 7)


def _started(path: Path) -> str:
    (path / "config.yaml").write_text("")
    return str(path)


def test_latest_is_a_relative_link_to_the_run_that_started_last(here):
    for seed in (1, 2):
        train("trainer.timesteps=4", f"seed={seed}")
        link = here / "outputs/latest"
        assert not os.path.isabs(os.readlink(link))
        assert yaml.safe_load((link / "config.yaml").read_text())["seed"] == seed
    train("trainer.timesteps=4", "seed=3", "run.dir=elsewhere")
    assert yaml.safe_load((link / "config.yaml").read_text())["seed"] == 2


def test_the_run_directory(trained):
    files = {"config.yaml", "metrics.jsonl", "checkpoints", "train.log", "summary.json"}
    assert {path.name for path in trained.iterdir()} >= files
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["timestep"] for line in lines] == [20, 40, 60, 80, 100, 120, 140, 160, 180, 200]
    assert all(line["env_steps"] == 4 * line["timestep"] and line["agent"] == "ppo" for line in lines)
    assert all(isinstance(value, int | float | str | None) for line in lines for value in line.values())
    assert [line["timestep"] for line in lines if "evaluation/episode_return_mean" in line] == [100, 200]
    tags = {"policy/approx_kl", "policy/clip_fraction", "value/explained_variance", "policy/entropy", "policy/grad_norm"}
    assert {*tags, "policy/learning_rate", "rollout/episode_return_mean", "time/env_steps_per_second"} <= lines[-1].keys()
    told = summary(trained)
    assert {"training_seconds", "compile_seconds", "env_steps_per_second", "exit_reason", "versions", "agents"} <= told.keys()
    assert told["exit_reason"] == "finished"
    assert told["environment"]["vectorization"] == "sync"  # what `auto` chose
    agent = told["agents"]["ppo"]
    assert {"env_steps", "episodes", "parameters_sha256"} <= agent.keys()
    assert (agent["env_steps"], len(agent["parameters_sha256"])) == (800, 64)


# -- determinism -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("tracking.interval=7", "tracking.tensorboard=true"),
        ("checkpoints.interval=9", "checkpoints.keep=1"),
        ("evaluation.interval=30", "evaluation.episodes=5"),
        ("evaluation.interval=50", "evaluation.episodes=1", "trainer.stochastic_evaluation=true"),
        ("trainer.disable_progressbar=true",),
        ("trainer.disable_progressbar=false",),
        ("env.vectorization=async",),
        ("env.on_nonfinite=ignore",),
        ("run.dir=named",),
    ],
)
def test_nothing_but_the_settings_of_learning_changes_what_is_learned(overrides, here, uninterrupted):
    train(LENGTH, *merged(("run.dir=run",), overrides))
    run = here / ("named" if "run.dir=named" in overrides else "run")
    assert hashes(run) == hashes(uninterrupted("cartpole"))


@pytest.mark.parametrize("override", ["seed=2", "agents.ppo.learning_rate=1e-3", "env.num_envs=5", "agents.ppo.epochs=3"])
def test_the_settings_of_learning_do(override, here, uninterrupted):
    train(LENGTH, override, "run.dir=run")
    assert hashes(here / "run") != hashes(uninterrupted("cartpole"))


def test_schedules_are_not_spoken_of_where_none_is_set(trained, here):
    shutil.copytree(trained, "run")
    result = call("train", "resume=run", "trainer.timesteps=201")
    assert result.status == 0 and "schedules" not in result.text


def test_a_finished_run_says_that_it_is_and_how_to_train_on(trained, here):
    """It stays as it is, to the byte, and the command that it names trains on."""
    shutil.copytree(trained, "my run")
    before = {path: path.read_bytes() for path in Path("my run").rglob("*") if path.is_file()}
    result = call("train", "resume=my run")
    assert result.status == 0
    assert "my run is finished: 200 of 200 timesteps are made, 800 env steps; nothing was trained" in result.out
    assert "env steps/s" not in result.text and "episodes" not in result.text
    assert {path: path.read_bytes() for path in Path("my run").rglob("*") if path.is_file()} == before
    longer = shlex.split(result.out.splitlines()[-1])
    assert longer[:2] == ["rltrain", "train"] and call(*longer[1:]).status == 0
    assert summary(here / "my run")["timestep"] == 400


def test_a_finished_run_that_was_killed_before_its_summary_gets_one(trained, here):
    shutil.copytree(trained, "run")
    told = summary(here / "run")
    (here / "run/summary.json").unlink()
    result = call("train", "resume=run")
    assert result.status == 0 and "saved in run" in result.out
    again = summary(here / "run")
    assert {key: again[key] for key in ("exit_reason", "agents", "timestep")} == {
        key: told[key] for key in ("exit_reason", "agents", "timestep")
    }
