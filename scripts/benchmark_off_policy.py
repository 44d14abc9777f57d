"""Measure off-policy training side by side: rltrain, Stable-Baselines3, skrl and SBX; tasks T3, T4, J4 and J5.

T4: DQN on CartPole-v1, 1 copy, a gradient step every 10 env steps, batch 128, 120-84 relu, learning rate 2.5e-4, memory 10,000,
learning from 10,000 on (J5, in JAX: from 1,000 on), target copied every 500. T3 (J4 in JAX): SAC on HalfCheetah-v5, 1 copy, a
gradient step per env step, batch 256, 256x256 relu, learning rate 3e-4, tau 0.005, learned entropy coefficient, learning from
1,000 on. CPU.

    python scripts/benchmark_off_policy.py --tasks T3,T4
    python scripts/benchmark_off_policy.py --tasks J4,J5 --repeats 5

Everyone is kept to one core: told to use one thread, XLA still takes a second one for some operations.

Env steps per second while learning: the first steps of learning, with imports and compiling, aren't timed. The peers run in
their quickest setting and read the clock in the environment; rltrain runs from the command line, and the times are those of its
rows of metrics. Every run has a process of its own; the order rotates from repeat to repeat.
"""

import argparse
import importlib
import json
import os
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
from peers.off_policy import DQN, SAC, TASKS

CONTENDERS = {
    "T3": ("rltrain", "sb3", "skrl"),
    "T4": ("rltrain", "sb3", "skrl"),
    "J4": ("rltrain", "sbx"),
    "J5": ("rltrain", "sbx"),
}
KNOWN = ("rltrain", "sb3", "skrl", "sbx")
PACKAGES = (*PEERS_PACKAGES, ("mujoco<4",))
VERSIONS_OF = ("rltrain", "stable-baselines3", "skrl", "sbx-rl", "torch", "jax", "gymnasium", "mujoco", "numpy")
SETTINGS = {
    "dqn": (
        f"agents.dqn.update_interval={DQN['every']}", "agents.dqn.gradient_steps=1", f"agents.dqn.batch_size={DQN['batch']}",
        f"agents.dqn.memory_size={DQN['memory']}", f"agents.dqn.learning_rate={DQN['learning_rate']}",
        f"agents.dqn.target_update_interval={DQN['target_every']}", "agents.dqn.network.sizes=[120,84]",
        "agents.dqn.exploration_fraction=0.5",
    ),
    "sac": (f"agents.sac.memory_size={SAC['memory']}", f"agents.sac.learning_rate={SAC['learning_rate']}"),
}  # fmt: skip


def run_rltrain(name: str, seed: int) -> Result:
    """Train with rltrain's command line; read the times of its rows of metrics."""
    task, backend = TASKS[name], "jax" if name.startswith("J") else "torch"
    first, last = task.starts + task.warmup, task.starts + task.warmup + task.timed
    with tempfile.TemporaryDirectory(prefix="benchmark_off_policy_") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", f"backend={backend}", f"agents=[{task.algorithm}]"]
        command += [f"env={task.env_id}", "env.num_envs=1", f"agents.{task.algorithm}.learning_starts={task.starts}"]
        command += [*SETTINGS[task.algorithm], f"total_env_steps={last}", "tracking.interval=500", f"seed={seed}"]
        call("rltrain", [*command, f"run.dir={run}", "trainer.disable_progressbar=true"], cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = {row["env_steps"]: row["wall_time"] for row in rows}
    return {"env_steps_per_second": task.timed / (times[last] - times[first])}


def measure(name: str, contender: str, seed: int, python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures."""
    if contender == "rltrain":
        result = run_rltrain(name, seed) | {"versions": versions(VERSIONS_OF)}
    else:
        command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--tasks", name, "--seed", str(seed)]
        with tempfile.TemporaryDirectory(prefix="benchmark_off_policy_") as folder:
            result = json.loads(call(contender, command, cwd=Path(folder)).splitlines()[-1])
    return {"task": name, "contender": contender, "seed": seed, **result}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description="Tasks T3, T4, J4, J5 (SAC, DQN): rltrain and its peers side by side.")
    add_arguments(parser, KNOWN)
    parser.add_argument("--tasks", default="T3,T4", help="default: %(default)s")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peers; default: .venv-peers-off-policy")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, KNOWN, python="peers_python")
    arguments.tasks = arguments.tasks.split(",")
    if unknown := set(arguments.tasks) - set(TASKS):
        parser.error(f"--tasks={','.join(unknown)}: unknown; choose from {','.join(TASKS)}")
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = importlib.import_module(f"peers.{arguments.worker}_off_policy").run(TASKS[arguments.tasks[0]], arguments.seed)
        print(json.dumps(result | {"versions": versions(VERSIONS_OF)}))
        return
    python = arguments.peers_python or make_environment(ROOT / ".venv-peers-off-policy", PACKAGES)
    if hasattr(os, "sched_setaffinity"):  # Linux; processes started from here inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs, ratios = [], {}
    for name in arguments.tasks:
        contenders = [contender for contender in CONTENDERS[name] if contender in arguments.contenders]
        for repeat, contender in alternate(contenders, arguments.repeats):
            runs.append({"repeat": repeat, **measure(name, contender, arguments.seed + repeat - 1, python)})
            print(f"{name} repeat {repeat}  {contender:10}{runs[-1]['env_steps_per_second']:10.0f} env steps/s", flush=True)
        rates = {c: [r["env_steps_per_second"] for r in runs if (r["task"], r["contender"]) == (name, c)] for c in contenders}
        print_rows(f"{name}: env steps/s", rates, decimals=1)
        if "rltrain" in rates and len(rates) > 1:
            best = [max(others) for others in zip(*(rates[c] for c in contenders if c != "rltrain"), strict=True)]
            ratios[name] = [own / other for own, other in zip(rates["rltrain"], best, strict=True)]
            print_rows(f"{name}", {"rltrain / the fastest peer": ratios[name]}, decimals=2)
    write_json(arguments.json, {"tasks": arguments.tasks, "runs": runs, "ratios": ratios})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
