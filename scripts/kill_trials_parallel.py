"""Kills a worker or the parent of parallel training at random moments: nothing may hang, live on, or be unusable.

    python scripts/kill_trials_parallel.py --trials 100 --seed 0

Each trial starts a run, or goes on with one by resume=auto, in one of the placements; waits a random time; kills a worker or the
parent with SIGKILL. Counted are hangs (a process of the run that lives on after 5 seconds), orphans among them, files left in
/dev/shm, and checkpoints that don't verify. A run that comes to its end must be equal to the sequential run that was never
killed, bit for bit. Exit status 1 if anything failed.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

TIMESTEPS, SECONDS = 1500, 5.0
OVERRIDES = [
    "resume=auto", "seed=1", "agents=[a:ppo,b:ppo]", "env.num_envs=4", f"trainer.timesteps={TIMESTEPS}",
    "checkpoints.interval=16", "checkpoints.keep=2", "evaluation.interval=100", "evaluation.episodes=2", "tracking.interval=16",
    "tracking.tensorboard=false", "agents.a.rollout_length=32", "agents.b.rollout_length=48", "agents.a.epochs=2",
    "agents.b.epochs=2",
]  # fmt: skip


@dataclass
class Tally:
    """What happened so far."""

    kills: dict[str, int] = field(default_factory=lambda: {"parent": 0, "worker": 0})
    before_workers: int = 0  # killed before there were workers
    hangs: int = 0
    orphans: int = 0
    left: int = 0  # files in /dev/shm
    unusable: int = 0
    finished: int = 0  # runs that came to their end, equal to the sequential one
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Sum up in one line."""
        return (
            f"{sum(self.kills.values())} kills ({self.kills['worker']} of a worker, {self.kills['parent']} of the parent, "
            f"{self.before_workers} before there were workers): {self.hangs} hangs, {self.orphans} orphans, "
            f"{self.left} files left in /dev/shm, {self.unusable} unusable checkpoints; {self.finished} runs ended equal to the "
            f"sequential one; {len(self.failures)} failures"
        )


def start(run: Path, mark: str, *overrides: str) -> subprocess.Popen:
    """Start a run in processes that carry `mark` in their environment."""
    with open(run.parent / "screen.txt", "ab") as screen:
        command = [sys.executable, "-m", "rltrain", "train", f"run.dir={run}", *OVERRIDES, *overrides]
        environ = {**os.environ, "TRIAL": mark, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen)


def find(mark: str) -> dict[int, int]:
    """Return the living processes that carry `mark`, each with its parent."""
    found = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and f"TRIAL={mark}".encode() in (path / "environ").read_bytes():
                state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(path.name)] = int(parent)
    return found


def workers_of(pid: int, mark: str) -> list[int]:
    """Return the workers of a run."""
    children = sorted(child for child, parent in find(mark).items() if parent == pid)
    found = []
    for child in children:
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def check(run: Path, process: subprocess.Popen, mark: str, tally: Tally, trial: str) -> bool:
    """Check what a kill left behind, once there was time to end; return whether the run may be gone on with."""
    from rltrain.checkpoints import CheckpointStore, verify
    from rltrain.errors import CheckpointError

    deadline = time.monotonic() + SECONDS
    while (process.poll() is None or find(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    alive = find(mark)
    tally.hangs += process.poll() is None
    tally.orphans += len(alive.keys() - {process.pid})
    left = [name for name in os.listdir("/dev/shm") if f"-{process.pid}-" in name]
    tally.left += len(left)
    if alive or left or process.poll() is None:
        tally.failures.append(f"{trial}: alive {alive}, left {left}")
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    store = CheckpointStore(run / "checkpoints")
    try:
        for pointer in ("latest", *store.bests()):
            target = store.pointer(pointer)
            if target is not None:
                verify(target)
    except CheckpointError as error:
        tally.unusable += 1
        tally.failures.append(f"{trial}: {error}")
        return False
    return True


def outcome(run: Path) -> tuple[dict, list[dict]]:
    """Return what must be equal to the sequential run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{tag: value for tag, value in row.items() if tag != "wall_time" and not tag.startswith("time/")} for row in rows]
    return json.loads((run / "summary.json").read_text())["agents"], rows


def main() -> int:
    """Run the trials and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill_trials_parallel_"))
    tally = Tally()
    if start(folder / "sequential", "", "trainer=sequential").wait() != 0:
        print(f"the sequential run failed; see {folder}/screen.txt")
        return 1
    expected = outcome(folder / "sequential")
    run, placement = folder / "0", "partitioned"
    while sum(tally.kills.values()) < arguments.trials and len(tally.failures) < 10:
        number, mark = sum(tally.kills.values()) + 1, uuid.uuid4().hex
        process = start(run, mark, "trainer=parallel", f"trainer.placement={placement}")
        whom = generator.choice(("parent", "worker", "worker"))
        seconds, began = generator.uniform(0.0, 4.0), time.monotonic()
        if generator.random() < 0.9:  # else while it still starts
            while process.poll() is None and len(workers_of(process.pid, mark)) < 2 and time.monotonic() - began < 120:
                time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            workers = workers_of(process.pid, mark)
            tally.before_workers += not workers
            whom = whom if workers else "parent"
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid if whom == "parent" else generator.choice(workers), signal.SIGKILL)
            tally.kills[whom] += 1
            if not check(run, process, mark, tally, f"trial {number} ({whom}, {placement})"):
                break
            if process.returncode not in ((-signal.SIGKILL,) if whom == "parent" else (0, 1)):
                tally.failures.append(f"trial {number} ({whom}, {placement}): status {process.returncode}")
        if process.returncode == 0:
            tally.finished += 1
            if outcome(run) != expected:
                tally.failures.append(f"{run}: not equal to the sequential run")
            run = folder / str(tally.finished)
            placement = "shared" if placement == "partitioned" else "partitioned"
        elif process.returncode not in (1, -signal.SIGKILL):
            tally.failures.append(f"trial {number}: status {process.returncode}; see {folder}/screen.txt")
            break
    print(tally)
    for failure in tally.failures:
        print(failure, file=sys.stderr)
    if not tally.failures:
        shutil.rmtree(folder)
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
