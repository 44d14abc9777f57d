"""A signal during training in a script: what is to be saved is saved, then the signal acts as if it came only now, once."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import wait_until
from signalling_envs import Sender

from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointsConfig, verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.runs import Run
from rltrain.seeding import TRAINING_ENVIRONMENTS, environment_seeds
from rltrain.tracking import TrackingConfig
from rltrain.trainers import ParallelTrainer, SequentialTrainer, StepTrainer

torch = pytest.importorskip("rltrain.agents.ppo.torch")

SETTINGS = {"rollout_length": 4, "epochs": 1, "minibatches": 1, "network": {"policy_sizes": [4], "value_sizes": [4]}}
DEFAULT = {signal.SIGINT: (KeyboardInterrupt, None), signal.SIGTERM: (SystemExit, 143), signal.SIGHUP: (SystemExit, 143),
           signal.SIGUSR1: (SystemExit, 138), signal.SIGUSR2: (SystemExit, 140)}  # fmt: skip


def make(kind: type, number: int, directory: Path | None, agents: int = 1, **cfg: Any) -> Any:
    """Return a trainer whose first copy sends `number` in the tenth timestep."""
    sender = partial(Sender, os.getpid(), number, environment_seeds(1, TRAINING_ENVIRONMENTS, 1)[0])
    env = GymnasiumEnv({"id": "sender", "num_envs": agents}, seed=1, make=sender)
    parts = []
    for index in range(agents):
        ppo = torch.PPO(env.observation_space, env.action_space, num_envs=1, cfg=SETTINGS, seed=1, index=index)
        parts.append(Agent(ppo, name=f"ppo_{index}"))
    run = None
    if directory is not None:
        run = Run(directory=directory, tracking=TrackingConfig(tensorboard=False), checkpoints=CheckpointsConfig(interval=0))
    return kind(env, parts, cfg={"timesteps": 40, "disable_progressbar": True, **cfg}, run=run)


def train(trainer: Any) -> None:
    """Train to the end as a script does."""
    if isinstance(trainer, StepTrainer):
        while not trainer.is_finished:
            trainer.train()
    else:
        trainer.train()


def assert_saved(trainer: Any, directory: Path | None) -> None:
    """Check that the trainer stopped in good order, and that what it holds is what it saved."""
    assert 10 <= trainer.timestep < trainer.timesteps
    if directory is not None:
        saved = trainer.run.store.pointer("latest")
        assert verify(saved)["timestep"] == trainer.timestep
        assert (directory / "train.log").read_text().count("stopped by") == 1
        assert trainer.run._metrics is None


def scripts(tmp_path: Path) -> list[Any]:
    parallel = {"kind": ParallelTrainer, "agents": 2}
    return [
        {"kind": SequentialTrainer}, {"kind": StepTrainer}, {"kind": SequentialTrainer, "directory": tmp_path},
        {"kind": StepTrainer, "directory": tmp_path},
        parallel | {"placement": "partitioned", "directory": tmp_path, "max_drift": 3, "timesteps": 4000},
        parallel | {"placement": "shared"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("which", "number"),
    [
        (0, signal.SIGTERM), (0, signal.SIGINT), (1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGINT),
        (3, signal.SIGTERM), (3, signal.SIGINT), (2, signal.SIGHUP), (0, signal.SIGUSR1), (3, signal.SIGUSR2),
        (4, signal.SIGTERM), pytest.param(4, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(5, signal.SIGTERM, marks=pytest.mark.slow), pytest.param(5, signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_script_ends_with_the_first_of_two_trainings(which, number, tmp_path):
    how = {"directory": None} | scripts(tmp_path / "first")[which]
    first, second = make(number=number, **how), make(SequentialTrainer, 0, None)
    error, code = DEFAULT[number]
    before = signal.getsignal(number)
    with pytest.raises(error) as raised:
        train(first)
        train(second)
    assert getattr(raised.value, "code", None) == code and second.timestep == 0
    assert signal.getsignal(number) is before
    assert_saved(first, how["directory"])
    first.timesteps = first.timestep + 8
    while first.timestep < first.timesteps:  # a script that has caught it may go on: nothing of the signal is left
        first.train()
    assert first.timestep == first.timesteps


@pytest.mark.parametrize("which", [0, 2, 3])
def test_a_handler_of_the_script_is_called_once_after_the_save_and_decides(which, tmp_path):
    how = {"directory": None} | scripts(tmp_path / "first")[which]
    first, second, seen = make(number=signal.SIGTERM, **how), make(SequentialTrainer, 0, None), []

    def handler(number, frame):
        seen.append((number, frame.f_lineno > 0, signal.getsignal(number) is handler))
        assert_saved(first, how["directory"])

    before = signal.signal(signal.SIGTERM, handler)
    try:
        train(first)
        train(second)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [(signal.SIGTERM, True, True)]
    assert second.timestep == 40


def test_an_ignored_signal_stays_ignored(tmp_path):
    trainer = make(SequentialTrainer, signal.SIGTERM, tmp_path / "run")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        train(trainer)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.timestep == 40


def test_a_signal_for_one_of_two_step_trainers_ends_both(tmp_path):
    """They take turns, so that one waits between two steps while the other is told: it has its checkpoint, too."""
    one, other = make(StepTrainer, 0, tmp_path / "one"), make(StepTrainer, signal.SIGTERM, tmp_path / "other")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        while True:
            one.train()
            other.train()
    for trainer in (one, other):
        assert_saved(trainer, trainer.run.directory)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_trainer_that_was_left_half_way_keeps_no_signal_to_itself(tmp_path):
    """Neither one that came while it waited, nor one that comes in another's training or after both."""
    left, second = make(StepTrainer, 0, tmp_path / "left"), make(SequentialTrainer, 0, None)
    for _ in range(12):
        left.train()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        second.train()
    assert second.timestep == 0
    assert_saved(left, tmp_path / "left")
    one, other = make(StepTrainer, 0, tmp_path / "one"), make(StepTrainer, 0, tmp_path / "other")
    before = signal.getsignal(signal.SIGTERM)
    one.train()
    other.train()
    one.finish()  # not in the order in which they began
    assert signal.getsignal(signal.SIGTERM) is not before
    other.finish()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_training_within_a_step_ends_and_then_the_step(tmp_path):
    inner, seen = make(SequentialTrainer, signal.SIGTERM, None), []

    def callback(trainer, result):
        if trainer.timestep == 3:
            inner.train()
            seen.append(inner.timestep)

    outer = make(StepTrainer, 0, tmp_path / "outer")
    outer.callback = callback
    with pytest.raises(SystemExit):
        train(outer)
    assert seen == [10] and outer.timestep == 3
    assert verify(outer.run.store.pointer("latest"))["timestep"] == 3


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", -signal.SIGINT)])
def test_a_script_is_ended_by_a_signal_from_outside(name, status, zygote, tmp_path):
    script = f"""
import gymnasium, rltrain
from pathlib import Path
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import SequentialTrainer

class Marking(Agent):
    def pre_interaction(self, timestep, timesteps):
        if timestep == 50:
            Path("{tmp_path}/started").touch()
        super().pre_interaction(timestep, timesteps)

def train():
    env = GymnasiumEnv({{"id": "CartPole-v1", "num_envs": 2}}, seed=1)
    agent = Marking(PPO(env.observation_space, env.action_space, num_envs=2, cfg={SETTINGS!r}, seed=1))
    SequentialTrainer(env, agent, cfg={{"timesteps": 10_000_000, "disable_progressbar": True}}).train()

train()
Path("{tmp_path}/went_on").touch()
sys.exit(0)
"""
    process = zygote.start(before=script)
    wait_until(lambda: (tmp_path / "started").exists() or process.poll() is not None, 60)
    process.send(getattr(signal, name))
    result = process.wait(20)
    assert result.status == status, result.err
    assert not (tmp_path / "went_on").exists()
    assert "stopped by" in result.err
