"""What a fault of a worker does to a run: real processes, real signals. Everything stops, nothing is left, checkpoints stand."""

import contextlib
import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import Process, Result, merged, summary, wait_until

from rltrain.checkpoints import CheckpointStore, verify

pytest.importorskip("torch")  # the default backend, which the runs here are of

SECONDS = 5.0
TELLS_AT_ONCE = ("raise", "nan", "exit", "kill", "segfault")
WORDS = {
    "raise": ("error: agents.b: post_interaction, timestep 24: ZeroDivisionError: my agent is broken", "in _obey"),
    "nan": ("error: agents.b: loss/policy=nan", "is not finite after update"),
    "exit": ("error: agents.b: post_interaction, timestep 24: its worker ended (exit status 3)",),
    "kill": ("error: agents.b: post_interaction, timestep 24: its worker ended (killed by SIGKILL)",),
    "segfault": ("error: agents.b: post_interaction, timestep 24: its worker ended (killed by SIGSEGV)", "in _obey"),
    "hang": ("error: agents.b: post_interaction, timestep 24: its worker gave no sign of life for 2 s", "in _obey"),
    "stop": ("error: agents.b: post_interaction, timestep 24: its worker gave no sign of life for 2 s", "is stopped"),
}
RUN = (
    "train", "trainer=parallel", "plugins=[faulty_agents]", "agents=[a:faulty,b:faulty]", "seed=1", "env.num_envs=4",
    "trainer.timesteps=100000", "trainer.worker_timeout=60", "checkpoints.interval=8", "tracking.tensorboard=false",
    "agents.a.rollout_length=8", "agents.a.epochs=1", "agents.a.minibatches=1",
    "agents.b.rollout_length=25", "agents.b.epochs=1", "agents.b.minibatches=1",
)  # fmt: skip


@dataclass
class Trial:
    """A run in processes that carry a mark, by which they are found wherever they have gone."""

    zygote: object
    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: Process | None = None

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.folder / "run"

    @property
    def fault_at(self) -> float:
        """When the fault happened."""
        return float((self.folder / "fault_at").read_text())

    def start(self, *overrides: str, fault: str = "nobody:0:raise") -> Process:
        """Start the run."""
        environ = {"FAULT": fault, "FAULT_AT": str(self.folder / "fault_at"), "TRIAL": self.mark}
        self.process = self.zygote.start(*RUN, f"run.dir={self.run}", *overrides, **environ)  # type: ignore[attr-defined]
        return self.process

    def alive(self) -> list[int]:
        """Return the processes of this trial that run or are stopped, but for the main one."""
        found = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit() and f"TRIAL={self.mark}".encode() in (path / "environ").read_bytes():
                    state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and (self.process is None or int(path.name) != self.process.pid):
                        found.append(int(path.name))
        return found

    def workers(self) -> list[int]:
        """Return the workers: direct children that are not the resource tracker."""
        assert self.process is not None
        found = []
        for pid in self.alive():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return sorted(found)

    def wait_for_checkpoint(self) -> None:
        """Wait until the first one stands."""
        wait_until(lambda: self.latest() is not None, 90, lambda: self.process.err.read_text())  # type: ignore[union-attr]

    def latest(self) -> Path | None:
        """Return the last checkpoint."""
        return CheckpointStore(self.run / "checkpoints").pointer("latest")

    def assert_clean(self, since: float, *, seconds: float = SECONDS) -> None:
        """Nothing lives on, nothing is left in shared memory, and the last checkpoint verifies."""
        wait_until(lambda: not self.alive(), max(0.1, since + seconds - time.time()), lambda: f"orphans: {self.alive()}")
        assert self.process is not None
        assert not [name for name in os.listdir("/dev/shm") if f"-{self.process.pid}-" in name]
        latest = self.latest()
        if latest is not None:
            assert set(verify(latest)["agents"]) == {"a", "b"}


@pytest.fixture
def trial(zygote, tmp_path):
    trial = Trial(zygote, tmp_path)
    yield trial
    for pid in [*trial.alive(), *([trial.process.pid] if trial.process and trial.process.poll() is None else [])]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def checkpoints_in(run: Path) -> list[str]:
    """Return the names of a run's checkpoints."""
    folder = run / "checkpoints"
    return os.listdir(folder) if folder.is_dir() else []


