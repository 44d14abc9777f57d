"""Measure task T1 side by side: rltrain, Stable-Baselines3, skrl and SBX train PPO on CartPole-v1.

The work, the same for everyone: 8 synchronous copies x 128 timesteps per rollout, 4 epochs x 4 minibatches, separate
64x64 tanh networks, learning rate 2.5e-4 (constant), gamma 0.99, lambda 0.95, ratio clip 0.2, no value clip,
entropy 0.01, value loss 0.5, gradient norm 0.5, float32, one intra-op thread, CPU.

    python scripts/benchmark_t1.py                                          # a minute per repeat on two slow cores
    python scripts/benchmark_t1.py --repeats 5 --json t1.json
    python scripts/benchmark_t1.py --contenders rltrain-jax,sbx             # JAX; rltrain needs its extra `jax`
    python scripts/benchmark_t1.py --contenders sb3,skrl --env-steps 50000  # the peers alone

Every run has a process of its own. The order rotates from repeat to repeat, because the load of a machine drifts: only
the ratios within one repeat mean something. rltrain's PyTorch backend is compared with the PyTorch peers, its JAX
backend with SBX, which is Stable-Baselines3 in JAX.

What is timed: the loop from the end of the second rollout's update (WARMUP_ROLLOUTS) to the end of the last one; so
lazy imports, allocator, caches and all of JAX's compiling are over before, and construction and the evaluation at the
end are outside. The peers read the clock at these moments. rltrain runs as its users run it, from the command line; it
writes a row of metrics after each update, and the times of the second row and the last are its moments. Seconds of
another run are not subtracted: compiling differs from run to run by more than the warm-up takes. The ratio of the whole
loops, nothing excluded, is printed too. In JAX it shows little but the compiling, which everyone does anew.

What favours the peers, on purpose: the time of rltrain's loop includes its episode statistics, metrics files and
checks; the peers run with everything of the kind switched off (no progress bar, TensorBoard, checkpoint, Monitor).
skrl's env steps include one reset row per episode, as Gymnasium's vector environments count by default.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarking import (
    ROOT,
    BenchmarkError,
    Result,
    add_arguments,
    alternate,
    call,
    check_arguments,
    make_environment,
    print_rows,
    versions,
    write_json,
)
from peers.t1 import BATCH, EPOCHS, MINIBATCHES, NUM_ENVS, ROLLOUT, WARMUP_ROLLOUTS

PEERS_PACKAGES = (  # torch first and pinned: left to the second line, pip would fetch gigabytes of CUDA
    ("torch==2.13.0",),
    ("stable-baselines3", "skrl==2.1.1", "sbx-rl", "gymnasium[classic-control]<1.5"),
)
PEERS = {"rltrain": ("sb3", "skrl"), "rltrain-jax": ("sbx",)}
BACKENDS = {"rltrain": "torch", "rltrain-jax": "jax"}
DEFAULT = ("rltrain", "sb3", "skrl")
KNOWN = (*DEFAULT, "rltrain-jax", "sbx")
VERSIONS_OF = ("rltrain", "stable-baselines3", "skrl", "sbx-rl", "torch", "jax", "gymnasium", "numpy")


def run_rltrain(backend: str, env_steps: int, seed: int) -> Result:
    """Train with rltrain's command line; read the run's summary and the times of its rows of metrics."""
    with tempfile.TemporaryDirectory(prefix="benchmark_t1_") as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", f"backend={backend}", "env=CartPole-v1"]
        command += [f"env.num_envs={NUM_ENVS}", f"agents.ppo.rollout_length={ROLLOUT}", f"tracking.interval={ROLLOUT}"]
        command += [f"seed={seed}", f"total_env_steps={env_steps}", f"run.dir={run_dir}"]
        call("rltrain", [*command, "trainer.disable_progressbar=true"], cwd=ROOT)
        summary = json.loads((run_dir / "summary.json").read_text())
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    agent, loop_seconds = summary["agents"]["ppo"], summary["training_seconds"] + summary["compile_seconds"]
    ends = {row["env_steps"]: row["wall_time"] for row in rows}
    return {
        "env_steps": agent["env_steps"],
        "gradient_steps": agent["updates"] * EPOCHS * MINIBATCHES,
        "mean_return": agent["episode_return_mean"],
        "loop_seconds": loop_seconds,
        "warmup_seconds": loop_seconds - (ends[env_steps] - ends[WARMUP_ROLLOUTS * BATCH]),
        "versions": versions(VERSIONS_OF),
    }


def measure(contender: str, env_steps: int, seed: int, peers_python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures, rates and versions included."""
    if contender in BACKENDS:
        result = run_rltrain(BACKENDS[contender], env_steps, seed)
    else:
        command = [str(peers_python), str(Path(__file__).resolve()), "--worker", contender]
        with tempfile.TemporaryDirectory(prefix="benchmark_t1_") as folder:
            output = call(contender, [*command, "--env-steps", str(env_steps), "--seed", str(seed)], cwd=Path(folder))
        result = json.loads(output.splitlines()[-1])

    steps, seconds = result["env_steps"], result["loop_seconds"]
    expected = steps // BATCH * EPOCHS * MINIBATCHES
    if result["gradient_steps"] not in (None, expected):
        raise BenchmarkError(f"{contender}: {result['gradient_steps']} gradient steps, the task has {expected}")
    result["steps_per_second"] = (steps - WARMUP_ROLLOUTS * BATCH) / (seconds - result["warmup_seconds"])
    result["whole_loop_steps_per_second"] = steps / seconds
    return {"contender": contender, "seed": seed, **result}


