"""Uniform random actions, to compare a policy with."""

import copy
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.structures import Array, Arrays


class RandomAgent:
    """Stands for an agent in an evaluation: draws from the action space, as far as masks allow."""

    def __init__(self, name: str, action_space: Any, members: tuple[str, ...] = ()) -> None:
        self.name, self.members = name, members
        self._space = _within_limits(copy.deepcopy(action_space))
        self._copies = 0

    def begin_evaluation(self, num_envs: int, seed: int = 0) -> None:
        """Begin the stream of random numbers for `num_envs` copies."""
        self._copies = num_envs
        self._space.seed(seed % 2**32)

    def act(self, observations: Arrays, states: Arrays = None, action_masks: Arrays = None, **how: Any) -> Arrays:
        """Return actions (N, *A), a team's by member."""
        if not self.members:
            return self._draw(self._space, action_masks)
        masks = action_masks or {}
        return {name: self._draw(self._space[name], masks.get(name)) for name in self.members}

    def end_evaluation_episodes(self, done: Array) -> None:
        """Nothing belongs to an episode."""

    def _draw(self, space: Any, masks: Array | None) -> np.ndarray:
        choices = spaces.choices(space)
        if masks is None or choices is None:
            return np.stack([space.sample() for _ in range(self._copies)])
        cuts, drawn = np.cumsum(choices[:-1]), []
        for row in np.asarray(masks).astype(np.int8):
            parts = tuple(np.split(row, cuts))
            drawn.append(space.sample(mask=parts if space.shape else parts[0]))
        return np.stack(drawn)


def _within_limits(space: Any) -> Any:
    """Return a space that draws where bounds are none, as those of 3e38, what it draws of unbounded numbers."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Dict):
        return gymnasium.spaces.Dict({name: _within_limits(part) for name, part in space.spaces.items()})
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        return space
    low, high = (bound.reshape(space.shape).astype(space.dtype) for bound in spaces.limits(space))
    if np.array_equal(low, space.low) and np.array_equal(high, space.high):
        return space
    return gymnasium.spaces.Box(low, high, dtype=space.dtype.type)
