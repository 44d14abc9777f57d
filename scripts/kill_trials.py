"""Kills training at random moments and goes on: every `latest` must verify, at most one interval may be lost.

    python scripts/kill_trials.py --trials 200 --seed 0
    python scripts/kill_trials.py --trials 200 --agents ippo      # a team in PettingZoo's simple_spread

A run is killed with SIGKILL, checked, resumed with resume=auto, killed again, ..., until it ends; it must then be equal to the
run that was never killed, bit for bit. Exit status 1 if anything failed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 4  # timesteps between checkpoints: about half of the time goes into saving
TIMESTEPS = 240


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    before_first: int = 0  # killed before there was a checkpoint
    saving: int = 0  # killed in the middle of a save: a temporary was left
    lost: list[int] = field(default_factory=list)  # timesteps between the last row and `latest`
    finished: int = 0  # runs that came to their end
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Sum up in one line."""
        worst, mean = max(self.lost, default=0), sum(self.lost) / max(1, len(self.lost))
        return (
            f"{self.kills} kills ({self.saving} while saving, {self.before_first} before the first checkpoint), "
            f"{self.finished} runs ended equal to the uninterrupted one; lost timesteps: worst {worst}, mean {mean:.1f}, "
            f"interval {INTERVAL}; {len(self.failures)} failures"
        )


def overrides(run: Path, agents: str) -> list[str]:
    """Return the command line of the run."""
    sizes = ("rollout_length=16", "epochs=2", "minibatches=2", "network.policy_sizes=[16]", "network.value_sizes=[16]")
    return [
        "train", f"run.dir={run}", "resume=auto", "seed=1", f"trainer.timesteps={TIMESTEPS}",
        f"checkpoints.interval={INTERVAL}", "checkpoints.keep=2", "evaluation.interval=40", "evaluation.episodes=2",
        "tracking.interval=1", "tracking.tensorboard=false", f"agents={agents}", *(f"agents.{agents}.{size}" for size in sizes),
        "env=CartPole-v1" if agents == "ppo" else "env=pettingzoo", "env.num_envs=2",
    ]  # fmt: skip


def start(run: Path, agents: str) -> int:
    """Start the run in a process of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        quiet = os.open(run.parent / "screen.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        from rltrain.cli import main

        status = main(overrides(run, agents))
    except BaseException:
        status = 99
    os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit status (negative for a signal), or None if the process still runs after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        left = end - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(0.002, left))


def last_row(run: Path) -> int:
    """Return the last timestep that was trained for certain."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # a last line without its end is half a line
    return json.loads(lines[-1])["timestep"] if lines else 0


def check(run: Path, tally: Tally, trial: int) -> None:
    """Check what a kill left behind."""
    from rltrain.checkpoints import CheckpointStore, verify
    from rltrain.errors import CheckpointError

    store = CheckpointStore(run / "checkpoints")
    tally.saving += bool(store.directory.is_dir() and list(store.directory.glob(".tmp-*")))
    timestep = 0
    try:
        latest = store.pointer("latest")
        if latest is None:
            tally.before_first += 1
        else:
            timestep = int(verify(latest)["timestep"])
        best = store.pointer("best")
        if best is not None:
            verify(best)
    except CheckpointError as error:
        tally.failures.append(f"trial {trial}: {error}")
        return
    lost = last_row(run) - timestep
    tally.lost.append(lost)
    if lost > INTERVAL:
        tally.failures.append(f"trial {trial}: {lost} timesteps lost, the interval is {INTERVAL}")


def outcome(run: Path) -> tuple[str, list[int], dict]:
    """Return what must be equal to the uninterrupted run."""
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line)["timestep"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    (agent,) = summary["agents"].values()
    return agent["parameters_sha256"], rows, agent["best"]


def main() -> int:
    """Run the trials and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", choices=["ppo", "ippo", "mappo"], default="ppo")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    arguments = parser.parse_args()
    # imported, never computed with: processes are forked from here, which saves seconds per trial
    import rltrain.agents.ppo.torch
    import rltrain.commands.train
    import rltrain.config
    import rltrain.trainers

    assert rltrain.trainers and rltrain.agents.ppo.torch and rltrain.commands.train
    rltrain.config.compose([])
    generator = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill_trials_"))
    tally, began = Tally(), time.monotonic()

    status = wait(start(folder / "reference", arguments.agents), 600)
    seconds = time.monotonic() - began
    if status != 0:
        print(f"the uninterrupted run ended with status {status}; see {folder}/screen.txt")
        return 1
    expected = outcome(folder / "reference")
    run = folder / "0"
    while tally.kills < arguments.trials and time.monotonic() - began < arguments.seconds:
        pid = start(run, arguments.agents)
        status = wait(pid, generator.uniform(0, seconds))
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = wait(pid, 60)
        if status == -signal.SIGKILL:
            tally.kills += 1
            check(run, tally, tally.kills)
        elif status == 0:
            tally.finished += 1
            if outcome(run) != expected:
                tally.failures.append(f"{run}: not equal to the uninterrupted run")
            shutil.rmtree(run)
            run = folder / str(tally.finished)
        else:
            tally.failures.append(f"trial {tally.kills}: status {status}; see {folder}/screen.txt")
            break
    print(tally)
    for failure in tally.failures:
        print(failure, file=sys.stderr)
    if not tally.failures:
        shutil.rmtree(folder)
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
