"""Measure learning from images side by side: rltrain in both backends, and Stable-Baselines3.

pong: PPO on Atari's Pong, 8 copies x 128, 4 epochs of minibatches of 256, Nature's convolutions shared by policy and value,
learning rate 2.5e-4, clip 0.1, entropy 0.01; env steps per second while learning. memory: DQN with 100,000 transitions of
84 x 84 x 4 bytes, Stable-Baselines3 with its memory optimisation on; the most main memory that the process has held. CPU.

    python scripts/benchmark_images.py --tasks pong --repeats 3
    python scripts/benchmark_images.py --tasks pong --rollouts 195
    python scripts/benchmark_images.py --tasks memory --repeats 1

Needs the extra atari. Everyone is kept to one core. The first rollouts, with imports and compiling, aren't timed. Every run has a
process of its own; the order rotates from repeat to repeat.
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
from peers.images import MEMORY, PONG, TIMED, WARMUP

KNOWN = ("torch", "jax", "sb3")
CONTENDERS = {"pong": ("torch", "jax", "sb3"), "memory": ("torch", "sb3")}
FIGURES = {"pong": "env_steps_per_second", "memory": "peak_mib"}
PACKAGES = (("torch",), ("stable-baselines3==2.9.2", "gymnasium<1.3", "ale-py>=0.12", "opencv-python-headless"))
VERSIONS_OF = ("rltrain", "stable-baselines3", "torch", "jax", "gymnasium", "ale-py", "numpy")
PPO = (
    "env=atari", f"env.num_envs={PONG['copies']}", "env.vectorization=sync", "agents=ppo",
    f"agents.ppo.rollout_length={PONG['rollout']}", f"agents.ppo.epochs={PONG['epochs']}",
    f"agents.ppo.minibatches={PONG['copies'] * PONG['rollout'] // PONG['minibatch']}",
    f"agents.ppo.learning_rate={PONG['learning_rate']}", f"agents.ppo.ratio_clip={PONG['clip']}",
    f"agents.ppo.entropy_scale={PONG['entropy']}", "agents.ppo.network.shared=true", "agents.ppo.network.policy_sizes=[]",
)  # fmt: skip
DQN = (
    "env=noise_envs:Noise", "plugins=[noise_envs]", "env.num_envs=1", "agents=dqn", f"agents.dqn.memory_size={MEMORY}",
    "agents.dqn.memory_mapped=false", "agents.dqn.learning_starts=1000", "agents.dqn.update_interval=1000",
    "agents.dqn.gradient_steps=1", "agents.dqn.batch_size=32", "agents.dqn.network.sizes=[]",
)  # fmt: skip


def run_rltrain(task: str, backend: str, seed: int, rollouts: int) -> Result:
    """Train with rltrain's command line; read the times of its rows of metrics, or the memory that the process took."""
    rollout = PONG["copies"] * PONG["rollout"]
    total = rollout * (WARMUP + rollouts) if task == "pong" else MEMORY + 1_000
    settings = PPO if task == "pong" else DQN
    with tempfile.TemporaryDirectory(prefix="benchmark_images_") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", f"backend={backend}", *settings, f"total_env_steps={total}"]
        command += [
            "tracking.tensorboard=false",
            f"tracking.interval={PONG['rollout']}",
            f"seed={seed}",
            f"run.dir={run}",
            "trainer.disable_progressbar=true",
        ]
        if task == "memory":
            return {"peak_mib": _peak_of(command)}
        call("rltrain", command, cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = {row["env_steps"]: row["wall_time"] for row in rows}
    return {
        "env_steps_per_second": rollout * rollouts / (times[total] - times[rollout * WARMUP]),
        "mean_return": rows[-1].get("rollout/episode_return_mean"),
    }


def _peak_of(command: list[str]) -> float:
    """Run a command with scripts/peers on the path; return the most main memory that it has held, MiB."""
    program = f"import resource, subprocess; subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL); "
    program += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent / "peers")
    return float(call("rltrain", [sys.executable, "-c", program], cwd=ROOT).splitlines()[-1])


def measure(task: str, contender: str, seed: int, rollouts: int, python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures."""
    if contender == "sb3":
        command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--tasks", task, "--seed", str(seed)]
        command += ["--rollouts", str(rollouts)]
        with tempfile.TemporaryDirectory(prefix="benchmark_images_") as folder:
            result = json.loads(call(contender, command, cwd=Path(folder)).splitlines()[-1])
    else:
        result = run_rltrain(task, contender, seed, rollouts) | {"versions": versions(VERSIONS_OF)}
    return {"task": task, "contender": contender, "seed": seed, **result}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description="Learning from images: rltrain in both backends and Stable-Baselines3.")
    add_arguments(parser, KNOWN)
    parser.add_argument("--tasks", default="pong,memory", help="default: %(default)s")
    parser.add_argument(
        "--rollouts", type=int, default=TIMED, help="of PPO on Pong, timed; 195 are 200,000 env steps; default: %(default)s"
    )
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peer; default: .venv-peers-images")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, KNOWN, python="peers_python")
    arguments.tasks = arguments.tasks.split(",")
    if unknown := set(arguments.tasks) - set(CONTENDERS):
        parser.error(f"--tasks={','.join(unknown)}: unknown; choose from {','.join(CONTENDERS)}")
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = importlib.import_module("peers.images").run(arguments.tasks[0], arguments.seed, arguments.rollouts)
        print(json.dumps(result | {"versions": versions(VERSIONS_OF)}))
        return
    python = arguments.peers_python or make_environment(ROOT / ".venv-peers-images", PACKAGES)
    if hasattr(os, "sched_setaffinity"):  # Linux; processes started from here inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs = []
    for task in arguments.tasks:
        contenders = [contender for contender in CONTENDERS[task] if contender in arguments.contenders]
        for repeat, contender in alternate(contenders, arguments.repeats):
            runs.append({"repeat": repeat, **measure(task, contender, arguments.seed + repeat - 1, arguments.rollouts, python)})
            print(f"{task} repeat {repeat}  {contender:8}{runs[-1][FIGURES[task]]:10.1f} {FIGURES[task]}", flush=True)
        found = {c: [r[FIGURES[task]] for r in runs if (r["task"], r["contender"]) == (task, c)] for c in contenders}
        print_rows(f"{task}: {FIGURES[task]}", found, decimals=1)
        for own in [c for c in contenders if c != "sb3" and "sb3" in contenders]:
            ratio = [a / b for a, b in zip(found[own], found["sb3"], strict=True)]
            print_rows(task, {f"rltrain {own} / sb3": ratio}, decimals=2)
    write_json(arguments.json, {"tasks": arguments.tasks, "runs": runs})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
