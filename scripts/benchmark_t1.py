"""Measure task T1 side by side: rltrain, Stable-Baselines3 and skrl train PPO on CartPole-v1.

The work, the same for everyone: 8 synchronous copies x 128 timesteps per rollout, 4 epochs x 4 minibatches, separate
64x64 tanh networks, learning rate 2.5e-4 (constant), gamma 0.99, lambda 0.95, ratio clip 0.2, no value clip,
entropy 0.01, value loss 0.5, gradient norm 0.5, float32, one intra-op thread, CPU.

    python scripts/benchmark_t1.py                                          # a minute per repeat on two slow cores
    python scripts/benchmark_t1.py --repeats 5 --json t1.json
    python scripts/benchmark_t1.py --contenders sb3,skrl --env-steps 50000  # the peers alone

Every run has a process of its own. The order rotates from repeat to repeat, because the load of a machine drifts: only
the ratios within one repeat mean something.

What is timed: from the first reset to the end of the last update, less the first WARMUP_ROLLOUTS rollouts and their
updates (lazy imports, allocator, caches). Imports, construction and the evaluation at the end are outside. The peers
read the clock at that moment. rltrain runs as its users run it, from the command line, and its summary holds one
duration for the whole loop; so a short run of WARMUP_ROLLOUTS rollouts precedes each of its runs, and its steps and
seconds are subtracted. The ratio of the whole loops, nothing excluded, is printed too: the two should agree.

What favours the peers, on purpose: the time of rltrain's loop includes its episode statistics, metrics files and
checks; the peers run with everything of the kind switched off (no progress bar, TensorBoard, checkpoint, Monitor).
skrl's env steps include one reset row per episode, as Gymnasium's vector environments count by default.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
PEERS_FOLDER = ROOT / ".venv-peers"
PEERS_PACKAGES = (  # torch first and pinned: left to the second line, pip would fetch gigabytes of CUDA
    ("torch==2.13.0",),
    ("stable-baselines3", "skrl==2.1.1", "gymnasium[classic-control]<1.5"),
)
CONTENDERS = ("rltrain", "sb3", "skrl")
VERSIONS_OF = ("rltrain", "stable-baselines3", "skrl", "torch", "gymnasium", "numpy")

NUM_ENVS, ROLLOUT, EPOCHS, MINIBATCHES = 8, 128, 4, 4
BATCH = NUM_ENVS * ROLLOUT
WARMUP_ROLLOUTS = 2
EVAL_EPISODES = 20

Result = dict[str, Any]


class BenchmarkError(Exception):
    """A sentence for the user: what went wrong with which contender."""


class Clock:
    """Notes when the loop starts, when each update ends and when the loop is over."""

    def __init__(self) -> None:
        """Start with no update noted."""
        self._update_ends: list[float] = []

    def start(self) -> None:
        """Note the start of the loop."""
        self._start = time.perf_counter()

    def update_done(self) -> None:
        """Note the end of an update."""
        self._update_ends.append(time.perf_counter())

    def stop(self) -> None:
        """Note the end of the loop."""
        self._stop = time.perf_counter()

    def seconds(self) -> Result:
        """Return the seconds of the whole loop and of its warm-up."""
        warmup_end = self._update_ends[WARMUP_ROLLOUTS - 1]
        return {"loop_seconds": self._stop - self._start, "warmup_seconds": warmup_end - self._start}


# --- the contenders -------------------------------------------------------------------------------------------------


def run_sb3(env_steps: int, seed: int) -> Result:
    """Train Stable-Baselines3's PPO in this process.

    DummyVecEnv is its synchronous vector environment. No Monitor wrapper and no logging: that is its quickest setting.
    """
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)
    clock = Clock()

    class TimedPPO(PPO):
        def train(self) -> None:
            super().train()
            clock.update_done()

    env = DummyVecEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(NUM_ENVS)])
    ppo = TimedPPO(
        "MlpPolicy",
        env,
        n_steps=ROLLOUT,
        batch_size=BATCH // MINIBATCHES,
        n_epochs=EPOCHS,
        learning_rate=2.5e-4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        clip_range_vf=None,
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
        device="cpu",
        seed=seed,
        verbose=0,
    )
    clock.start()
    ppo.learn(env_steps, log_interval=None, progress_bar=False)
    clock.stop()
    return {
        "env_steps": ppo.num_timesteps,
        "gradient_steps": gradient_steps(ppo.policy.optimizer),
        "mean_return": mean_return(lambda observations: ppo.predict(observations, deterministic=True)[0]),
        **clock.seconds(),
    }


def run_skrl(env_steps: int, seed: int) -> Result:
    """Train skrl's PPO with its SequentialTrainer in this process, on Gymnasium's SyncVectorEnv.

    `write_interval=0` and `checkpoint_interval=0` also spare it the episode statistics: that is its quickest setting.
    """
    import gymnasium
    import torch
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed

    torch.set_num_threads(1)
    set_seed(seed)
    clock = Clock()

    class TimedPPO(PPO):
        def update(self, *, timestep: int, timesteps: int) -> None:
            super().update(timestep=timestep, timesteps=timesteps)
            clock.update_done()

    class Network(Model):
        def __init__(self, num_outputs: int, **spaces: gymnasium.Space) -> None:
            Model.__init__(self, **spaces, device="cpu")
            self.net = torch.nn.Sequential(
                torch.nn.Linear(self.num_observations, 64),
                torch.nn.Tanh(),
                torch.nn.Linear(64, 64),
                torch.nn.Tanh(),
                torch.nn.Linear(64, num_outputs),
            )

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    class Policy(CategoricalMixin, Network):
        def __init__(self, **spaces: gymnasium.Space) -> None:
            Network.__init__(self, 2, **spaces)
            CategoricalMixin.__init__(self, unnormalized_log_prob=True)

    class Value(DeterministicMixin, Network):
        def __init__(self, **spaces: gymnasium.Space) -> None:
            Network.__init__(self, 1, **spaces)
            DeterministicMixin.__init__(self)

    env = wrap_env(gymnasium.make_vec("CartPole-v1", num_envs=NUM_ENVS, vectorization_mode="sync"), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agent = TimedPPO(
        models={"policy": Policy(**spaces), "value": Value(**spaces)},
        memory=RandomMemory(memory_size=ROLLOUT, num_envs=NUM_ENVS, device="cpu"),
        cfg=PPO_CFG(
            rollouts=ROLLOUT,
            learning_epochs=EPOCHS,
            mini_batches=MINIBATCHES,
            learning_rate=2.5e-4,
            discount_factor=0.99,
            gae_lambda=0.95,
            ratio_clip=0.2,
            value_clip=0.0,
            entropy_loss_scale=0.01,
            value_loss_scale=0.5,
            grad_norm_clip=0.5,
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        ),
        device="cpu",
        **spaces,
    )
    cfg = {"timesteps": env_steps // NUM_ENVS, "headless": True, "disable_progressbar": True}
    trainer = SequentialTrainer(env=env, agents=agent, cfg=cfg)
    clock.start()
    trainer.train()
    clock.stop()

    def choose(observations: object) -> object:
        with torch.no_grad():
            return agent.policy.net(torch.as_tensor(observations)).argmax(dim=-1).numpy()

    return {
        "env_steps": trainer.cfg.timesteps * NUM_ENVS,
        "gradient_steps": gradient_steps(agent.optimizer),
        "mean_return": mean_return(choose),
        **clock.seconds(),
    }


def gradient_steps(optimizer: "torch.optim.Optimizer") -> int:
    """Return how many steps Adam counted itself, so that counting costs the loop nothing."""
    return int(next(iter(optimizer.state.values()))["step"])


def mean_return(choose: Callable[[object], object]) -> float:
    """Return the mean return of the first episodes of EVAL_EPISODES copies (random actions: 22, the best: 500)."""
    import gymnasium
    import numpy as np

    env = gymnasium.make_vec("CartPole-v1", num_envs=EVAL_EPISODES, vectorization_mode="sync")
    observations, _ = env.reset(seed=12345)
    returns, running = np.zeros(EVAL_EPISODES), np.ones(EVAL_EPISODES, dtype=bool)
    while running.any():
        observations, rewards, terminated, truncated, _ = env.step(choose(observations))
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def run_rltrain(env_steps: int, seed: int) -> Result:
    """Train with rltrain's command line and read the run's summary."""
    with tempfile.TemporaryDirectory(prefix="benchmark_t1_") as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "rltrain", "train", "env=CartPole-v1", f"env.num_envs={NUM_ENVS}"]
        command += [f"seed={seed}", f"total_env_steps={env_steps}", f"run.dir={run_dir}"]
        call("rltrain", [*command, "trainer.disable_progressbar=true"], cwd=ROOT)
        summary = json.loads((run_dir / "summary.json").read_text())
    agent = summary["agents"]["ppo"]
    return {
        "env_steps": agent["env_steps"],
        "gradient_steps": agent["updates"] * EPOCHS * MINIBATCHES,
        "mean_return": agent["episode_return_mean"],
        "loop_seconds": summary["training_seconds"],
    }


# --- running them

PEERS = {"sb3": run_sb3, "skrl": run_skrl}


def call(contender: str, command: list[str], cwd: Path) -> str:
    """Run a command on one thread and without a GPU; return its standard output.

    Raises:
        BenchmarkError: It failed. The message ends with the last lines that it wrote.
    """
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=cwd, env=os.environ | one_thread, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BenchmarkError(f"{contender}: exit status {done.returncode} from {' '.join(command)}\n{tail}")
    return done.stdout


def measure(contender: str, env_steps: int, seed: int, peers_python: Path | None) -> Result:
    """Run one contender in a process of its own and return its figures, rates and versions included."""
    if contender == "rltrain":
        warmup = run_rltrain(WARMUP_ROLLOUTS * BATCH, seed)
        result = run_rltrain(env_steps, seed) | {"warmup_seconds": warmup["loop_seconds"], "versions": versions()}
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


def versions() -> dict[str, str]:
    """Return the versions of Python and of those packages that this interpreter has."""
    installed = {package.metadata["Name"].lower().replace("_", "-"): package for package in metadata.distributions()}
    return {"python": platform.python_version()} | {name: installed[name].version for name in VERSIONS_OF if name in installed}


def make_peers_environment() -> Path:
    """Create the peers' virtual environment unless a complete one is there; return its interpreter.

    It ignores itself in git.
    """
    python, complete = PEERS_FOLDER / "bin" / "python", PEERS_FOLDER / ".complete"
    if not complete.exists():
        print(f"installing the peers into {PEERS_FOLDER} (once)", flush=True)
        call("peers", [sys.executable, "-m", "venv", "--clear", str(PEERS_FOLDER)], cwd=ROOT)
        (PEERS_FOLDER / ".gitignore").write_text("*\n")
        for packages in PEERS_PACKAGES:
            call("peers", [str(python), "-m", "pip", "install", *packages], cwd=ROOT)
        complete.touch()
    return python


# --- reporting


def ratios(runs: Iterable[Result], rate: str) -> list[float]:
    """Return rltrain's rate over the best peer's, one number per repeat."""
    rates: dict[int, dict[str, float]] = {}
    for run in runs:
        rates.setdefault(run["repeat"], {})[run["contender"]] = run[rate]
    return [row.pop("rltrain") / max(row.values()) for row in rates.values()]


def print_run(run: Result) -> None:
    """Print one line for one run."""
    gradient_steps, mean_return = run["gradient_steps"], run["mean_return"]
    print(
        f"repeat {run['repeat']}  {run['contender']:8}{run['steps_per_second']:8.0f} env steps/s"
        f"  (whole loop {run['whole_loop_steps_per_second']:.0f}, {run['loop_seconds']:.2f} s)"
        f"  {'?' if gradient_steps is None else gradient_steps} gradient steps"
        f"  return {'?' if mean_return is None else format(mean_return, '.0f')}",
        flush=True,
    )


def print_table(report: Result) -> None:
    """Print the rates and ratios of all repeats with their medians."""
    repeats = sorted({run["repeat"] for run in report["runs"]})
    print("\nenv steps/s of the loop  " + "".join(f"{f'repeat {repeat}':>10}" for repeat in repeats) + "    median")
    for contender in report["contenders"]:
        by_repeat = {r["repeat"]: r["steps_per_second"] for r in report["runs"] if r["contender"] == contender}
        rates = [by_repeat[repeat] for repeat in repeats]
        print(f"{contender:25}" + "".join(f"{rate:10.0f}" for rate in [*rates, statistics.median(rates)]))
    for name, key in (("rltrain / best peer", "ratios"), ("the same, whole loop", "whole_loop_ratios")):
        if key in report:
            print(f"{name:25}" + "".join(f"{r:10.2f}" for r in [*report[key], statistics.median(report[key])]))


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line; `--worker` is for the script's own use."""
    parser = argparse.ArgumentParser(description="Task T1 (PPO, CartPole-v1): rltrain and its peers side by side.")
    parser.add_argument("--repeats", type=int, default=3, help="runs per contender (default: %(default)s)")
    parser.add_argument("--env-steps", type=int, default=200_000, help="per run, rounded up to whole rollouts of 1024")
    parser.add_argument("--seed", type=int, default=1, help="of the first repeat; the next ones count up")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="default: %(default)s")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has both peers; default: .venv-peers")
    parser.add_argument("--json", type=Path, help="write the raw figures and versions to this file")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.contenders = arguments.contenders.split(",")
    if unknown := set(arguments.contenders) - set(CONTENDERS):
        parser.error(f"--contenders={','.join(unknown)}: unknown; choose from {','.join(CONTENDERS)}")
    if arguments.peers_python and not arguments.peers_python.exists():
        parser.error(f"--peers-python={arguments.peers_python}: no such file; give the path of an interpreter")
    if arguments.repeats < 1:
        parser.error(f"--repeats={arguments.repeats}: give at least 1")
    if arguments.env_steps <= WARMUP_ROLLOUTS * BATCH:
        parser.error(f"--env-steps={arguments.env_steps}: give more than the warm-up's {WARMUP_ROLLOUTS * BATCH}")
    arguments.env_steps = -(-arguments.env_steps // BATCH) * BATCH
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the table, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = PEERS[arguments.worker](arguments.env_steps, arguments.seed)
        print(json.dumps(result | {"versions": versions()}))
        return

    contenders, runs = arguments.contenders, []
    needs_peers = set(contenders) & set(PEERS)
    peers_python = None
    if needs_peers:  # absolute(), as resolve() would follow the link out of the virtual environment
        peers_python = arguments.peers_python.absolute() if arguments.peers_python else make_peers_environment()
    print(
        f"T1: {arguments.env_steps} env steps per run; imports, construction and the first {WARMUP_ROLLOUTS} rollouts"
        " with their updates are excluded for everyone"
    )
    for i in range(arguments.repeats):
        first = i % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            run = measure(contender, arguments.env_steps, arguments.seed + i, peers_python)
            runs.append({"repeat": i + 1, **run})
            print_run(runs[-1])

    report = {"task": "T1", "contenders": contenders, "machine": platform.platform(), "cores": os.cpu_count()}
    report |= {"runs": runs}
    if "rltrain" in contenders and needs_peers:
        report["ratios"] = ratios(runs, "steps_per_second")
        report["whole_loop_ratios"] = ratios(runs, "whole_loop_steps_per_second")
    print_table(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
