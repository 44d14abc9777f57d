"""Measure the fused loop, environment and training in one XLA program, beside rejax: tasks J1a, J1b, J2 and widths.

The work, the same for everyone: PPO on gymnax's CartPole-v1, 4 copies x 128 timesteps per rollout (J1a) or 512 x 32
(J1b), 4 epochs x 4 minibatches, separate 64x64 tanh networks, learning rate 2.5e-4 (constant), gamma 0.99, lambda 0.95,
ratio clip 0.2, entropy 0.01, value loss 0.5, gradient norm 0.5, float32, CPU, XLA on one thread. J2 is the same on Brax's
halfcheetah (backend spring), 128 x 16, networks 256x256: nearly all its time is the simulator's. `widths` stands for W8, W16,
... W4096, CartPole with 8 to 4096 copies x 32: rollouts up to 131,072 rows.

    python scripts/benchmark_fused.py                                     # J1a and J1b
    python scripts/benchmark_fused.py --tasks J2 --contenders rltrain,environment --env-steps 262144
    python scripts/benchmark_fused.py --tasks J1b --repeats 5 --json j1b.json
    python scripts/benchmark_fused.py --contenders rltrain,rltrain-files,rejax
    python scripts/benchmark_fused.py --tasks widths --contenders rltrain --env-steps 524288

The contenders; N is the task's number of copies:

    rltrain           one agent on N copies; writes no files, as rejax
    rltrain-files     the same, writing what the command line does: metrics, TensorBoard, a checkpoint
    rltrain-doubled   two agents at once on 2N copies, N each: twice the work of one agent
    rltrain-shared    two agents at once on N copies, N/2 each: the env steps of one agent, in smaller minibatches
    rltrain-parallel  as doubled, with trainer=parallel: a program per agent, each on a host device (core) of its own
    environment       no training: random actions in one compiled scan over rltrain's environment, the ceiling
    rejax             one agent on N copies; its PPO clips values too

Every run has a process of its own, and compiles everything anew. The order rotates from repeat to repeat, because the load of a
machine drifts: only the ratios within one repeat mean something.

Two figures per run. Env steps per second of all copies together, after the first 65,536 env steps or the first rollout, if
that is longer (one chunk of rltrain's loop, whose time is when the host has seen it); of rltrain also per second of CPU time,
which the load of a machine changes less. Compile seconds: from the start of the construction, libraries imported, to the end of
these env steps, less what as many take afterwards; so programs that draw the first parameters or reset the copies count too.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from peers.fused import CHUNK, EPOCHS, MINIBATCHES, SHAPES, WIDTHS, Shape, figures, time_parts

PACKAGES = (("-e", f"{ROOT}[jax,gymnax,brax]", "rejax"),)  # gymnax wants an older Gymnasium than rltrain's other extras
CONTENDERS = ("rltrain", "rltrain-files", "rltrain-doubled", "rltrain-shared", "rltrain-parallel", "environment", "rejax")
VERSIONS_OF = ("rltrain", "rejax", "gymnax", "jax", "flax", "optax", "gymnasium", "numpy")


def make_env(shape: Shape, seed: int) -> Any:
    """Return rltrain's environment of the task."""
    if shape.simulator == "brax":
        from rltrain.envs.brax import BraxEnv

        return BraxEnv({"id": "halfcheetah", "num_envs": shape.num_envs, "kwargs": {"backend": "spring"}}, seed=seed)
    from rltrain.envs.gymnax import GymnaxEnv

    return GymnaxEnv({"id": "CartPole-v1", "num_envs": shape.num_envs}, seed=seed)


