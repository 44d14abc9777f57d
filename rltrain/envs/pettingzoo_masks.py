"""Which choices each member of a PettingZoo environment is allowed next.

An environment says it by `action_mask` beside `observation` in a member's Dict, as PettingZoo's own games do, or in its info.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.errors import EnvironmentFailure

KEY = "action_mask"


class Masks:
    """Masks (N, M) of every member that has choices; `rows` is None where nobody sends one.

    Whether there are masks is known after the first reset: what learns remembers them from its first row on, or not at all.
    `spaces` are what members observe: without the mask, where it stands beside the observation.
    """

    def __init__(
        self, where: str, num_envs: int, observation_spaces: Mapping[str, Any], action_spaces: Mapping[str, Any]
    ) -> None:
        self.where, self.num_envs = where, num_envs
        self.choices = {name: count for name, space in action_spaces.items() if (count := spaces.choices(space))}
        self._inside = {name for name in self.choices if _has_mask(observation_spaces[name])}
        self.spaces = {
            name: _without(space.spaces, _as_space) if name in self._inside else space
            for name, space in observation_spaces.items()
        }
        self.rows: dict[str, np.ndarray] | None = self._all() if self._inside else None
        self.is_settled = False

    def forget(self, copies: np.ndarray) -> None:
        """Allow everything in these copies (N,) bool."""
        if self.rows is not None:
            self.rows = {name: rows | copies[:, None] for name, rows in self.rows.items()}

    def observed(self, name: str, observation: Any) -> Any:
        """Return a member's observation without its mask."""
        return _without(observation, dict) if name in self._inside else observation

    def take(self, i: int, observations: dict[str, Any], infos: dict[str, Any]) -> None:
        """Take the masks that copy i gave."""
        found = {name: info[KEY] for name, info in infos.items() if isinstance(info, dict) and KEY in info}
        found |= {name: observations[name][KEY] for name in self._inside & observations.keys()}
        for name, mask in found.items():
            if name not in self.choices:
                continue
            if self.rows is None and self.is_settled:
                raise EnvironmentFailure(
                    f"{self.where}: {KEY} of {name} comes after a step, but nobody's did after reset; give it there too, of one "
                    "member at the least"
                )
            self.rows = self.rows or self._all()
            expected, shape = (sum(self.choices[name]),), np.shape(mask)
            if shape != expected:
                raise EnvironmentFailure(
                    f"{self.where}: {KEY} of {name}: expected one number per choice, {expected}, got {shape}"
                )
            self.rows[name][i] = mask

    def allowed(self, there: dict[str, np.ndarray], first_copy: int) -> dict[str, np.ndarray] | None:
        """Return the masks, all choices where a member isn't `there` (N,) bool.

        Raises EnvironmentFailure where a member, or a part of its action, has no choice left.
        """
        if self.rows is None:
            return None
        masks = {name: rows | ~there[name][:, None] for name, rows in self.rows.items()}
        for name, mask in masks.items():
            left = np.logical_or.reduceat(mask, np.cumsum([0, *self.choices[name][:-1]]), axis=1)
            if not left.all():
                copy, part = np.argwhere(~left)[0]
                which = f" in dimension {part}" if left.shape[1] > 1 else ""
                raise EnvironmentFailure(f"{self.where}: copy {first_copy + copy}: {KEY} of {name} allows no action{which}")
        return masks

    def _all(self) -> dict[str, np.ndarray]:
        return {name: np.ones((self.num_envs, sum(count)), bool) for name, count in self.choices.items()}


def _has_mask(space: Any) -> bool:
    import gymnasium

    return isinstance(space, gymnasium.spaces.Dict) and KEY in space.spaces


def _without(parts: Mapping[str, Any], form: Any) -> Any:
    """Return the parts besides the mask, a lone `observation` as itself; of a mask alone the mask."""
    rest = {name: part for name, part in parts.items() if name != KEY}
    return rest["observation"] if list(rest) == ["observation"] else form(rest or parts)


def _as_space(parts: dict[str, Any]) -> Any:
    from gymnasium.spaces import Dict

    return Dict(parts)
