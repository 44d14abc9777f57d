"""Measure env steps per second of IPPO and MAPPO on PettingZoo's simple_spread_v3: rltrain beside skrl.

The work, the same for everyone: rollouts of 800 env steps, 10 epochs x 4 minibatches for each of the three agents, who have a
64x64 tanh policy and value network each, PyTorch on one thread. skrl takes one copy of the environment, rltrain 16 here.

    python scripts/benchmark_teams.py
    python scripts/benchmark_teams.py --contenders ippo,ippo-shared,skrl-ippo --repeats 5

The contenders:

    ippo, mappo                  rltrain, parameter_sharing=none
    ippo-shared, mappo-shared    rltrain as it comes: the three agents share their networks
    skrl-ippo, skrl-mappo        skrl, without statistics and files

Timed from the end of the first rollout to the end of the last update. rltrain runs from the command line and writes its files;
the times are those of its rows of metrics. Every run has a process of its own, the order rotates.
"""

import argparse
import importlib
import json
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

COPIES, ROLLOUT = 16, 800  # rollouts in env steps
PACKAGES = (("torch==2.13.0",), ("skrl==2.1.1", "pettingzoo>=1.25,<2", "mpe2>=1.0,<2"))
RLTRAIN = ("ippo", "mappo", "ippo-shared", "mappo-shared")
DEFAULT = ("ippo", "mappo", "skrl-ippo", "skrl-mappo")


def run_rltrain(contender: str, env_steps: int, seed: int) -> Result:
    """Train with rltrain's command line; read the times of its rows of metrics."""
    agent, _, shared = contender.partition("-")
    sharing = "groups" if shared else "none"
    interval = ROLLOUT // COPIES
    with tempfile.TemporaryDirectory(prefix="benchmark_teams_") as folder:
        run = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "rltrain",
            "train",
            f"experiment={agent}_spread",
            f"env.num_envs={COPIES}",
            f"seed={seed}",
        ]
        command += [f"agents.{agent}.parameter_sharing={sharing}", f"agents.{agent}.rollout_length={interval}"]
        command += [f"agents.{agent}.normalize_values=false", f"total_env_steps={env_steps}", f"tracking.interval={interval}"]
        call("rltrain", [*command, f"run.dir={run}", "trainer.disable_progressbar=true"], cwd=ROOT)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"env_steps": env_steps - ROLLOUT, "seconds": rows[-1]["wall_time"] - rows[0]["wall_time"]}


def measure(contender: str, env_steps: int, seed: int, python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures."""
    if contender in RLTRAIN:
        result = run_rltrain(contender, env_steps, seed)
    else:
        command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--env-steps", str(env_steps)]
        with tempfile.TemporaryDirectory(prefix="benchmark_teams_") as folder:
            out = call(contender, [*command, "--seed", str(seed)], cwd=Path(folder))
        result = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    return {"contender": contender, "seed": seed, "rate": result["env_steps"] / result["seconds"], **result}


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    parser = argparse.ArgumentParser(description="IPPO and MAPPO on simple_spread_v3: rltrain and skrl.")
    add_arguments(parser, DEFAULT)
    parser.add_argument("--env-steps", type=int, default=16_000, help="per run")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has skrl and mpe2; default: .venv-peers-teams")
    arguments = parser.parse_args()
    check_arguments(parser, arguments, (*RLTRAIN, "skrl-ippo", "skrl-mappo"), python="peers_python")
    arguments.env_steps = max(2, -(-arguments.env_steps // ROLLOUT)) * ROLLOUT
    if arguments.worker:
        run = importlib.import_module("peers.skrl_teams").run
        print(json.dumps(run(arguments.env_steps, arguments.seed, central=arguments.worker == "skrl-mappo")))
        return
    contenders, python = arguments.contenders, arguments.peers_python
    if python is None and set(contenders) - set(RLTRAIN):
        python = make_environment(ROOT / ".venv-peers-teams", PACKAGES)
    runs = []
    for repeat, contender in alternate(contenders, arguments.repeats):
        runs.append({"repeat": repeat, **measure(contender, arguments.env_steps, arguments.seed + repeat - 1, python)})
        print(f"repeat {repeat}  {contender:14}{runs[-1]['rate']:8.0f} env steps/s  ({runs[-1]['seconds']:.2f} s)", flush=True)
    rates = {c: [run["rate"] for run in sorted(runs, key=lambda r: r["repeat"]) if run["contender"] == c] for c in contenders}
    print_rows("env steps/s", rates)
    write_json(arguments.json, {"task": "teams", "runs": runs, "versions": versions(["rltrain", "torch", "pettingzoo", "mpe2"])})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
