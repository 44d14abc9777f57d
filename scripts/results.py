"""Train presets over seeds, evaluate their final checkpoints, print a Markdown table for docs/results.md.

    python scripts/results.py ppo_cartpole ppo_acrobot ppo_pendulum --seeds 1 2 3 4 5 --folder outputs/results

Each run is `rltrain train experiment=NAME seed=N`, each figure `rltrain eval RUN episodes=100`: deterministic actions, final
checkpoint, seeds of the final-evaluation role. Runs that are there already are evaluated, not trained again. `--best 2500`
evaluates while training, every 2500 timesteps on seeds of their own, and adds the figures of the checkpoint that was best there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--folder", type=Path, default=Path("outputs/results"))
    parser.add_argument("--override", action="append", default=[], help="a further override, for every run")
    parser.add_argument("--best", type=int, default=0, help="timesteps between evaluations that choose a best checkpoint")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.best:
        arguments.override += [f"evaluation.interval={arguments.best}", "evaluation.episodes=20"]
    print("| preset | env steps | mean return per seed | mean | median | env steps/s |")
    print("|---|---|---|---|---|---|")
    for experiment in arguments.experiments:
        runs = [train(experiment, seed, arguments.folder, arguments.override) for seed in arguments.seeds]
        for checkpoint in ["", "/best"][: 2 if arguments.best else 1]:
            means = [evaluate(f"{run}{checkpoint}", arguments.episodes) for run in runs]
            print_row(experiment + checkpoint.replace("/", ", "), runs, means)


def print_row(name: str, runs: list[Path], means: list[float]) -> None:
    """Print the figures of all seeds."""
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    cells = (
        name,
        f"{summaries[0]['env_steps']:,}",
        ", ".join(f"{mean:.1f}" for mean in means),
        f"{statistics.mean(means):.1f}",
        f"{statistics.median(means):.1f}",
        f"{statistics.median(summary['env_steps_per_second'] for summary in summaries):,.0f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


def train(experiment: str, seed: int, folder: Path, overrides: list[str]) -> Path:
    """Train unless that was done; return the run's directory."""
    run = folder / f"{experiment}_s{seed}"
    if not (run / "summary.json").exists():
        rltrain("train", f"experiment={experiment}", f"seed={seed}", f"run.dir={run}", *overrides)
    return run


def evaluate(checkpoint: str, episodes: int) -> float:
    """Return the mean return of the final evaluation."""
    (agent,) = json.loads(rltrain("eval", checkpoint, f"episodes={episodes}", "json=true"))["agents"].values()
    return agent["mean"]


def rltrain(*arguments: str) -> str:
    """Run a command and return what it printed."""
    command = [sys.executable, "-m", "rltrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