def rates_of(runs: Iterable[Result], contender: str, rate: str) -> list[float]:
    """Return a contender's rates, one per repeat."""
    return [run[rate] for run in sorted(runs, key=lambda run: run["repeat"]) if run["contender"] == contender]


def ratios(runs: list[Result], contender: str, peers: Iterable[str], rate: str) -> list[float]:
    """Return a contender's rate over its best peer's, one number per repeat."""
    best = [max(rates) for rates in zip(*(rates_of(runs, peer, rate) for peer in peers), strict=True)]
    return [own / other for own, other in zip(rates_of(runs, contender, rate), best, strict=True)]


def print_run(run: Result) -> None:
    """Print one line for one run."""
    gradient_steps, mean_return = run["gradient_steps"], run["mean_return"]
    print(
        f"repeat {run['repeat']}  {run['contender']:12}{run['steps_per_second']:8.0f} env steps/s"
        f"  (whole loop {run['whole_loop_steps_per_second']:.0f}, {run['loop_seconds']:.2f} s)"
        f"  {'?' if gradient_steps is None else gradient_steps} gradient steps"
        f"  return {'?' if mean_return is None else format(mean_return, '.0f')}",
        flush=True,
    )


def summarize(contenders: list[str], runs: list[Result]) -> Result:
    """Print the rates and ratios of all repeats with their medians; return the ratios."""
    print_rows("env steps/s of the loop", {name: rates_of(runs, name, "steps_per_second") for name in contenders})
    found: Result = {}
    for contender, peers in PEERS.items():
        here = [peer for peer in peers if peer in contenders]
        if contender not in contenders or not here:
            continue
        loop, whole = (ratios(runs, contender, here, rate) for rate in ("steps_per_second", "whole_loop_steps_per_second"))
        print_rows(f"{contender} / best of {', '.join(here)}", {"the loop": loop, "the whole loop": whole}, decimals=2)
        found[contender] = {"peers": here, "ratios": loop, "median": statistics.median(loop), "whole_loop_ratios": whole}
    return found


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description="Task T1 (PPO, CartPole-v1): rltrain and its peers side by side.")
    add_arguments(parser, DEFAULT)
    parser.add_argument("--env-steps", type=int, default=200_000, help="per run, rounded up to whole rollouts of 1024")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peers; default: .venv-peers")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, KNOWN, python="peers_python")
    if arguments.env_steps <= WARMUP_ROLLOUTS * BATCH:
        parser.error(f"--env-steps={arguments.env_steps}: give more than the warm-up's {WARMUP_ROLLOUTS * BATCH}")
    arguments.env_steps = -(-arguments.env_steps // BATCH) * BATCH
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = importlib.import_module(f"peers.{arguments.worker}").run(arguments.env_steps, arguments.seed)
        print(json.dumps(result | {"versions": versions(VERSIONS_OF)}))
        return

    contenders, python = arguments.contenders, arguments.peers_python
    if python is None and set(contenders) - set(BACKENDS):
        python = make_environment(ROOT / ".venv-peers", PEERS_PACKAGES)
    print(
        f"T1: {arguments.env_steps} env steps per run; imports, construction and the first {WARMUP_ROLLOUTS} rollouts"
        " with their updates are excluded for everyone"
    )
    runs = []
    for repeat, contender in alternate(contenders, arguments.repeats):
        run = measure(contender, arguments.env_steps, arguments.seed + repeat - 1, python)
        runs.append({"repeat": repeat, **run})
        print_run(runs[-1])
    report = {"task": "T1", "contenders": contenders, "runs": runs, "rltrain": summarize(contenders, runs)}
    write_json(arguments.json, report)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