def assert_told(trial: Trial, result: Result, *words: str) -> None:
    """The run failed, and screen and error.log say why."""
    assert result.status == 1, result.err
    log = (trial.run / "error.log").read_text()
    for word in words:
        assert word in result.err, result.err
        assert word.removeprefix("error: ") in log, log


SLOW = [
    *(("shared", what) for what in WORDS),
    *(("partitioned", what) for what in ("exit", "segfault", "stop", "nan")),
]


@pytest.mark.parametrize(
    ("placement", "what"),
    [
        pytest.param(placement, what, marks=[pytest.mark.slow] if (placement, what) in SLOW else [])
        for placement in ("partitioned", "shared")
        for what in WORDS
    ],
)
def test_a_fault_of_one_worker_ends_the_run(placement, what, trial):
    quick = what in TELLS_AT_ONCE
    timeout = () if quick else ("trainer.worker_timeout=2",)
    # agent A stays within reach, so that a checkpoint of both is there; in lock-step, an update comes with the next turn
    process = trial.start(f"trainer.placement={placement}", "trainer.max_drift=4", *timeout, fault=f"b:1:{what}")
    result = process.wait(120)
    ended = time.time()
    assert_told(trial, result, *WORDS[what])
    assert ended - trial.fault_at < SECONDS + (0 if quick else 2)
    trial.assert_clean(trial.fault_at, seconds=SECONDS + (0 if quick else 2))
    latest = trial.latest()
    # free, agent A may not have come to 24 yet
    assert latest is not None and latest.name in {"partitioned": ("16", "24"), "shared": ("24",)}[placement]


def test_a_worker_that_fails_to_start_ends_the_run(trial):
    result = trial.start(fault="b:0:raise").wait(120)
    assert_told(trial, result, "error: agents.b: make, timestep 0: ZeroDivisionError: my agent is broken", "in _obey")
    assert time.time() - trial.fault_at < SECONDS
    trial.assert_clean(trial.fault_at)


@pytest.mark.parametrize("placement", ["partitioned", pytest.param("shared", marks=pytest.mark.slow)])
def test_workers_end_when_their_parent_is_killed(placement, trial):
    process = trial.start(f"trainer.placement={placement}")
    trial.wait_for_checkpoint()
    assert len(trial.workers()) == 2
    process.send(signal.SIGKILL)
    trial.assert_clean(time.time())


@pytest.mark.slow
def test_copies_that_hang_in_processes_of_their_own_end_with_a_killed_worker(zygote, trial):
    environ = {"ARMED": "step:20:hang", "TRIAL": trial.mark}
    overrides = ("agents=[a:ppo,b:ppo]", "env=armed_envs:Armed-v0", "env.vectorization=async", "env.num_envs=2", "plugins=[]")
    trial.process = zygote.start(*RUN, f"run.dir={trial.run}", *overrides, **environ)
    wait_until(lambda: len(trial.workers()) == 2 and "16" in checkpoints_in(trial.run), 90)
    time.sleep(1.0)  # the copies hang by now
    os.kill(trial.workers()[0], signal.SIGKILL)
    since = time.time()
    assert "its worker ended (killed by SIGKILL)" in trial.process.wait(30).err
    trial.assert_clean(since)


