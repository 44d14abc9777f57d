"""What Gymnasium's `infos` bring besides numbers to look at: privileged states for a critic, and action masks.

An environment that has an attribute `state_space` gives `infos["state"]` at each reset and step; one that restricts its actions
gives `infos["action_mask"]`, at reset too.
"""

from typing import Any

import numpy as np

from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.spaces import choices, choose_rows, leaves


class Infos:
    """States (N, *S) and action masks (N, M) that belong to the observations to act on next; None where there are none."""

    def __init__(self, where: str, num_envs: int, state_space: Any, action_space: Any) -> None:
        if state_space is not None and (list(leaves(state_space)) != [""] or getattr(state_space, "shape", None) is None):
            raise ConfigError(
                "env.state_space",
                state_space,
                "states must be one array: a Box or another space with a shape, not a Dict or Tuple",
            )
        self.where, self.num_envs, self.state_space = where, num_envs, state_space
        counts = choices(action_space) or []
        self.choices = sum(counts)
        self._parts = np.cumsum([0, *counts[:-1]])  # where each part's choices begin
        self.states: np.ndarray | None = None
        self.masks: np.ndarray | None = None

    def begin(self, infos: dict[str, Any]) -> None:
        """Take what came with the reset of all copies; an environment that ever sent masks then goes on to have them."""
        if self.state_space is not None:
            self.states = self._read_states(infos, None, np.ones(self.num_envs, bool))
        if self.choices and (self.masks is not None or "action_mask" in infos):
            self.masks = self._read_masks(infos, np.ones((self.num_envs, self.choices), bool))

    def step(self, infos: dict[str, Any]) -> None:
        """Take what came with a step; a copy that sends no mask has all choices."""
        if self.state_space is not None:
            self.states = self._read_states(infos, None, np.ones(self.num_envs, bool))
        if self.masks is not None:
            self.masks = self._read_masks(infos, np.ones_like(self.masks))
        elif self.choices and "action_mask" in infos:
            raise EnvironmentFailure(f"{self.where}: infos has action_mask after a step but not after reset; give it there too")

    def begin_some(self, infos: dict[str, Any], begun: np.ndarray) -> None:
        """Take what came with the reset of the copies `begun` (N,) bool; what belongs to the others stays."""
        if self.states is not None:
            self.states = self._read_states(infos, self.states, begun)
        if self.masks is not None:
            self.masks = self._read_masks(infos, self.masks | begun[:, None])

    def allowed(self, first_copy: int, begins: np.ndarray) -> np.ndarray | None:
        """Return the masks, all choices where the next step only `begins` (N,) an episode.

        Raises EnvironmentFailure where a copy, or a part of its action, has no choice left.
        """
        if self.masks is None:
            return None
        masks = self.masks | begins[:, None] if begins.any() else self.masks
        if not masks.all():
            left = np.logical_or.reduceat(masks, self._parts, axis=1)
            if not left.all():
                copy, part = np.argwhere(~left)[0]
                which = f" in dimension {part}" if len(self._parts) > 1 else ""
                raise EnvironmentFailure(f"{self.where}: copy {first_copy + copy}: action_mask allows no action{which}")
        return masks

    def _read_states(self, infos: dict[str, Any], otherwise: np.ndarray | None, needed: np.ndarray) -> np.ndarray:
        """Return the states (N, *S), those of `otherwise` for copies that are not `needed` (N,) bool and sent none."""
        shape, dtype = self.state_space.shape, self.state_space.dtype
        states, given = self._find(infos, "state", shape, dtype)
        if not given[needed].all():
            missing = f"missing from {(needed & ~given).sum()} of {needed.sum()} copies"
            remedy = "an environment with a state_space gives it at each reset and step"
            raise EnvironmentFailure(f"{self.where}: infos['state'] is {missing}; {remedy}")
        return states if otherwise is None else choose_rows(given, states, otherwise)

    def _read_masks(self, infos: dict[str, Any], otherwise: np.ndarray) -> np.ndarray:
        """Return the masks (N, M), those of `otherwise` for copies that sent none."""
        masks, given = self._find(infos, "action_mask", (self.choices,), np.dtype(bool))
        return choose_rows(given, masks, otherwise)

    def _find(self, infos: dict[str, Any], key: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `key` (N, *shape) as `dtype`, and which copies sent one (N,) bool."""
        if key not in infos:
            return np.zeros((self.num_envs, *shape), dtype), np.zeros(self.num_envs, bool)
        value = infos[key]
        array = isinstance(value, np.ndarray) and value.dtype != object
        fits = array and value.shape == (self.num_envs, *shape)
        if not fits or not (dtype == np.bool_ or np.can_cast(value.dtype, dtype, "same_kind")):
            got = f"{value.dtype} {value.shape[1:]}" if array else "no NumPy array"
            raise EnvironmentFailure(f"{self.where}: infos[{key!r}]: expected {dtype} {shape} of each copy, got {got}")
        return np.array(value, dtype), np.asarray(infos.get(f"_{key}", np.ones(self.num_envs, bool)), bool)
