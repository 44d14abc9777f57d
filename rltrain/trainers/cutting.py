"""Copies whose episodes are cut where they have taken too many steps: an evaluation must end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rltrain.envs.base import EnvWrapper
from rltrain.spaces import map_arrays
from rltrain.structures import Array, Arrays, Step, ended


class CutEpisodes:
    """Stands before an environment's copies and truncates each episode after `limit` steps; all else goes to them.

    Where a simulator can't reset single copies, a copy that was cut plays on unseen (its rows did not happen) until `reset`.
    """

    def __init__(self, env: EnvWrapper, limit: int) -> None:
        self.env, self.limit = env, limit
        self.lengths = np.zeros(env.num_envs, np.int64)
        self.cut_now = np.zeros(env.num_envs, bool)  # with the last step
        self.unseen = np.zeros(env.num_envs, bool)

    def __getattr__(self, name: str) -> Any:
        """Return what the environment has under that name."""
        return getattr(self.env, name)

    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy."""
        self.lengths[:], self.cut_now[:], self.unseen[:] = 0, False, False
        return self.env.reset(seed=seed)

    def step(self, actions: Array) -> Step:
        """Step all copies; those that reach the limit have a truncated row, as at a time limit of the environment's own."""
        step = self.env.step(actions)
        over = ended(step.terminated, step.truncated)
        self.lengths += 1 if step.valid is None or isinstance(step.valid, dict) else np.asarray(step.valid)
        if self.unseen.any():
            step = _hide(step, self.unseen)
            self.unseen = self.unseen & ~over
        self.cut_now = (self.lengths >= self.limit) & ~over & ~self.unseen
        self.lengths[over | self.cut_now] = 0
        if self.cut_now.any():
            truncated = {name: rows | self.cut_now for name, rows in _by_name(step.truncated).items()}
            truncated = {name: rows & ~_by_name(step.terminated)[name] for name, rows in truncated.items()}
            step = step._replace(truncated=truncated if isinstance(step.truncated, dict) else truncated[""])
            if not self.env.end_episodes(self.cut_now):
                self.unseen = self.unseen | self.cut_now
        return step


def _by_name(rows: Arrays) -> dict[str, np.ndarray]:
    return {name: np.asarray(own) for name, own in rows.items()} if isinstance(rows, dict) else {"": np.asarray(rows)}


def _hide(step: Step, rows: np.ndarray) -> Step:
    """Return the step without what happened in the copies `rows` (N,) bool."""
    everywhere = map_arrays(lambda own: np.ones(len(own), bool), step.terminated)
    flags = (everywhere if step.valid is None else step.valid, step.terminated, step.truncated)
    valid, terminated, truncated = (map_arrays(lambda own: np.asarray(own) & ~rows, flag) for flag in flags)
    return step._replace(valid=valid, terminated=terminated, truncated=truncated)
