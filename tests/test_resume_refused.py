"""What a resume refuses leaves the run as it was; ignored signals stay ignored; `best` is never a checkpoint that isn't there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rltrain.checkpoints import CheckpointStore, verify
from rltrain.cli import main
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import Run
from rltrain.trainers.base import Trainer
from rltrain.trainers.bookkeeping import Best, Clock


def contents(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in ("train.log", ".lock"))
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=99", "the run was started with"),
        ("env.num_envs=7", "env.num_envs=7: the run was started with 4, which a resume can't change"),
        ("env.id=Acrobot-v1", "the run was started with CartPole-v1"),
        ("agents.ppo.rollout_length=33", "the run was started with"),
        ("agents.ppo.network.policy_sizes=[32]", "agents.ppo.network.policy_sizes=[32]: the run was started with [8]"),
        ("trainer.timesteps=50", "trainer.timesteps=50: the run is at timestep 200, "),
        ("run.dir=elsewhere", "a resumed run has its own weights and directory"),
    ],
)
def test_a_resume_that_can_not_fit_changes_nothing(trained, here, override, says, capsys):
    shutil.copytree(trained, "run")
    before = contents(Path("run"))
    assert main(["train", "resume=run", override]) == 2
    assert says in capsys.readouterr().err
    assert contents(Path("run")) == before
    assert not Path("elsewhere").exists()


def test_resume_names_a_run_not_a_checkpoint(trained, here, capsys):
    shutil.copytree(trained, "run")
    assert main(["train", "resume=run/checkpoints/200"]) == 2
    assert "is a checkpoint; name its run" in capsys.readouterr().err


def test_a_signal_that_the_shell_ignores_stays_ignored(here):
    script = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "from rltrain.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "train", "trainer.timesteps=3000", "run.dir=run", "seed=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not Path("run/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(60) == 0
    assert '"exit_reason": "finished"' in Path("run/summary.json").read_text()


@pytest.mark.parametrize("names", [["ppo"], ["fast", "slow"]])
def test_best_is_not_moved_to_a_checkpoint_that_was_not_written(tmp_path, monkeypatch, names):
    run = Run(directory=tmp_path, agents=names, evaluation=EvaluationConfig(interval=10, episodes=1))
    trainer = object.__new__(Trainer)  # only what `_attend` touches
    trainer.run, trainer.timestep, trainer.timesteps = run, 20, 100
    trainer.agents, trainer.clock, trainer.last_evaluation, trainer._planned_at = [], Clock(), {}, 10
    trainer.best = {name: Best(1.0, 10) for name in names}

    def better() -> list[str]:
        trainer.best |= {names[0]: Best(2.0, 20)}
        return names[:1]

    monkeypatch.setattr(trainer, "_evaluate_for_best", better)
    monkeypatch.setattr(trainer, "save", lambda: False)
    trainer._attend()
    assert trainer.best == {name: Best(1.0, 10) for name in names}
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.pointer("best") is None and store.bests() == []


def test_names_that_hydra_would_stumble_over(here):
    assert main(["train", "trainer.timesteps=20", "seed=1", "run.dir=a=b é (x)"]) == 0
    assert verify(Path("a=b é (x)/checkpoints/20"))["timestep"] == 20
    assert main(["train", "resume=a=b é (x)", "trainer.timesteps=30"]) == 0
