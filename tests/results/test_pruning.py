"""`rltrain runs prune`: what goes, what stays, whoever interferes."""

import io
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from command_line import assert_one_error, call, train

from rltrain.checkpoints import CheckpointStore, verify
from rltrain.results import pruning
from rltrain.results.listing import shown_bytes
from rltrain.results.records import read_run
from rltrain.runs import locked

CHECKPOINTS = Path("outputs/run/checkpoints")
KILLED_WHILE_REMOVING = """
import os, shutil
shutil.rmtree = lambda path, **_: (os.unlink(path / "manifest.json"), os.kill(os.getpid(), 9))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with six checkpoints, `best` the second of them."""
    folder = tmp_path_factory.mktemp("runs")
    before = os.getcwd()
    os.chdir(folder)
    try:
        train("run.dir=outputs/run", "trainer.timesteps=60", "checkpoints.interval=10", "checkpoints.keep=9")
        Path("outputs/run/checkpoints/best").write_text("20")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(trained, here):
    """A copy of it."""
    shutil.copytree(trained, here, dirs_exist_ok=True, symlinks=True)
    return Path("outputs/run")


def there() -> list[str]:
    """Return what the checkpoints' folder holds."""
    return sorted(path.name for path in CHECKPOINTS.iterdir())


ALL = ["10", "20", "30", "40", "50", "60", "best", "latest"]


def test_latest_and_best_stay(run):
    size = read_run(run).size
    shown = call("runs", "prune", "dry_run=true")
    assert (shown.status, there()) == (0, ALL)
    assert "10, 30, 40, 50" in shown.out and "4 checkpoints of 1 of 1 run, " in shown.out and "dry run" in shown.out
    result = call("runs", "prune", "yes=true")
    assert (result.status, there()) == (0, ["20", "60", "best", "latest"])
    assert "deleted 4 checkpoints, " in result.out
    frees = result.out.partition("deleted 4 checkpoints, ")[2].strip()
    assert f"of 1 of 1 run, {frees}" in shown.out and frees == shown_bytes(size - read_run(run).size)
    for name in ("20", "60"):
        verify(CHECKPOINTS / name)
    assert "nothing to delete in 1 run" in call("runs", "prune", "yes=true").out
    assert call("train", f"resume={run}", "trainer.timesteps=70").status == 0


def test_the_newest_stay(run):
    call("runs", "prune", "keep=3", "yes=true")
    assert there() == ["20", "40", "50", "60", "best", "latest"]
    for wrong in ("0", "-1", "x", "1.5"):
        assert_one_error(call("runs", "prune", f"keep={wrong}", "yes=true"), 2, f"keep={wrong}: must be a whole number >= 1")


def test_every_agents_best_and_a_latest_that_is_not_the_newest_stay(run):
    (CHECKPOINTS / "latest").write_text("50")
    (CHECKPOINTS / "best-a").write_text("10")
    (CHECKPOINTS / "best-b").write_text("30")
    call("runs", "prune", "yes=true")
    assert there() == ["10", "20", "30", "50", "60", "best", "best-a", "best-b", "latest"]


def test_the_newest_that_verifies_stays(run):
    """A resume goes on from there."""
    for name in ("20", "50", "60"):
        with open(CHECKPOINTS / name / "trainer.safetensors", "r+b") as file:
            file.truncate(100)
    call("runs", "prune", "yes=true")
    assert there() == ["20", "40", "60", "best", "latest"]
    shutil.rmtree(CHECKPOINTS / "40")
    shutil.copytree(CHECKPOINTS / "60", CHECKPOINTS / "30")
    assert "outputs/run keeps everything: none of its checkpoints verifies" in call("runs", "prune", "yes=true").out
    assert there() == ["20", "30", "60", "best", "latest"]


def test_a_pointer_that_cannot_be_read_speaks_for_all(run):
    (CHECKPOINTS / "best").write_text("../../x")
    result = call("runs", "prune", "yes=true")
    assert "keeps everything: outputs/run/checkpoints/best: holds '../../x', not the name" in result.out
    assert there() == ALL


