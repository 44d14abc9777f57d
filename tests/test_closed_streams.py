"""Programs started with closed streams, in a directory that is gone, or with no room on the disk: real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import RLTRAIN, SMALL, assert_one_error, merged, summary
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rltrain.checkpoints import CheckpointStore, verify

pytest.importorskip("torch")  # the default backend, which the runs here are of

FULL = Path("/dev/full")
COMMAND = " ".join((sys.executable, *RLTRAIN[1:]))


def shell(line: str) -> int:
    """Run `rltrain` with redirections as a shell makes them."""
    return subprocess.run(f"{COMMAND} {line}", shell=True, timeout=60).returncode


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(closed, here):
    """Nothing is written to the files that are opened in their place; what a command has to say by its status it says."""
    assert shell(f"checkpoint verify nosuch {closed}") == 2
    assert shell(f"--help {closed}") == 0


# What Python makes of them, in a process that has imported everything: then the files of the run get their numbers.
CLOSED = "import os\nfor number in (0, 1, 2):\n    os.close(number)\nsys.stdin = sys.stdout = sys.stderr = None"


def test_a_run_without_any_stream(zygote, here, trained):
    overrides = merged(SMALL, ("trainer.timesteps=40", "run.dir=run", "tracking.tensorboard=true"))
    running = [zygote.start("train", *overrides, before=CLOSED)]
    running += [zygote.start(*command, before=CLOSED) for command in (
        ("eval", str(trained), "episodes=2", "run.dir=eval"),
        ("eval", str(trained), "episodes=2", "json=true", "run.dir=as_json"),
        ("checkpoint", "verify", str(trained)), ("checkpoint", "show", str(trained)), ("list", "agents"),
        ("train", "--cfg", "job"), ("train", "dry_run=true"), ("nosuch",),
    )]  # fmt: skip
    assert [process.wait().status for process in running] == [0] * 8 + [2]
    assert json.loads(Path("run/metrics.jsonl").read_text().splitlines()[0])["timestep"] == 20
    assert (
        verify(CheckpointStore(Path("run/checkpoints")).pointer("latest"))["timestep"] == summary(Path("run"))["timestep"] == 40
    )
    assert len(Path("run/.lock").read_text()) == 0
    assert (Path("eval/eval.json").exists(), Path("as_json/eval.json").exists()) == (True, True)


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_no_room_for_what_a_command_prints(zygote, here, trained):
    """What was asked for is missing: 4. A run's table is not what it was started for."""
    for command in (("list", "agents"), ("checkpoint", "show", str(trained)), ("--version",)):
        result = zygote.run(*command, out=str(FULL))
        assert (result.status, result.err) == (4, "error: stdout: can't be written: No space left on device\n")
    assert zygote.run("train", *merged(SMALL, ("trainer.timesteps=20", "run.dir=run")), out=str(FULL)).status == 0


@pytest.mark.parametrize("command", [
    ("train", "run.dir=x"), ("train", "-m", "seed=1,2"), ("eval", "latest"), ("checkpoint", "verify", "x"), ("list", "agents"),
])  # fmt: skip
def test_a_working_directory_that_was_deleted(command, zygote, here):
    before = "os.mkdir('d')\nos.chdir('d')\nos.rmdir('../d')"
    result = zygote.run(*command, before=before)
    assert_one_error(result, 2, "working directory: there is none (it was deleted); change to one that exists")
    assert zygote.run("--help", before=before).status == 0
    assert os.listdir(here) == []


def test_no_room_for_rows_of_metrics(zygote, here):
    """Said once, in a sentence; training goes on, and what stands in the files can be read."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (24000, 24000))"
    overrides = merged(SMALL, ("trainer.timesteps=600", "run.dir=run", "tracking.interval=5", "tracking.tensorboard=true"))
    result = zygote.run("train", *overrides, before=limit)
    assert result.status == 0 and result.err.count("warning: ") == 1, result.err
    assert "warning: metrics: File too large; rows are lost until it has room, training goes on" in result.err
    assert "Traceback" not in result.err and verify(CheckpointStore(Path("run/checkpoints")).pointer("latest"))["timestep"] == 600
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator("run")
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/episodes")]
    assert 20 < len(lines) < 120 and steps[:20] == [row["env_steps"] for row in lines][:20]


def test_a_script_without_stderr(monkeypatch):
    from rltrain.screen import Screen

    monkeypatch.setattr(sys, "stderr", None)
    screen = Screen(total=10, copies=1)
    screen.say("nobody reads this")
    screen.move(10)
    screen.close()
