"""Task T1 and what every peer that trains on it needs: the numbers of the task, a clock, an evaluation."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NUM_ENVS, ROLLOUT, EPOCHS, MINIBATCHES = 8, 128, 4, 4
BATCH = NUM_ENVS * ROLLOUT
WARMUP_ROLLOUTS = 2
EVAL_EPISODES = 20

Result = dict[str, Any]


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
