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
            raise ConfigError("env.state_space", state_space, "states must be one array: a Box or another space with a shape, "
                              "not a Dict or Tuple")  # fmt: skip
        self.where, self.num_envs, self.state_space = where, num_envs, state_space
        counts = choices(action_space) or []
        self.choices = sum(counts)
        self._parts = np.cumsum([0, *counts[:-1]])  # where each part's choices begin
        self.states: np.ndarray | None = None
        self.masks: np.ndarray | None = None

    def begin(self, infos: dict[str, Any]) -> None:
        """Take what came with the reset of all copies."""
        self.states = self.masks = None
        if self.state_space is not None:
            self.states = self._read(infos, "state", None)
        if self.choices and "action_mask" in infos:
            self.masks = self._read(infos, "action_mask", np.ones((self.num_envs, self.choices), bool))

    def step(self, infos: dict[str, Any]) -> None:
        """Take what came with a step; a copy that sends no mask has all choices."""
        if self.state_space is not None:
            self.states = self._read(infos, "state", None)
        if self.masks is not None:
            self.masks = self._read(infos, "action_mask", np.ones_like(self.masks))
        elif self.choices and "action_mask" in infos:
            raise EnvironmentFailure(f"{self.where}: infos has action_mask after a step but not after reset; give it there too")

    def begin_some(self, infos: dict[str, Any]) -> None:
        """Take what came with the reset of the copies that `infos` names."""
        if self.states is not None:
            self.states = self._read(infos, "state", self.states)
        if self.masks is not None:
            self.masks = self._read(infos, "action_mask", self.masks)

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

    def _read(self, infos: dict[str, Any], key: str, otherwise: np.ndarray | None) -> np.ndarray:
        """Return the rows of `key`, those of `otherwise` for copies that sent none."""
        masks = key == "action_mask"
        shape, dtype = ((self.choices,), np.dtype(bool)) if masks else (self.state_space.shape, self.state_space.dtype)
        value: Any = infos.get(key)
        if value is None and otherwise is not None:
            return otherwise
        given = np.asarray(infos.get(f"_{key}", np.ones(self.num_envs, bool)), bool)
        array = isinstance(value, np.ndarray) and value.dtype != object
        fits = array and value.shape == (self.num_envs, *shape) and (masks or np.can_cast(value.dtype, dtype, "same_kind"))
        if not fits or (otherwise is None and not given.all()):
            got = f"{value.dtype} {value.shape[1:]}" if array else "nothing" if value is None else "no NumPy arrays"
            got += "" if given.all() else f" from {given.sum()} of {self.num_envs} copies"
            raise EnvironmentFailure(f"{self.where}: infos[{key!r}]: expected an array {dtype} {shape} of each copy, got {got}")
        value = np.array(value, dtype)
        return value if otherwise is None else choose_rows(given, value, otherwise)
