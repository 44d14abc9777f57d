"""What Gymnasium's `infos` bring besides numbers to look at: privileged states for a critic, and action masks.

An environment that has an attribute `state_space` gives `infos["state"]` at each reset and step; one that restricts its actions
gives `infos["action_mask"]`, at reset too.
"""

from typing import Any

import numpy as np

from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.spaces import choices, leaves


class Infos:
    """States (N, *S) and action masks (N, M) that belong to the observations to act on next; None where there are none."""

    def __init__(self, where: str, num_envs: int, state_space: Any, action_space: Any) -> None:
        if state_space is not None and list(leaves(state_space)) != [""]:
            raise ConfigError("env.state_space", state_space, "states must be one array, not a Dict or Tuple")
        self.where, self.num_envs, self.state_space = where, num_envs, state_space
        self.choices = sum(choices(action_space) or [])
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

    def allowed(self, first_copy: int) -> np.ndarray | None:
        """Return the masks; raises EnvironmentFailure where a copy has no choice left."""
        if self.masks is not None and not self.masks.any(axis=1).all():
            copy = first_copy + int(np.argmin(self.masks.any(axis=1)))
            raise EnvironmentFailure(f"{self.where}: copy {copy}: action_mask allows no action")
        return self.masks

    def _read(self, infos: dict[str, Any], key: str, otherwise: np.ndarray | None) -> np.ndarray:
        """Return the rows of `key`, those of `otherwise` for copies that sent none."""
        masks = key == "action_mask"
        shape = (self.num_envs, self.choices) if masks else (self.num_envs, *self.state_space.shape)
        value = infos.get(key)
        if value is None and otherwise is not None:
            return otherwise
        given = np.asarray(infos.get(f"_{key}", np.ones(self.num_envs, bool)), bool)
        value = np.array(value, bool if masks else None)
        if value.shape != shape or value.dtype == object or (otherwise is None and not given.all()):
            got = f"got {value.dtype} {value.shape}" + ("" if given.all() else f" from {given.sum()} of {self.num_envs} copies")
            raise EnvironmentFailure(f"{self.where}: infos[{key!r}]: expected an array {shape}, {got}")
        return value if otherwise is None else np.where(given.reshape(-1, *[1] * (value.ndim - 1)), value, otherwise)
