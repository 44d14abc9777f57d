"""Tasks J1a, J1b, J2 and how they are timed: a training is built, runs a part of it, which compiles, then the rest."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

EPOCHS, MINIBATCHES = 4, 4
CHUNK = 65_536  # env steps of the first part, which compiles

Result = dict[str, Any]


class Shape(NamedTuple):
    """Copies and timesteps of a rollout, and what on."""

    num_envs: int
    rollout: int
    simulator: str = "gymnax"
    hidden_sizes: tuple[int, ...] = (64, 64)


SHAPES = {"J1a": Shape(4, 128), "J1b": Shape(512, 32), "J2": Shape(128, 16, "brax", (256, 256))}


def time_parts(env_steps: int, prepare: Callable[[], Callable[[int], Any]]) -> Result:
    """Time a program that `prepare` returns: it takes env steps and returns arrays, and compiles when first called.

    Compile seconds are everything from the start to the end of the first part, less what the part takes afterwards.
    """
    import jax

    start = time.perf_counter()
    run = prepare()
    jax.block_until_ready(run(CHUNK))
    compiled = time.perf_counter()
    jax.block_until_ready(run(env_steps - CHUNK))
    return figures(start, compiled, time.perf_counter(), env_steps - CHUNK)


def figures(start: float, compiled: float, end: float, env_steps: int) -> Result:
    """Return rate and compile seconds; `compiled` is the end of the first CHUNK, `env_steps` came after it."""
    rate = env_steps / (end - compiled)
    return {"env_steps_per_second": rate, "compile_seconds": compiled - start - CHUNK / rate, "seconds": end - compiled}
