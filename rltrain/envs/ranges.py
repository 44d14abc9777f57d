"""Looks for observations and states outside their space: whole numbers that a Discrete, MultiDiscrete or MultiBinary can't have.

A network reads them one-hot or as bits, so a number too high means nothing to it. Box's bounds are not looked at: numbers beyond
them are numbers still.
"""

from typing import Any, NoReturn

import numpy as np

from rltrain.errors import EnvironmentFailure
from rltrain.spaces import leaves
from rltrain.structures import Arrays


class RangeWatch:
    """Does what `env.on_invalid` says: `error` or `ignore`; `where` names the environment in messages.

    `limits` are (lowest, highest) of each leaf that has some by what it is part of and path; without any nothing is looked at.
    `state_space` None: there are no states, or they are the observations.
    """

    def __init__(self, where: str, first_copy: int, obey: str, observation_space: Any, state_space: Any = None) -> None:
        self.where, self.first_copy = where, first_copy
        self.spaces: dict[tuple[str, str], Any] = {}
        self.limits: dict[tuple[str, str], tuple[Any, Any]] = {}
        for part, space in (("observations", observation_space), ("states", state_space)):
            for path, leaf in leaves(space).items() if obey == "error" and space is not None else ():
                found = limits(leaf)
                if found is not None:
                    self.spaces[part, path], self.limits[part, path] = leaf, found
        self.has_states = any(part == "states" for part, _ in self.limits)

    def check(self, observations: Arrays, states: Arrays, timestep: int, shown: dict[str, np.ndarray] | None = None) -> None:
        """Raise EnvironmentFailure naming copy, leaf and number of the first that is outside.

        `shown` (N,) bool by member: only there is what a member observes the environment's; None: everywhere.
        """
        for (part, path), (low, high) in self.limits.items():
            arrays = observations if part == "observations" else states
            rows = np.asarray(arrays[path] if path else arrays)
            # a third quicker than comparing
            if isinstance(low, int) and np.minimum.reduce(rows, None) >= low and np.maximum.reduce(rows, None) <= high:
                continue
            outside = (rows < low) | (rows > high)
            if shown is not None and part == "observations":
                outside &= shown[path.partition("/")[0]].reshape(-1, *[1] * (rows.ndim - 1))
            if outside.any():
                copy, *at = (int(i) for i in np.argwhere(outside)[0])
                self.refuse(part, path, copy, at, int(rows[copy, *at]), f"step {timestep}")

    def refuse(self, part: str, path: str, copy: int, at: list[int], value: int, when: str) -> NoReturn:
        """Raise EnvironmentFailure for `value`, which stands `at` this place in a leaf."""
        name = "/".join(filter(None, (part, path))) + (str(at) if at else "")
        low, high = (int(np.broadcast_to(limit, self.spaces[part, path].shape)[*at]) for limit in self.limits[part, path])
        space = " ".join(str(self.spaces[part, path]).split())
        raise EnvironmentFailure(
            f"{self.where}: copy {self.first_copy + copy}: {when}: {name}={value} is outside "
            f"{space if len(space) <= 80 else space[:77] + '...'}, {low} to {high}; mend the environment or its space, or set "
            "env.on_invalid=ignore"
        )


def limits(space: Any) -> tuple[Any, Any] | None:
    """Return the lowest and the highest value: integers, or arrays where parts differ; None for spaces without a check."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.MultiBinary):
        return 0, 1
    if isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
        count, start = (space.n, space.start) if isinstance(space, gymnasium.spaces.Discrete) else (space.nvec, space.start)
        low = np.asarray(start, np.int64)
        high = low + np.asarray(count, np.int64) - 1
        same = (low == low.flat[0]).all() and (high == high.flat[0]).all()
        return (int(low.flat[0]), int(high.flat[0])) if same else (low, high)
    return None