def test_links_and_what_is_not_plainly_a_checkpoint_stay(run, here):
    shutil.move(CHECKPOINTS / "10", "elsewhere")
    os.symlink(here / "elsewhere", CHECKPOINTS / "10")
    (CHECKPOINTS / "30/notes.txt").write_text("mine")
    (CHECKPOINTS / "40/manifest.json").unlink()
    (CHECKPOINTS / "7").mkdir()
    (CHECKPOINTS / "7/thesis.pdf").touch()
    (CHECKPOINTS / "README").touch()
    os.symlink(here, CHECKPOINTS / ".gone-3-4")
    call("runs", "prune", "yes=true")
    assert there() == sorted([".gone-3-4", "7", "README", *ALL[:4], "60", "best", "latest"])
    assert verify(here / "elsewhere") and (here / "outputs").is_dir()
    shutil.move(CHECKPOINTS, "moved")
    os.symlink(here / "moved", CHECKPOINTS)
    assert "keeps everything: its checkpoints/ is a link" in call("runs", "prune", "keep=1", "yes=true").out


def test_a_running_run_keeps_everything(run):
    with locked(run):
        assert "outputs/run keeps everything: running" in call("runs", "prune", "yes=true").out
    assert there() == ALL


def test_a_run_that_starts_meanwhile_keeps_everything(run):
    plan = pruning.plan(read_run(run), 1)
    assert len(plan.old) == 4
    with locked(run), pytest.raises(pruning.StorageError, match="in use by pid"):
        pruning.carry_out(plan, 1)
    (CHECKPOINTS / "best").write_text("40")  # it has found a better one since
    (CHECKPOINTS / "latest").write_text("50")
    assert [path.name for path in pruning.carry_out(plan, 1)] == ["10", "30"]
    verify(CHECKPOINTS / "40")


def test_one_that_became_another_meanwhile_keeps_everything(run):
    plan = pruning.plan(read_run(run), 1)
    shutil.rmtree(CHECKPOINTS / "60")
    with pytest.raises(pruning.StorageError, match="changed meanwhile"):
        pruning.carry_out(plan, 1)
    assert there() == [name for name in ALL if name != "60"]


def test_a_kill_in_the_middle_leaves_no_half_checkpoint(run, zygote):
    result = zygote.run("runs", "prune", "yes=true", before=KILLED_WHILE_REMOVING)
    assert result.status == -signal.SIGKILL
    left = [name for name in there() if name.startswith(".gone-")]
    assert len(left) == 1 and not (CHECKPOINTS / left[0] / "manifest.json").exists()
    store = CheckpointStore(CHECKPOINTS)
    for path in store.all():
        verify(path)
    assert {path.name for path in store.all()} >= {"20", "60"}
    assert call("runs", "prune", "yes=true").status == 0
    assert there() == ["20", "60", "best", "latest"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", ["20", "60", "best", "latest"]), ("\n", ALL), ("", ALL), ("no\n", ALL)])
def test_it_asks(answer, left, run, monkeypatch):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    result = call("runs", "prune")
    assert (result.status, there()) == (0, left) and "delete them? [y/N]" in result.err


def test_nobody_to_ask(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert_one_error(call("runs", "prune"), 2, "yes=false: nobody is there to be asked; yes=true")
    assert there() == ALL


def test_filters_and_directories(run):
    shutil.copytree("outputs/run", "other/run")
    call("runs", "prune", "seed=2", "yes=true")
    assert there() == ALL
    call("runs", "prune", "other", "state=finished", "yes=true")
    assert there() == ALL and len(list(Path("other/run/checkpoints").iterdir())) == 4


def test_what_cannot_be_deleted_is_said_and_the_rest_goes_on(run, monkeypatch):
    shutil.copytree("outputs/run", "outputs/second")
    rename = os.rename

    def refuse(source, target):
        if str(source).startswith("outputs/run/"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    result = call("runs", "prune", "yes=true")
    assert_one_error(result, 4, "outputs/run/checkpoints/10: can't be deleted: Permission denied")
    assert there() == ALL and "deleted 4 checkpoints" in result.out


def test_a_folder_without_checkpoints(here):
    Path("outputs/empty/checkpoints").mkdir(parents=True)
    Path("outputs/file").mkdir()
    Path("outputs/file/checkpoints").touch()
    assert "nothing to delete in 2 runs" in call("runs", "prune", "yes=true").out
