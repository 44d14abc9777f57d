"""Tries what goes wrong at night, many times, at random: signals, faults of the environment, bad values, flipped bits.

    python scripts/fault_trials.py --kinds signals,faults,values,flips --trials 100 --seed 0

signals   a run is stopped by a random signal at a random moment: exit status, a checkpoint that verifies, a resume whose end
          equals that of the run that was never stopped, bit for bit; a second INT or TERM quits at once and leaves what verifies
faults    an environment raises or answers wrongly at a random call: exit status 1, copy and phase named, error.log written,
          checkpoints that verify, nothing left running
values    random bad overrides of random settings: exit status 2, a sentence of three lines at most with the key, nothing created
flips     one random bit of a random file of a checkpoint: `checkpoint verify` ends with 3, and `eval` with 3 too

Runs are forked from a process that has imported PyTorch and computed nothing, which saves seconds per trial. Exit status 1 if
anything didn't hold; what failed stays in the folder that is named.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 138, signal.SIGUSR2: 140}
SMALL = ["seed=1", "tracking.interval=8", "tracking.tensorboard=false", "env.num_envs=4", "backend.device=cpu"]
ON_POLICY = ["agents.{}.rollout_length=16", "agents.{}.epochs=2", "agents.{}.minibatches=2"]
REPLAY = ["agents.{}.learning_starts=32", "agents.{}.batch_size=16", "agents.{}.memory_size=2000", "checkpoints.memory=true"]
CELLS: dict[str, list[str]] = {  # the runs that are tried
    "ppo": ["agents=ppo", "env=trial_envs:ArmedCartPole-v0", *(o.format("ppo") for o in ON_POLICY), "trainer.timesteps=1600"],
    "ppo async": ["agents=ppo", "env=trial_envs:ArmedCartPole-v0", "env.vectorization=async", "trainer.timesteps=1600",
                  *(o.format("ppo") for o in ON_POLICY)],
    "a2c": ["agents=a2c", "env=trial_envs:ArmedPendulum-v0", "agents.a2c.rollout_length=8", "trainer.timesteps=1600"],
    "dqn": ["agents=dqn", "env=trial_envs:ArmedCartPole-v0", *(o.format("dqn") for o in REPLAY), "trainer.timesteps=600"],
    "sac": ["agents=sac", "env=trial_envs:ArmedPendulum-v0", *(o.format("sac") for o in REPLAY), "trainer.timesteps=200",
            "agents.sac.gradient_steps=1"],
    "td3 step": ["agents=td3", "trainer=step", "env=trial_envs:ArmedPendulum-v0", *(o.format("td3") for o in REPLAY),
                 "trainer.timesteps=200", "agents.td3.gradient_steps=1"],
    "two parallel": ["agents=[one:ppo,two:ppo]", "trainer=parallel", "env=trial_envs:ArmedCartPole-v0",
                     *(o.format(n) for n in ("one", "two") for o in ON_POLICY), "trainer.timesteps=800"],
    "two shared": ["agents=[one:ppo,two:a2c]", "trainer=parallel", "trainer.placement=shared", "env=trial_envs:ArmedCartPole-v0",
                   *(o.format("one") for o in ON_POLICY), "trainer.timesteps=800"],
    "two in turn": ["agents=[one:ppo,two:dqn]", "env=trial_envs:ArmedCartPole-v0", *(o.format("one") for o in ON_POLICY),
                    *(o.format("two") for o in REPLAY), "trainer.timesteps=600"],
    "mappo": ["agents=mappo", "env=pettingzoo", *(o.format("mappo") for o in ON_POLICY), "trainer.timesteps=300"],
    "ppo jax": ["agents=ppo", "backend=jax", "env=trial_envs:ArmedCartPole-v0", *(o.format("ppo") for o in ON_POLICY),
                "trainer.timesteps=1600"],
    "dqn jax": ["agents=dqn", "backend=jax", "env=trial_envs:ArmedCartPole-v0", *(o.format("dqn") for o in REPLAY),
                "trainer.timesteps=600"],
}  # fmt: skip


class Trials:
    """What the kinds share: a folder, a generator, a tally."""

    def __init__(self, folder: Path, seed: int, cells: list[str]) -> None:
        self.folder, self.random, self.cells = folder, random.Random(seed), cells
        self.held: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.failures: list[str] = []
        self.references: dict[str, tuple[str, float]] = {}

    def note(self, kind: str, about: str, *wrong: str) -> None:
        """Count a trial; `wrong` says what didn't hold, if anything."""
        self.tried[kind] += 1
        self.held[kind] += not wrong
        self.failures += [f"{kind}: {about}: {what}" for what in wrong]
        for what in wrong:
            print(f"  {kind}: {about}: {what}", flush=True)

    def start(self, run: Path, *arguments: str, fault: str = "") -> int:
        """Start a command in a process of its own; its screen goes to RUN.txt."""
        pid = os.fork()
        if pid:
            return pid
        status = 99
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            screen = os.open(f"{run}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(screen, 1)
            os.dup2(screen, 2)
            os.environ["FAULT"] = fault or "never:0:nothing"
            for number in STATUS:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            from rltrain.cli import main

            status = main(list(arguments))
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 98
        except BaseException as error:
            print(f"left by {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, pid: int, seconds: float) -> int | None:
        """Return the exit status (negative for a signal), or None if the process still runs after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.002)

    def finish(self, pid: int) -> tuple[int | None, list[int]]:
        """Wait for the end; return the status, None for a hang, and what lives on of its group after 5 seconds."""
        status = self.wait(pid, 120)
        if status is None:
            os.killpg(pid, signal.SIGKILL)
            self.wait(pid, 10)
            return None, []
        return status, left_over(pid)

    def run(self, run: Path, *arguments: str, fault: str = "") -> int | None:
        """Run a command to its end."""
        return self.finish(self.start(run, *arguments, fault=fault))[0]

    def screen(self, run: Path) -> str:
        """Return what a run wrote to its screen."""
        path = Path(f"{run}.txt")
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, cell: str, run: Path) -> list[str]:
        """Return the command of a cell."""
        return ["train", f"run.dir={run}", "resume=auto", "checkpoints.interval=40", *SMALL, *CELLS[cell]]

    def reference(self, cell: str) -> tuple[str, float]:
        """Return the outcome of a cell's run that was never stopped, and how long it took."""
        if cell not in self.references:
            run = self.folder / f"reference {cell}"
            began = time.monotonic()
            status = self.run(run, *self.command(cell, run))
            if status != 0:
                raise SystemExit(f"the undisturbed run of {cell!r} ended with {status}; see {run}.txt")
            self.references[cell] = outcome(run), time.monotonic() - began
        return self.references[cell]

    # -- kinds ---------------------------------------------------------------------------------------------------------

    def signals(self, number: int) -> None:
        """Stop a run by a signal, then let it come to its end."""
        cell = self.random.choice(self.cells)
        expected, seconds = self.reference(cell)
        sent = self.random.choice(list(STATUS))
        twice = sent in (signal.SIGINT, signal.SIGTERM) and self.random.random() < 0.25
        run, wrong = self.folder / f"signals {number}", []
        pid = self.start(run, *self.command(cell, run))
        delay = self.random.uniform(0.0, 1.1) * seconds
        status, left = self.wait(pid, delay), []
        if status is None:
            os.kill(pid, sent)
            if twice:
                time.sleep(self.random.uniform(0, 0.05))
                with_luck(os.kill, pid, sent)
            status, left = self.finish(pid)
        else:
            left = left_over(pid)
        about = f"{cell}, {sent.name}{' twice' if twice else ''} after {delay:.2f} of {seconds:.2f} s"
        before = not (run / "train.log").exists()  # it was still starting: a signal then ends it as it ends any program
        allowed = {0, STATUS[sent]} | ({-sent} if before else set()) | ({130, 143} if twice else set())
        if status not in allowed:
            wrong.append(f"exit status {status} instead of {sorted(allowed)}; see {run}.txt")
        if left:
            wrong.append(f"still running: {left}")
        wrong += unusable(run)
        if status == STATUS[sent] and not twice and not before and not (run / "checkpoints/latest").exists():
            wrong.append("no checkpoint was written")
        if self.run(run, *self.command(cell, run)) != 0:
            wrong.append(f"going on failed; see {run}.txt")
        elif outcome(run) != expected:
            wrong.append("not equal to the run that was never stopped")
        self.note("signals", about, *wrong)
        if not wrong:
            clean(run)

    def faults(self, number: int) -> None:
        """Let an environment fail or answer wrongly."""
        from trial_envs import RAISED, WRONG

        cell = self.random.choice([cell for cell in self.cells if cell != "mappo"])
        phase = self.random.choice(("make", "reset", "step", "step", "step", "close"))
        what = self.random.choice([*RAISED, *WRONG] if phase == "step" else list(RAISED))
        count = {"make": 1, "reset": self.random.randint(1, 3), "step": self.random.randint(1, 150), "close": 1}[phase]
        run, wrong = self.folder / f"faults {number}", []
        status, left = self.finish(self.start(run, *self.command(cell, run), fault=f"{phase}:{count}:{what}"))
        about, text = f"{cell}, {phase} {count} {what}", self.screen(run)
        if status != 1:
            wrong.append(f"exit status {status} instead of 1; see {run}.txt")
        if left:
            wrong.append(f"still running: {left}")
        if "copy" not in text or (phase not in text and what not in WRONG):
            wrong.append(f"copy or phase isn't named; see {run}.txt")
        if not [line for line in text.splitlines() if line.startswith("error: ")]:
            wrong.append(f"no sentence; see {run}.txt")
        wrong += unusable(run)
        if phase in ("reset", "step") and (run / "config.yaml").exists() and not (run / "error.log").exists():
            wrong.append("no error.log")
        if phase == "step" and run.exists() and not wrong and self.run(run, *self.command(cell, run)) != 0:
            wrong.append(f"going on without the fault failed; see {run}.txt")
        self.note("faults", about, *wrong)
        if not wrong:
            clean(run)

    def values(self, number: int) -> None:
        """Give a setting a value that it can't have."""
        key, value = self.random.choice(self.bad)
        run, about = self.folder / f"values {number}", f"{key}={value}"
        status = self.run(run, "train", f"run.dir={run}", "trainer.timesteps=16", *group_of(key), f"{key}={value}")
        text, wrong = self.screen(run), []
        if status != 2:
            wrong.append(f"exit status {status} instead of 2; see {run}.txt")
        lines = text.strip().splitlines()
        if len(lines) > 3 or not text.startswith("error: ") or "Traceback" in text:
            wrong.append(f"{len(lines)} lines: {lines[:1]}")
        if key.split(".")[-1] not in text:
            wrong.append(f"the key isn't named: {lines[:1]}")
        if run.exists():
            wrong.append("something was created")
        self.note("values", about, *wrong)
        if not wrong:
            clean(run)

    def flips(self, number: int) -> None:
        """Flip a bit of a checkpoint."""
        self.reference("ppo")
        source = self.folder / "reference ppo"
        run, wrong = self.folder / f"flips {number}", []
        shutil.copytree(source, run)
        latest = run / "checkpoints" / (run / "checkpoints/latest").read_text().strip()
        path = self.random.choice(sorted(path for path in latest.rglob("*") if path.is_file()))
        data = bytearray(path.read_bytes())
        bit = self.random.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        for command in (["checkpoint", "verify", str(run)], ["eval", str(run), "episodes=1"], ["train", f"resume={run}"]):
            status = self.run(run, *command)
            if status != 3:
                wrong.append(f"{command[0]}: exit status {status} instead of 3; see {run}.txt")
        self.note("flips", f"bit {bit} of {path.name}", *wrong)
        if not wrong:
            clean(run)

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Every setting with values that it can't have."""
        if not hasattr(self, "_bad"):
            self._bad = bad_values()
        return self._bad


def bad_values() -> list[tuple[str, str]]:
    """Return (key, value) of what no run may take: misspelt keys, wrong types, values out of bounds."""
    import dataclasses
    from typing import get_type_hints

    from rltrain import config

    found: list[tuple[str, str]] = []

    def walk(cls: type, path: str) -> None:
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            key = f"{path}.{field.name}" if path else field.name
            if dataclasses.is_dataclass(hints[field.name]):
                walk(hints[field.name], key)  # type: ignore[arg-type]
                continue
            if key in ("trainer", "env", "agents", "plugins", "run.dir", "resume", "init_from", "dry_run", "env.id"):
                continue
            about, hint = field.metadata, str(hints[field.name])
            found.append((f"{key}x", "1"))
            found.append((key, "{a:1}" if "dict" not in hint else "3"))
            if "int" in hint or "float" in hint:
                found.extend((key, value) for value in ("true", "[1,x]", "nan", "-.inf"))
                outside = [(about.get(name), change) for name, change in (("low", -1), ("high", 1))]
                found.extend((key, str(bound + change)) for bound, change in outside if bound is not None)
            if about.get("choices"):
                words = ("nonsense", "[auto]") if "int" in hint or "float" in hint else ("nonsense", "[auto]", "17")
                found.extend((key, value) for value in words)
            if "bool" in hint and "int" not in hint:
                found.extend((key, value) for value in ("maybe", "3", "[true]"))

    walk(config.Config, "")
    for group in ("trainer", "env", "agents"):
        for name, choice in config.CHOICES[group].items():
            if group in ("trainer", "agents") or name == "gymnasium":
                walk(choice.cfg, f"agents.{name}" if group == "agents" else group)
    return [(key, value) for key, value in found if key != "trainer.timesteps"]  # which the trials themselves give


def group_of(key: str) -> list[str]:
    """Return the choice that a key needs."""
    if key.startswith("agents."):
        name = key.split(".")[1]
        env = {"ippo": "env=pettingzoo", "mappo": "env=pettingzoo", "ddpg": "env=Pendulum-v1", "td3": "env=Pendulum-v1"}
        return [f"agents={name}", *([env[name]] if name in env else [])]
    from rltrain.trainers.config import ParallelConfig, StepConfig, TrainerConfig

    if key.startswith("trainer."):
        name = key.split(".")[1]
        for trainer, cfg in (("sequential", TrainerConfig), ("parallel", ParallelConfig), ("step", StepConfig)):
            if name in cfg.__dataclass_fields__:
                return [f"trainer={trainer}"]
    return []


def outcome(run: Path) -> str:
    """Return what must be equal to the run that was never stopped: parameters and rows of metrics."""
    agents = json.loads((run / "summary.json").read_text())["agents"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{tag: value for tag, value in row.items() if tag != "wall_time" and not tag.startswith("time/")} for row in rows]
    return json.dumps([{name: agent["parameters_sha256"] for name, agent in agents.items()}, kept])


def unusable(run: Path) -> list[str]:
    """Say which checkpoint that a pointer names doesn't verify."""
    from rltrain.checkpoints import CheckpointStore, verify
    from rltrain.errors import CheckpointError

    store, wrong = CheckpointStore(run / "checkpoints"), []
    for name in ("latest", "best", *store.bests()):
        try:
            target = store.pointer(name)
            if target is not None:
                verify(target)
        except CheckpointError as error:
            wrong.append(str(error))
    return wrong


def group(pid: int) -> list[int]:
    """Return the living processes of a process group."""
    text = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in text.splitlines())
    return [int(row[0]) for row in rows if int(row[1]) == pid and not row[2].startswith("Z")]


def left_over(pid: int) -> list[int]:
    """Return what lives on of a process group after 5 seconds, and end it."""
    end = time.monotonic() + 5
    while (left := group(pid)) and time.monotonic() < end:
        time.sleep(0.05)
    for orphan in left:
        with_luck(os.kill, orphan, signal.SIGKILL)
    return left


def with_luck(function: Callable[..., object], *arguments: object) -> None:
    """Call it; a process that is gone is no fault."""
    try:
        function(*arguments)
    except ProcessLookupError:
        pass


def clean(run: Path) -> None:
    """Remove what a trial left that held."""
    shutil.rmtree(run, ignore_errors=True)
    Path(f"{run}.txt").unlink(missing_ok=True)


def main() -> int:
    """Make the trials and return 1 if one didn't hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="signals,faults,values,flips")
    parser.add_argument("--trials", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", default=",".join(CELLS), help=f"of {', '.join(CELLS)}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    sys.path.insert(0, str(HERE))
    # imported, never computed with: processes are forked from here
    import rltrain.agents.ppo.torch
    import rltrain.commands.evaluate
    import rltrain.commands.train
    import rltrain.config
    import rltrain.trainers

    assert rltrain.trainers and rltrain.agents.ppo.torch and rltrain.commands.train and rltrain.commands.evaluate
    rltrain.config.compose([])
    folder = Path(tempfile.mkdtemp(prefix="fault_trials_"))
    trials, began = Trials(folder, arguments.seed, arguments.cells.split(",")), time.monotonic()
    for kind in arguments.kinds.split(","):
        for number in range(arguments.trials):
            if time.monotonic() - began > arguments.seconds:
                break
            getattr(trials, kind)(number)
        print(f"{kind}: {trials.tried[kind]} tried, {trials.held[kind]} held", flush=True)
    if trials.failures:
        print(f"{len(trials.failures)} failures; their runs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(bool(trials.failures))


if __name__ == "__main__":
    sys.exit(main())
