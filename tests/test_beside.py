"""Checkpoints that can't be read, that are being removed, that go while somebody reads them."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, Result, assert_one_error, call, train, wait_until

from rltrain import checkpoints
from rltrain.checkpoints import CheckpointStore, verify
from rltrain.commands import reading
from rltrain.errors import CheckpointError, StorageError

pytest.importorskip("torch")  # the default backend, which the runs here are of


@pytest.fixture
def run(monkeypatch):
    """A run of 40 timesteps with checkpoints at 20 and 40, where anybody may look."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    train("trainer.timesteps=40", "checkpoints.interval=20", "run.dir=run")
    yield folder / "run"
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def call_as_nobody(*arguments):
    """Run a command in a process that permissions hold for, unlike root's."""
    reading_end, writing_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            result = call(*arguments)
            os.write(writing_end, json.dumps([result.status, result.out, result.err]).encode())
        finally:
            os._exit(0)
    os.close(writing_end)
    with open(reading_end, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return Result(*json.loads(answer))


AUTO = ("train", *SMALL, "trainer.timesteps=60", "run.dir=run", "resume=auto")
EVAL, RESUME = ("eval", "run", "episodes=1"), ("train", "resume=run", "trainer.timesteps=60")
VERIFY, SHOW, INIT = ("checkpoint", "verify", "run"), ("checkpoint", "show", "run"), ("train", *SMALL, "init_from=run")
EXPORT = ("checkpoint", "export", "run", "out.npz")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("checkpoints/40/agents/ppo/policy.safetensors", (EVAL, RESUME, AUTO, VERIFY, INIT, EXPORT)),
        ("checkpoints/40/manifest.json", (EVAL, RESUME, AUTO, VERIFY, SHOW, INIT, EXPORT)),
        ("checkpoints/40", (EVAL, RESUME, AUTO, VERIFY, SHOW, INIT, EXPORT)),
        ("checkpoints/40/config.yaml", (EVAL, EXPORT)),
        ("checkpoints/latest", (EVAL, RESUME, VERIFY, SHOW, INIT)),
        ("checkpoints", (EVAL, RESUME, AUTO, VERIFY, INIT)),
        ("config.yaml", (RESUME, AUTO)),
        ("", (EVAL, RESUME, AUTO, VERIFY, INIT)),
    ],
)
def test_what_can_not_be_read_is_said(name, commands, run):
    """Permissions are storage, exit 4: no checkpoint is damaged, and none is passed over for an older one."""
    for path in [run, *run.rglob("*")]:
        path.chmod(0o777)
    (run / name).chmod(0)
    for command in commands:
        assert_one_error(call_as_nobody(*command), 4, f"run/{name}".rstrip("/"), "ermission denied")
    (run / name).chmod(0o755)
    assert verify(run / "checkpoints/40")["timestep"] == 40


def test_a_read_that_fails_is_storage(run, monkeypatch):
    """A disk that doesn't answer says nothing about the checkpoint."""
    real = os.open

    def broken(path, *args, **kwargs):
        if str(path).endswith("40/trainer.safetensors"):
            raise OSError(5, "Input/output error", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", broken)
    for command in (EVAL, RESUME, AUTO, VERIFY):
        assert_one_error(call(*command), 4, "40/trainer.safetensors: can't be read: input/output error")


# -- pruning -------------------------------------------------------------------------------------------------------------


def save(store, *timesteps):
    for timestep in timesteps:
        store.save(timestep, {"a": {"x": np.array(timestep)}, "b": 0}, {"timestep": timestep}, {})


@pytest.mark.parametrize("call_of_unlink", range(1, 6))
def test_a_removal_that_is_cut_short_leaves_no_half(call_of_unlink, tmp_path, monkeypatch):
    """Killed at any of its steps: what is there under its name is whole, what isn't doesn't come back."""
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 10)
    real, calls = os.unlink, []

    def cut(*args, **kwargs):
        calls.append(args)
        if len(calls) == call_of_unlink:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(os, "unlink", cut)
    try:
        save(store, 20)
    except KeyboardInterrupt:
        monkeypatch.undo()
    for path in store.all():
        verify(path)
    monkeypatch.undo()
    store.clear_temporaries()
    assert [path.name for path in store.all()][-1:] != ["10"] or verify(tmp_path / "10")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".gone")]
    assert verify(store.pointer("latest"))["timestep"] in (10, 20)


def test_a_checkpoint_that_lies_elsewhere_is_pruned_as_a_link(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    save(store, 10)
    (tmp_path / "checkpoints/10").rename(tmp_path / "elsewhere")
    (tmp_path / "checkpoints/10").symlink_to(tmp_path / "elsewhere")
    save(store, 20)
    assert sorted(path.name for path in store.directory.iterdir()) == ["20", "latest"]
    assert verify(tmp_path / "elsewhere")["timestep"] == 10


def test_nothing_is_pruned_where_a_pointer_can_not_be_read(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 10)
    store.mark_best(10)

    def unreadable(self, name):
        raise StorageError(name)

    monkeypatch.setattr(CheckpointStore, "pointer", unreadable)
    save(store, 20)
    assert [path.name for path in store.all()] == ["20", "10"]


# -- readers beside training ---------------------------------------------------------------------------------------------


def test_a_reader_goes_on_with_the_checkpoint_after_the_one_that_went(tmp_path, monkeypatch):
    """The writer saves twice between any two files that the reader opens."""
    (tmp_path / "config.yaml").touch()
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    save(store, 1)
    real, writes = checkpoints.reading, [0]

    def beside(path):
        if "checkpoints/" in str(path) and writes[0] < 20 and path.parent.name.isdigit():
            writes[0] += 1
            monkeypatch.setattr(checkpoints, "reading", real)
            save(store, 1 + writes[0])
            monkeypatch.setattr(checkpoints, "reading", beside)
        return real(path)

    monkeypatch.setattr(checkpoints, "reading", beside)
    held = reading.hold_found(str(tmp_path))
    assert held.manifest["timestep"] == 21


def test_what_is_missing_for_good_is_said(run):
    (run / "checkpoints/40/trainer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"40/trainer.safetensors: missing"):
        reading.hold_found("run")


def test_evaluations_beside_a_run_that_keeps_one(here, zygote):
    """`latest` and `best` of a run that saves at every few steps: none of many readers finds half a checkpoint."""
    arguments = (*SMALL, "run.dir=run", "trainer.timesteps=100000000", "checkpoints.interval=5", "checkpoints.keep=1")
    more = ("evaluation.interval=50", "evaluation.episodes=1", "trainer.disable_progressbar=true")
    writer = zygote.start("train", *arguments, *more)
    wait_until((here / "run/checkpoints/best").exists, 120)
    seen, reads, deadline = set(), 0, time.monotonic() + 60
    while reads < 30 or (len(seen) < 4 and time.monotonic() < deadline):
        held = reading.hold_found("run/best" if reads % 3 == 0 else "run")
        seen.add(held.manifest["timestep"])
        assert held.policies["ppo"]
        reads += 1
    for command in (EVAL, ("eval", "run/best", "episodes=1"), VERIFY, SHOW):
        result = call(*command)
        assert result.status == 0, result.err
    writer.send(signal.SIGTERM)
    assert (writer.wait().status, len(seen) >= 4) == (143, True)
