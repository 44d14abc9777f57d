"""Compare SAC, TD3 and DDPG on Pendulum-v1 with Stable-Baselines3's: the same 1000 starts for every policy.

    python scripts/compare_pendulum.py --seeds 1 2 3 --peers-python PYTHON

rltrain runs the presets sac_pendulum, td3_pendulum and ddpg_pendulum; Stable-Baselines3 has the same env steps, networks,
learning rate, discount and start of learning, its own defaults otherwise. A policy is evaluated on one copy: Pendulum draws a
start and nothing else, and every episode takes 200 steps, so that the seed of `rltrain eval` alone decides on all starts. Prints
the mean returns of the final policies.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmark_off_policy import PACKAGES
from benchmarking import ROOT, BenchmarkError, call, make_environment

ALGORITHMS, EPISODES, ENV_STEPS = ("sac", "td3", "ddpg"), 1000, 20_000


def train_peer(algorithm: str, seed: int, env_seed: int) -> float:
    """Train with Stable-Baselines3 in this process; return the mean return over all starts."""
    import gymnasium
    import numpy as np
    import stable_baselines3 as sb3
    import torch

    torch.set_num_threads(1)
    starts, gamma = (500, 0.99) if algorithm == "sac" else (1000, 0.98)
    noise = sb3.common.noise.NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    more = {} if algorithm == "sac" else {"action_noise": noise}
    agent = getattr(sb3, algorithm.upper())(
        "MlpPolicy", "Pendulum-v1", learning_rate=1e-3, gamma=gamma, learning_starts=starts, buffer_size=ENV_STEPS,
        batch_size=256, train_freq=1, gradient_steps=1, policy_kwargs={"net_arch": {"pi": [64, 64], "qf": [128, 128]}},
        device="cpu", seed=seed,
        **more,
    )  # fmt: skip
    agent.learn(ENV_STEPS, log_interval=None)
    env = gymnasium.make("Pendulum-v1")
    returns = np.zeros(EPISODES)
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=env_seed if episode == 0 else None)
        truncated = False
        while not truncated:
            observation, reward, _, truncated, _ = env.step(agent.predict(observation, deterministic=True)[0])
            returns[episode] += reward
    return float(returns.mean())


def train_own(algorithm: str, seed: int, folder: Path, overrides: list[str]) -> float:
    """Train a preset unless that was done; return the mean return over all starts."""
    run = folder / f"{algorithm}_pendulum_s{seed}"
    command = [sys.executable, "-m", "rltrain"]
    if not (run / "summary.json").exists():
        preset = [f"experiment={algorithm}_pendulum", f"seed={seed}", f"run.dir={run}", *overrides]
        call("rltrain", [*command, "train", *preset], cwd=ROOT)
    output = call("rltrain", [*command, "eval", str(run), f"episodes={EPISODES}", "env.num_envs=1", "json=true"], cwd=ROOT)
    return float(json.loads(output)["agents"][algorithm]["mean"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--folder", type=Path, default=Path("outputs/results"))
    parser.add_argument("--override", action="append", default=[], help="a further override, for every run of rltrain")
    parser.add_argument(
        "--peers-python", type=Path, help="an interpreter that has Stable-Baselines3; default: .venv-peers-off-policy"
    )
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        algorithm, seed, env_seed = arguments.worker
        print(train_peer(algorithm, int(seed), int(env_seed)))
        return
    from rltrain.seeding import FINAL_EVALUATION_ENVIRONMENTS, seed32

    python = arguments.peers_python or make_environment(ROOT / ".venv-peers-off-policy", PACKAGES)
    print("| | rltrain | Stable-Baselines3 |\n|---|---|---|")
    for algorithm in arguments.algorithms:
        own = [train_own(algorithm, seed, arguments.folder.absolute(), arguments.override) for seed in arguments.seeds]
        peers = []
        for seed in arguments.seeds:
            env_seed = seed32(seed, FINAL_EVALUATION_ENVIRONMENTS, 0)
            command = [str(python.absolute()), str(Path(__file__).resolve()), "--worker", algorithm, str(seed), str(env_seed)]
            with tempfile.TemporaryDirectory(prefix="compare_pendulum_") as folder:
                peers.append(float(call("Stable-Baselines3", command, cwd=Path(folder)).splitlines()[-1]))
        print(f"| {algorithm} | {', '.join(f'{x:.1f}' for x in own)} | {', '.join(f'{x:.1f}' for x in peers)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
