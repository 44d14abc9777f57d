"""Measure a policy that remembers side by side: rltrain in both backends, and sb3-contrib's recurrent PPO.

CartPole without velocities, settings of rl-baselines3-zoo: 8 copies x 32, 20 epochs of one minibatch, LSTM of 64 for policy and
value each, 64 hidden units, observations and rewards normalised. Env steps per second while learning, and the mean return of the
last 100 training episodes. CPU.

    python scripts/benchmark_memory.py --repeats 3

Everyone is kept to one core. The first rollouts, with imports and compiling, aren't timed. Every run has a process of its own;
the order rotates from repeat to repeat.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
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
from peers.memory import SEEN, SETTINGS, TIMED, WARMUP

KNOWN = ("torch", "jax", "sb3")
PACKAGES = (("torch",), ("stable-baselines3==2.9.2", "sb3-contrib==2.9.2", "gymnasium<1.3"))
VERSIONS_OF = ("rltrain", "stable-baselines3", "sb3-contrib", "torch", "jax", "gymnasium", "numpy")
PPO = (
    "env=CartPole-v1",
    f"env.num_envs={SETTINGS['copies']}",
    f"env.wrappers=[{{name: 'rltrain.envs.partial:some_numbers', indices: {SEEN}}}]",
    "agents=ppo",
    f"agents.ppo.rollout_length={SETTINGS['rollout']}",
    f"agents.ppo.epochs={SETTINGS['epochs']}",
    "agents.ppo.minibatches=1",
    f"agents.ppo.learning_rate={SETTINGS['learning_rate']}",
    "agents.ppo.learning_rate_schedule=linear",
    "agents.ppo.ratio_clip_schedule=linear",
    f"agents.ppo.discount_factor={SETTINGS['gamma']}",
    f"agents.ppo.gae_lambda={SETTINGS['lambda']}",
    "agents.ppo.entropy_scale=0",
    "agents.ppo.normalize_observations=true",
    "agents.ppo.normalize_rewards=true",
    "agents.ppo.network.cell=lstm",
    f"agents.ppo.network.cell_size={SETTINGS['cell']}",
    f"agents.ppo.network.policy_sizes=[{SETTINGS['hidden']}]",
    f"agents.ppo.network.value_sizes=[{SETTINGS['hidden']}]",
    "agents.ppo.network.activation=relu",
    "agents.ppo.network.initialization=default",
)


def run_rltrain(backend: str, seed: int) -> Result:
    """Train with rltrain's command line; read the times and returns of its rows of metrics."""
    rollout = SETTINGS["copies"] * SETTINGS["rollout"]
    total = rollout * (WARMUP + TIMED)
    with tempfile.TemporaryDirectory(prefix="benchmark_memory_") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", f"backend={backend}", *PPO, f"total_env_steps={total}"]
        command += [
            "tracking.tensorboard=false",
            f"tracking.interval={SETTINGS['rollout']}",
            f"seed={seed}",
            f"run.dir={run}",
            "trainer.disable_progressbar=true",
        ]
        call("rltrain", command, cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((run / "summary.json").read_text())
    times = {row["env_steps"]: row["wall_time"] for row in rows}
    speed = rollout * TIMED / (times[total] - times[rollout * WARMUP])
    return {"env_steps_per_second": speed, "episode_return": summary["agents"]["ppo"]["episode_return_mean"]}


def measure(contender: str, seed: int, python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures."""
    if contender == "sb3":
        command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--seed", str(seed)]
        with tempfile.TemporaryDirectory(prefix="benchmark_memory_") as folder:
            result = json.loads(call(contender, command, cwd=Path(folder)).splitlines()[-1])
    else:
        result = run_rltrain(contender, seed) | {"versions": versions(VERSIONS_OF)}
    return {"contender": contender, "seed": seed, **result}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description="Policies that remember: rltrain in both backends and sb3-contrib.")
    add_arguments(parser, KNOWN)
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peer; default: .venv-peers-memory")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, KNOWN, python="peers_python")
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = importlib.import_module("peers.memory").run(arguments.seed)
        print(json.dumps(result | {"versions": versions(VERSIONS_OF)}))
        return
    python = arguments.peers_python or make_environment(ROOT / ".venv-peers-memory", PACKAGES)
    if hasattr(os, "sched_setaffinity"):  # Linux; processes started from here inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs: list[Result] = []
    contenders = [contender for contender in KNOWN if contender in arguments.contenders]
    for repeat, contender in alternate(contenders, arguments.repeats):
        runs.append({"repeat": repeat, **measure(contender, arguments.seed + repeat - 1, python)})
        own = runs[-1]
        print(
            f"repeat {repeat}  {contender:8}{own['env_steps_per_second']:10.1f} env steps/s, return {own['episode_return']:.1f}",
            flush=True,
        )
    figures = {c: [r["env_steps_per_second"] for r in runs if r["contender"] == c] for c in contenders}
    print_rows("env steps per second", figures, decimals=1)
    for own in [c for c in contenders if c != "sb3" and "sb3" in contenders]:
        print_rows("", {f"rltrain {own} / sb3": [a / b for a, b in zip(figures[own], figures["sb3"], strict=True)]}, decimals=2)
    write_json(arguments.json, {"runs": runs})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
