"""Off-policy tasks T3, T4, J4, J5 and what every peer that trains on them needs: their numbers, a clock in the environment."""

import time
from typing import Any, NamedTuple

Result = dict[str, Any]


class Task(NamedTuple):
    """What is trained and where the timed part lies."""

    algorithm: str
    env_id: str
    starts: int  # env steps before learning
    warmup: int  # env steps of learning that aren't timed
    timed: int  # env steps that are


TASKS = {
    "T3": Task("sac", "HalfCheetah-v5", 1_000, 500, 3_000),
    "T4": Task("dqn", "CartPole-v1", 10_000, 2_000, 40_000),
    "J4": Task("sac", "HalfCheetah-v5", 1_000, 500, 3_000),
    "J5": Task("dqn", "CartPole-v1", 1_000, 2_000, 40_000),
}
DQN = {"sizes": [120, 84], "learning_rate": 2.5e-4, "batch": 128, "memory": 10_000, "every": 10, "target_every": 500}
SAC = {"sizes": [256, 256], "learning_rate": 3e-4, "batch": 256, "memory": 100_000, "polyak": 0.005}


def make_timed(task: Task) -> Any:
    """Return the environment, which notes in `times` when the timed part begins and, at its last step, ends."""
    import gymnasium

    class Timed(gymnasium.Wrapper):
        def __init__(self, env: gymnasium.Env) -> None:
            super().__init__(env)
            self.steps, self.began, self.ended = 0, 0.0, 0.0

        def step(self, action: Any) -> Any:
            self.steps += 1
            if self.steps == task.starts + task.warmup + 1:
                self.began = time.perf_counter()
            if self.steps == total(task):
                self.ended = time.perf_counter()
            return self.env.step(action)

    return Timed(gymnasium.make(task.env_id))


def total(task: Task) -> int:
    """Return the env steps of a run."""
    return task.starts + task.warmup + task.timed + 1


def rate(task: Task, env: Any) -> float:
    """Return env steps per second of the timed part."""
    return task.timed / (env.ended - env.began)