def test_a_worker_killed_from_outside_and_a_second_interrupt(trial):
    """Workers are direct children and ignore what a terminal sends to all; a second INT quits at once."""
    process = trial.start()
    trial.wait_for_checkpoint()
    first, second = trial.workers()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(first, number)
    os.kill(second, signal.SIGSTOP)  # so that the stop takes its time
    process.send(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None and len(trial.workers()) == 2
    process.send(signal.SIGINT)
    since = time.time()
    assert process.wait(SECONDS).status == 130
    trial.assert_clean(since)


def test_an_environment_that_fails_in_a_worker_names_agent_and_copy(zygote, trial):
    environ = {"ARMED": "step:20:raise", "TRIAL": trial.mark}
    overrides = ("agents=[a:ppo,b:ppo]", "env=armed_envs:Armed-v0", "env.num_envs=2", "plugins=[]")
    trial.process = zygote.start(*RUN, f"run.dir={trial.run}", *overrides, **environ)
    result = trial.process.wait(60)
    assert result.status == 1
    assert "step at step 19: RuntimeError: armed in step" in result.err
    assert result.err.count("env.id=armed_envs:Armed-v0: copy ") == 1 and "error: agents." in result.err
    trial.assert_clean(time.time())


CLOSES = {
    "raise": "env.id=armed_envs:Armed-v0: copy {copy}: close at step {step}: RuntimeError: armed in close",
    "kill": "close, timestep {step}: its worker ended (killed by SIGKILL)",
    "hang": "close, timestep {step}: its worker gave no sign of life for 2 s",
}


@pytest.mark.parametrize(("what", "stopped"), [
    ("raise", False), pytest.param("kill", True, marks=pytest.mark.slow), pytest.param("hang", False, marks=pytest.mark.slow),
])  # fmt: skip
def test_an_environment_that_only_fails_to_close_costs_no_checkpoint(what, stopped, zygote, trial):
    """All agents go on to where they end and are saved there, finished or stopped by a signal; then the failure is told."""
    environ = {"ARMED": f"close:1:{what}", "ARMED_IN": "workers", "TRIAL": trial.mark}
    overrides = ["agents=[a:ppo,b:ppo]", "env=armed_envs:Armed-v0", "env.num_envs=2", "plugins=[]", "trainer.max_drift=2"]
    if not stopped:
        overrides += ["trainer.timesteps=60", "checkpoints.interval=0"]
    if what == "hang":
        overrides += ["trainer.worker_timeout=2"]
    trial.process = zygote.start(*merged(RUN, (f"run.dir={trial.run}", *overrides)), **environ)
    if stopped:
        trial.wait_for_checkpoint()
        trial.process.send(signal.SIGTERM)
    result = trial.process.wait(60)
    end = summary(trial.run)["timestep"]
    assert result.status == 1 and (stopped or end == 60)
    told = [line for line in result.err.splitlines() if line.startswith("error: ")]
    sentences = [f"error: agents.{agent}: {CLOSES[what].format(copy=copy, step=end)}" for copy, agent in enumerate("ab")]
    assert len(told) == 1 and any(told[0].startswith(sentence) for sentence in sentences), result.err
    trial.assert_clean(time.time())
    latest = verify(trial.latest())
    assert (latest["timestep"], latest["exact_resume"], latest["env_steps"]) == (end, True, 2 * end)


TEAMS = (
    "agents=[a:ippo,b:mappo]", "plugins=[]", "env=pettingzoo", "env.id=mpe/simple_spread_v3", "env.kwargs.N=2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["partitioned", "shared"])
def test_a_killed_worker_of_a_team_ends_the_run_which_goes_on_as_if_nothing_had_been(placement, zygote, trial):
    """What a sequential run makes of the last checkpoint is what it would have come to by itself."""
    pytest.importorskip("mpe2")
    process = trial.start(*TEAMS, f"trainer.placement={placement}", "trainer.max_drift=8")
    trial.wait_for_checkpoint()
    since = time.time()
    os.kill(trial.workers()[1], signal.SIGKILL)
    result = process.wait(30)
    assert_told(trial, result, "error: agents.b: ", "its worker ended (killed by SIGKILL)")
    assert len(result.err.split("error: ")[1].splitlines()) <= 3
    trial.assert_clean(since)

    end = int(trial.latest().name) + 20
    ended = [f"trainer.timesteps={end}", "trainer=sequential", "trainer.disable_progressbar=true"]
    assert zygote.run("train", f"resume={trial.run}", *ended).status == 0
    whole = trial.folder / "whole"
    alone = [override for override in RUN if not override.startswith("trainer")]
    assert zygote.run(*merged(alone, (*TEAMS, f"run.dir={whole}", *ended))).status == 0
    hashes = [{name: agent["parameters_sha256"] for name, agent in summary(run)["agents"].items()} for run in (trial.run, whole)]
    assert hashes[0] == hashes[1]
