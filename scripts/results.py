"""Train presets over seeds, evaluate their final checkpoints, print a Markdown table for docs/results.md.

    python scripts/results.py ppo_cartpole ppo_acrobot ppo_pendulum --seeds 1 2 3 4 5 --folder outputs/results

Each run is `rltrain train experiment=NAME seed=N`, each figure `rltrain eval RUN episodes=100`: deterministic actions, final
checkpoint, seeds of the final-evaluation role. Runs that are there already are evaluated, not trained again.
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
    arguments = parser.parse_args()
    print("| preset | env steps | mean return per seed | mean | median | env steps/s |")
    print("|---|---|---|---|---|---|")
    for experiment in arguments.experiments:
        runs = [train_and_evaluate(experiment, seed, arguments.folder, arguments.override) for seed in arguments.seeds]
        means = [run["mean"] for run in runs]
        cells = (
            experiment,
            f"{runs[0]['env_steps']:,}",
            ", ".join(f"{mean:.1f}" for mean in means),
            f"{statistics.mean(means):.1f}",
            f"{statistics.median(means):.1f}",
            f"{statistics.median(run['rate'] for run in runs):,.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def train_and_evaluate(experiment: str, seed: int, folder: Path, overrides: list[str]) -> dict[str, float]:
    """Return one run's figures: mean return of the final evaluation, env steps, env steps per second."""
    run = folder / f"{experiment}_s{seed}"
    if not (run / "summary.json").exists():
        rltrain("train", f"experiment={experiment}", f"seed={seed}", f"run.dir={run}", *overrides)
    summary = json.loads((run / "summary.json").read_text())
    figures = json.loads(rltrain("eval", str(run), "episodes=100", "json=true"))
    (agent,) = figures["agents"].values()
    return {"mean": agent["mean"], "env_steps": summary["env_steps"], "rate": summary["env_steps_per_second"]}


def rltrain(*arguments: str) -> str:
    """Run a command and return what it printed."""
    command = [sys.executable, "-m", "rltrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
