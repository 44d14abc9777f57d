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

    @property
    def first(self) -> int:
        """Env steps of the first part, which compiles: CHUNK, or one rollout where that is more."""
        return max(CHUNK, self.num_envs * self.rollout)


WIDTHS = {f"W{copies}": Shape(copies, 32) for copies in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)}
SHAPES = {"J1a": Shape(4, 128), "J1b": Shape(512, 32), "J2": Shape(128, 16, "brax", (256, 256)), **WIDTHS}


def time_parts(env_steps: int, prepare: Callable[[], Callable[[int], Any]], first: int = CHUNK) -> Result:
    """Time a program that `prepare` returns: it takes env steps and returns arrays, and compiles when first called, with `first`.

    Compile seconds are everything from the start to the end of the first part, less what the part takes afterwards.
    """
    import jax

    start = time.perf_counter()
    run = prepare()
    jax.block_until_ready(run(first))
    compiled = time.perf_counter()
    jax.block_until_ready(run(env_steps - first))
    return figures(start, compiled, time.perf_counter(), env_steps, first)


def figures(start: float, compiled: float, end: float, env_steps: int, first: int) -> Result:
    """Return rate and compile seconds; `compiled` is the end of the `first` of all env steps."""
    rate = (env_steps - first) / (end - compiled)
    return {"env_steps_per_second": rate, "compile_seconds": compiled - start - first / rate, "seconds": end - compiled}
