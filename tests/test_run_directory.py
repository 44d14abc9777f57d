"""A run's directory that is deleted, renamed, replaced or emptied under the run: said, no success, none half made."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from command_line import SMALL, merged, summary, wait_until

from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointStore, verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import StorageError
from rltrain.runs import Run
from rltrain.trainers import StepTrainer

torch = pytest.importorskip("rltrain.agents.ppo.torch")

LOST = "the directory was deleted, renamed or replaced while the run went on"
EMPTIED = "config.yaml was deleted while the run went on"


def rename() -> None:
    """Give the run another name."""
    os.rename("run", "moved")


def delete() -> None:
    """Take it away at once, as `rm -rf` does where it wins."""
    os.rename("run", "gone")
    shutil.rmtree("gone")


def replace() -> None:
    """Put somebody else's in its place."""
    rename()
    Path("run").mkdir()
    Path("run/theirs").touch()


def empty() -> None:
    """Take away what a shell's `*` finds, the configuration first; a checkpoint may just be on its way."""
    for path in [Path("run/config.yaml"), *Path("run").glob("[!.c]*"), Path("run/checkpoints")]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def start(zygote, *overrides: str):
    """Start a run without an end, and wait until it has a checkpoint."""
    endless = ("trainer.timesteps=1000000", "checkpoints.interval=50", "tracking.interval=50", "run.dir=run")
    base = [override for override in SMALL if not overrides or not override.startswith("agents.")]
    process = zygote.start("train", *merged(tuple(base), (*endless, "tracking.tensorboard=true", *overrides)))
    wait_until(Path("run/checkpoints/latest").exists, 60, lambda: process.err.read_text())
    return process


PARALLEL = ("trainer=parallel", "agents=[a:ppo,b:ppo]", "trainer.max_drift=10")


@pytest.mark.parametrize(("change", "why", "left", "overrides"), [
    (rename, LOST, [], ()), (delete, LOST, [], ()), (replace, LOST, ["theirs"], ()), (empty, EMPTIED, None, ()),
    pytest.param(rename, LOST, [], PARALLEL, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_directory_that_is_lost_is_said_once_and_ends_the_run_with_4(change, why, left, overrides, zygote, here):
    """Training goes on until then; nothing appears where the directory was, and a renamed one can be gone on with."""
    process = start(zygote, *overrides)
    change()
    wait_until(lambda: "warning: " in process.err.read_text(), 30)
    process.send(signal.SIGTERM)
    result = process.wait()
    told = [line for line in result.err.splitlines() if "run.dir=run" in line]
    warning = f"warning: run.dir=run: {why}; nothing is written there, training goes on"
    assert told == [warning, f"error: run.dir=run: {why}; what was learned since its last checkpoint is not saved"]
    assert result.status == 4 and "Traceback" not in result.err
    assert left is None or (os.listdir("run") if Path("run").exists() else []) == left
    if Path("moved").exists():
        newest = CheckpointStore(Path("moved/checkpoints")).newest_good()[0]
        end = verify(newest)["timestep"] + 7
        assert zygote.run("train", "resume=moved", f"trainer.timesteps={end}").status == 0
        assert summary(Path("moved"))["timestep"] == end


def test_a_directory_that_comes_back_in_time_costs_nothing(zygote, here):
    process = start(zygote)
    rename()
    wait_until(lambda: "warning: " in process.err.read_text(), 30)
    os.rename("moved", "run")
    process.send(signal.SIGTERM)
    assert process.wait().status == 143
    assert verify(CheckpointStore(Path("run/checkpoints")).pointer("latest"))["timestep"] == summary(Path("run"))["timestep"]


def test_a_script_hears_of_it_as_an_error(tmp_path):
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 1}, seed=1)
    cfg = {"rollout_length": 8, "network": {"policy_sizes": [4], "value_sizes": [4]}}
    agent = Agent(torch.PPO(env.observation_space, env.action_space, num_envs=1, cfg=cfg, seed=1))
    run = Run(directory=tmp_path / "run")
    trainer = StepTrainer(env, agent, cfg={"timesteps": 20, "disable_progressbar": True}, run=run)
    for _ in range(19):
        trainer.train()
    os.rename(tmp_path / "run", tmp_path / "moved")
    with pytest.raises(StorageError, match=f"run.dir=.*: {LOST}"):
        trainer.train()
    assert os.listdir(tmp_path) == ["moved"] and not (tmp_path / "moved/checkpoints").exists()