def environment(shape: Shape, env_steps: int, seed: int) -> Result:
    """Step rltrain's environment with random actions in one compiled scan: no trainer on it can be quicker."""
    import jax
    import jax.numpy as jnp

    def prepare() -> Callable[[int], Any]:
        env = make_env(shape, seed)
        env.reset()
        space = env.action_space

        def draw(key: Any) -> Any:
            rows = (shape.rollout, shape.num_envs)
            if shape.simulator == "brax":
                return jax.random.uniform(key, (*rows, *space.shape), minval=-1, maxval=1)
            return jax.random.bernoulli(key, shape=rows).astype(jnp.int32)

        held = [(env.copies, jax.random.key(seed), jnp.float32(0))]

        def step(carry: Any, actions: Any) -> tuple[Any, None]:
            copies, rewards = carry
            copies, step = env.pure.step(copies, actions)
            return (env.pure.reset_done(copies), rewards + step.rewards.sum()), None

        def rollout(_: Any, carry: Any) -> Any:
            copies, key, rewards = carry
            key, own = jax.random.split(key)
            (copies, rewards), _ = jax.lax.scan(step, (copies, rewards), draw(own))
            return copies, key, rewards

        steps = jax.jit(lambda carry, rollouts: jax.lax.fori_loop(0, rollouts, rollout, carry), donate_argnums=0)

        def run(env_steps: int) -> Any:
            held[0] = steps(held[0], env_steps // (shape.num_envs * shape.rollout))
            return held[0][-1]

        return run

    return time_parts(env_steps, prepare, shape.first)


def rltrain(
    shape: Shape, env_steps: int, seed: int, *, agents: int = 1, parallel: bool = False, files: Path | None = None
) -> Result:
    """Train `agents` PPO agents, even parts of `shape.num_envs` copies each, in rltrain's fused loop.

    `files` is a directory for what a run from the command line writes: metrics, TensorBoard, a checkpoint. The time of the
    first chunk and of the last is when the host has seen it.
    """
    from rltrain.agents.base import Agent
    from rltrain.agents.ppo.jax import PPO
    from rltrain.backends.jax import JaxBackend
    from rltrain.runs import Run
    from rltrain.trainers import ParallelTrainer, SequentialTrainer, fused

    seen: list[tuple[float, float, int]] = []

    class TimedLoop(fused.FusedLoop):
        def _tell(self, *args: Any) -> None:
            super()._tell(*args)
            seen.append((time.perf_counter(), time.process_time(), self.trainer.timestep * shape.num_envs))

    fused.FusedLoop = TimedLoop
    assert fused.CHUNK_ENV_STEPS == CHUNK
    backend = JaxBackend({"compilation_cache": "none"})

    start = time.perf_counter()
    env = make_env(shape, seed)
    own = shape.num_envs // agents
    cfg = {"rollout_length": shape.rollout, "epochs": EPOCHS, "minibatches": MINIBATCHES}
    cfg |= {"network": {"policy_sizes": list(shape.hidden_sizes), "value_sizes": list(shape.hidden_sizes)}}
    made = [
        Agent(
            PPO(env.observation_space, env.action_space, num_envs=own, cfg=cfg, seed=seed + i, backend=backend), name=f"ppo_{i}"
        )
        for i in range(agents)
    ]
    settings = {"timesteps": env_steps // shape.num_envs, "fused": "true", "disable_progressbar": True}
    run = {"run": Run(directory=files)} if files else {}
    trainer = (ParallelTrainer if parallel else SequentialTrainer)(env=env, agents=made, cfg=settings, **run)
    trainer.train()
    (compiled, cpu_before, first), (end, cpu_after, last) = seen[0], seen[-1]
    if first != shape.first or last != env_steps:
        raise RuntimeError(f"the first chunk ended at {first} env steps, the last at {last}; {shape.first}, {env_steps} expected")
    returns = [agent.statistics.summary()["episode_return_mean"] for agent in made]
    per_cpu_second = (last - first) / (cpu_after - cpu_before)
    more = {"env_steps_per_cpu_second": per_cpu_second, "mean_return": sum(returns) / len(returns)}
    return figures(start, compiled, end, env_steps, shape.first) | more


def work(contender: str, task: str, env_steps: int, seed: int) -> Result:
    """Run a contender in this process and return its figures."""
    shape = SHAPES[task]
    if contender == "rltrain-parallel":
        from rltrain.backends.base import BackendConfig, prepare

        prepare(BackendConfig(), devices=2)  # before JAX starts, which importing gymnax does
    import flax  # noqa: F401  imported where they are first needed otherwise, within what is timed
    import optax  # noqa: F401

    importlib.import_module(shape.simulator)

    if contender == "environment":
        return environment(shape, env_steps * (1 if shape.simulator == "brax" else 8), seed)  # as gymnax is so quick
    if contender in ("rltrain-doubled", "rltrain-parallel"):
        doubled = shape._replace(num_envs=2 * shape.num_envs)
        return rltrain(doubled, env_steps, seed, agents=2, parallel=contender == "rltrain-parallel")
    if contender == "rltrain-shared":
        return rltrain(shape, env_steps, seed, agents=2)
    if contender.startswith("rltrain"):
        return rltrain(shape, env_steps, seed, files=Path("run").absolute() if contender == "rltrain-files" else None)
    return importlib.import_module(f"peers.{contender}").run(shape, env_steps, seed)


def measure(python: Path, contender: str, task: str, env_steps: int, seed: int) -> Result:
    """Run one contender in a process of its own and return its figures."""
    command = [str(python), str(Path(__file__).resolve()), "--worker", contender, "--tasks", task]
    with tempfile.TemporaryDirectory(prefix="benchmark_fused_") as folder:
        output = call(contender, [*command, "--env-steps", str(env_steps), "--seed", str(seed)], cwd=Path(folder))
    return {"task": task, "contender": contender, "seed": seed, **json.loads(output.splitlines()[-1])}


def print_run(run: Result) -> None:
    """Print one line for one run."""
    returns = f"  return {run['mean_return']:.0f}" if "mean_return" in run else ""
    print(
        f"{run['task']} repeat {run['repeat']}  {run['contender']:16}{run['env_steps_per_second']:10.0f} env steps/s"
        f"  compiling {run['compile_seconds']:5.2f} s  ({run['seconds']:.2f} s timed){returns}",
        flush=True,
    )


def summarize(task: str, contenders: list[str], runs: list[Result]) -> Result:
    """Print rates, ratios and compile seconds of all repeats with their medians; return the ratios."""

    def figure(name: str) -> dict[str, list[float]]:
        return {c: [run[name] for run in runs if (run["task"], run["contender"]) == (task, c)] for c in contenders}

    rates, found = figure("env_steps_per_second"), {}
    print_rows(f"{task}: env steps/s", rates)
    for other in ("rejax", "rltrain"):
        if other in contenders and len(contenders) > 1:
            found[other] = {c: [a / b for a, b in zip(rates[c], rates[other], strict=True)] for c in contenders if c != other}
            print_rows(f"{task}: the same / {other}", found[other], decimals=2)
    print_rows(f"{task}: compile seconds", figure("compile_seconds"), decimals=2)
    return found


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description="Tasks J1a, J1b (PPO, gymnax CartPole), J2 (Brax): rltrain and rejax.")
    add_arguments(parser, CONTENDERS)
    parser.add_argument("--tasks", default="J1a,J1b", help="default: %(default)s")
    parser.add_argument(
        "--env-steps", type=int, default=2_000_000, help=f"per run, rounded up to whole chunks of {CHUNK} or more"
    )
    parser.add_argument(
        "--python", type=Path, help="its interpreter: has rltrain[jax,gymnax,brax] and rejax; default: .venv-fused"
    )
    arguments = parser.parse_args()
    check_arguments(parser, arguments, CONTENDERS, python="python")
    arguments.tasks = arguments.tasks.replace("widths", ",".join(WIDTHS)).split(",")
    if unknown := set(arguments.tasks) - set(SHAPES):
        parser.error(f"--tasks={','.join(unknown)}: unknown; choose from {','.join(SHAPES)}")
    first = max(SHAPES[task].first for task in arguments.tasks)
    arguments.env_steps = -(-arguments.env_steps // first) * first
    if arguments.env_steps <= first:
        parser.error(f"--env-steps={arguments.env_steps}: give more than the first {first}, which compile")
    return arguments


def main() -> None:
    """Measure every contender in every repeat, print the tables, write the JSON file."""
    arguments = parse_arguments()
    if arguments.worker:
        result = work(arguments.worker, arguments.tasks[0], arguments.env_steps, arguments.seed)
        print(json.dumps(result | {"versions": versions(VERSIONS_OF)}))
        return

    python = arguments.python or make_environment(ROOT / ".venv-fused", PACKAGES)
    print(f"{arguments.env_steps} env steps per run, of which the first chunk compiles and is not in the rate")
    runs, ratios = [], {}
    for task in arguments.tasks:
        for repeat, contender in alternate(arguments.contenders, arguments.repeats):
            run = measure(python, contender, task, arguments.env_steps, arguments.seed + repeat - 1)
            runs.append({"repeat": repeat, **run})
            print_run(runs[-1])
        ratios[task] = summarize(task, arguments.contenders, runs)
    write_json(arguments.json, {"tasks": arguments.tasks, "runs": runs, "ratios_to": ratios})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
