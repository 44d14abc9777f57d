"""The part of a rollout memory that both backends share: rows staged in host arrays."""

from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.errors import RunError
from rltrain.structures import Arrays, Transition


class StagedRollout:
    """T consecutive timesteps of N copies, written once, read once.

    Rows are staged in host arrays: writing a row there costs a tenth of indexing a tensor, and the device gets the whole
    rollout in one transfer. A successor is the next row's observation, so only those that aren't (a truncated episode's last,
    the rollout's last) are kept.
    """

    def __init__(self, length: int, num_envs: int) -> None:
        self.length, self.num_envs = length, num_envs
        self.position = 0
        self._arrays: dict[str, np.ndarray] = {}  # each (T, N, ...)
        self._successors: list[dict[str, np.ndarray]] = []  # "rows" (K,) and the successors' observations and states
        self._any_invalid = False

    def record(self, transition: Transition) -> None:
        """Write one row per copy.

        Raises RunError if the rollout is full: an update is overdue.
        """
        t = self.position
        if t >= self.length:
            raise RunError(f"the rollout of {self.length} timesteps is full; update before recording more")
        row = {
            **spaces.named(transition.observations, "observations"),
            **({} if transition.states is None else spaces.named(transition.states, "states")),
            "rewards": transition.rewards,
            "terminated": transition.terminated,
            "truncated": transition.truncated,
            "valid": True if transition.valid is None else transition.valid,
            **transition.outputs,
        }
        if not self._arrays:
            self._allocate(row)
        for key, array in self._arrays.items():
            array[t] = row[key]
        self._any_invalid |= transition.valid is not None
        last = t == self.length - 1
        self._keep_successors(
            t,
            np.ones(self.num_envs, bool) if last else transition.truncated,
            transition.next_observations,
            transition.next_states,
        )
        self.position += 1

    def clear(self) -> None:
        """Drop the rows of an unfinished rollout."""
        self.position = 0
        self._successors = []
        self._any_invalid = False

    def truncate(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Mark the last row of every copy as truncated with these successors (N, *O), unless its episode ended there."""
        t = self.position - 1
        if t < 0:
            return
        running = ~(self._arrays["terminated"][t] | self._arrays["truncated"][t])
        self._arrays["truncated"][t] |= running
        self._keep_successors(t, running, next_observations, next_states)

    def _keep_successors(self, t: int, copies: np.ndarray, observations: Arrays, states: Arrays) -> None:
        if copies.any():
            found = {
                **spaces.named(observations, "observations"),
                **({} if states is None else spaces.named(states, "states")),
            }
            rows = t * self.num_envs + np.flatnonzero(copies)
            self._successors.append({"rows": rows, **{key: np.array(array[copies]) for key, array in found.items()}})

    def _allocate(self, row: dict[str, Any]) -> None:
        row = {**row, "rewards": np.zeros(self.num_envs, np.float32), "valid": np.ones(self.num_envs, bool)}
        for key, values in row.items():
            values = np.asarray(values)
            self._arrays[key] = self._zeros((self.length, *values.shape), values.dtype)

    def _zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def take(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], bool]:
        """Return the rows (T, N, ...), the kept successors (K, ...) with their "rows", whether a row didn't happen; start anew.

        The arrays hold until the next row is written. Raises RunError if the rollout isn't full.
        """
        if self.position != self.length:
            raise RunError(f"an update is due, but the rollout has {self.position} of {self.length} timesteps")
        last = {key: np.concatenate([part[key] for part in self._successors]) for key in self._successors[0]}
        any_invalid = self._any_invalid
        self.clear()
        return dict(self._arrays), last, any_invalid

    def snapshot(self) -> dict[str, Any]:
        """Return the rows written so far."""
        rows = slice(0, self.position)
        return {
            "position": self.position,
            "arrays": {key: array[rows].copy() for key, array in self._arrays.items()} if self.position else {},
            "successors": [dict(part) for part in self._successors],
            "any_invalid": self._any_invalid,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put the rows back.

        Raises ValueError if they are of another number of copies, or more than fit.
        """
        position = int(snapshot["position"])
        if position > self.length or any(rows.shape[1] != self.num_envs for rows in snapshot["arrays"].values()):
            raise ValueError(f"the rollout there doesn't fit {self.length} timesteps of {self.num_envs} copies")
        self.position = position
        self._any_invalid = bool(snapshot["any_invalid"])
        self._successors = [{key: np.array(array) for key, array in part.items()} for part in snapshot["successors"]]
        self._arrays = {}
        for key, rows in snapshot["arrays"].items():
            self._arrays[key] = self._zeros((self.length, *rows.shape[1:]), rows.dtype)
            self._arrays[key][: self.position] = rows
