"""Measure task T5: two PPO agents at once, 8 copies of CartPole-v1 each, by the trainers of rltrain and of skrl.

The work, the same for everyone: for each agent that of T1 (8 copies x 128 timesteps per rollout, 4 epochs x 4 minibatches,
separate 64x64 tanh networks), synchronous copies, PyTorch on one thread per process. `--heavy` makes it 10 epochs and 256x256
networks.

    python scripts/benchmark_t5.py
    python scripts/benchmark_t5.py --contenders sequential,parallel,shared --heavy
    python scripts/benchmark_t5.py --contenders sequential-jax,parallel-jax

The contenders:

    sequential, parallel, shared     rltrain's trainers; parallel by slices of the environment, shared in lock-step on one
    sequential-jax, parallel-jax     the same with backend=jax
    skrl, skrl-parallel              skrl's SequentialTrainer and ParallelTrainer, without statistics and files

Timed from the end of the second rollout to the end of the last update: starting workers, compiling and imports are over before.
rltrain runs from the command line and writes its files; the times are those of its rows of metrics. Every run has a process of
its own, the order rotates: only ratios within one repeat mean something.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

from benchmark_t1 import PEERS_PACKAGES
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
from peers.t1 import ROLLOUT

COPIES = 16
RLTRAIN = {
    "sequential": ("backend=torch", "trainer=sequential"),
    "parallel": ("backend=torch", "trainer=parallel"),
    "shared": ("backend=torch", "trainer=parallel", "trainer.placement=shared"),
    "sequential-jax": ("backend=jax", "trainer=sequential"),
    "parallel-jax": ("backend=jax", "trainer=parallel"),
}
DEFAULT = ("sequential", "parallel", "skrl", "skrl-parallel")
HEAVY = ("agents.ppo.epochs=10", "agents.ppo.network.policy_sizes=[256,256]", "agents.ppo.network.value_sizes=[256,256]")


def run_rltrain(overrides: tuple[str, ...], env_steps: int, seed: int) -> Result:
    """Train with rltrain's command line; read the times of its rows of metrics."""
    with tempfile.TemporaryDirectory(prefix="benchmark_t5_") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", *overrides, "env=CartPole-v1", "agents.ppo.count=2", f"seed={seed}"]
        command += [f"env.num_envs={COPIES}", f"tracking.interval={ROLLOUT}", f"total_env_steps={env_steps}", f"run.dir={run}"]
        call("rltrain", [*command, "trainer.disable_progressbar=true"], cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ends: dict[int, float] = {}
    for row in rows:  # of both agents
        ends[row["timestep"]] = max(row["wall_time"], ends.get(row["timestep"], 0.0))
    first, last = 2 * ROLLOUT, max(ends)
    return {"env_steps": (last - first) * COPIES, "seconds": ends[last] - ends[first]}


def measure(contender: str, env_steps: int, seed: int, *, heavy: bool, python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures."""
    if contender in RLTRAIN:
        result = run_rltrain((*RLTRAIN[contender], *(HEAVY if heavy else ())), env_steps, seed)
    else:
        command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--env-steps", str(env_steps)]
        with tempfile.TemporaryDirectory(prefix="benchmark_t5_") as folder:
            result = json.loads(call(contender, [*command, "--seed", str(seed)], cwd=Path(folder)).splitlines()[-1])
    return {"contender": contender, "seed": seed, "rate": result["env_steps"] / result["seconds"], **result}


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    parser = argparse.ArgumentParser(description="Task T5 (two PPO agents, CartPole-v1): trainers of rltrain and of skrl.")
    add_arguments(parser, DEFAULT)
    parser.add_argument("--env-steps", type=int, default=200_000, help="per run, of both agents together")
    parser.add_argument("--heavy", action="store_true", help="10 epochs, 256x256 networks (rltrain's trainers only)")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has skrl; default: .venv-peers")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, (*RLTRAIN, "skrl", "skrl-parallel"), python="peers_python")
    arguments.env_steps = -(-arguments.env_steps // (COPIES * ROLLOUT)) * COPIES * ROLLOUT
    if arguments.worker:
        run = importlib.import_module("peers.skrl_t5").run
        print(json.dumps(run(arguments.env_steps, arguments.seed, parallel=arguments.worker == "skrl-parallel")))
        return
    contenders, python = arguments.contenders, arguments.peers_python
    if python is None and set(contenders) - set(RLTRAIN):
        python = make_environment(ROOT / ".venv-peers", PEERS_PACKAGES)
    runs = []
    for repeat, contender in alternate(contenders, arguments.repeats):
        run = measure(contender, arguments.env_steps, arguments.seed + repeat - 1, heavy=arguments.heavy, python=python)
        runs.append({"repeat": repeat, **run})
        print(f"repeat {repeat}  {contender:16}{run['rate']:8.0f} env steps/s  ({run['seconds']:.2f} s)", flush=True)
    rates = {c: [run["rate"] for run in sorted(runs, key=lambda r: r["repeat"]) if run["contender"] == c] for c in contenders}
    print_rows("env steps/s of both agents", rates)
    base = contenders[0]
    print_rows(
        f"the same / {base}", {c: [a / b for a, b in zip(rates[c], rates[base], strict=True)] for c in contenders}, decimals=2
    )
    write_json(
        arguments.json, {"task": "T5", "heavy": arguments.heavy, "runs": runs, "versions": versions(["rltrain", "torch", "jax"])}
    )


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
