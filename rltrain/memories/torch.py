"""Memories in PyTorch."""

from typing import Any, NamedTuple

import numpy as np
import torch

from rltrain.errors import RunError
from rltrain.structures import Transition


class Rollout(NamedTuple):
    """A full rollout on the device; T timesteps of N copies."""

    observations: torch.Tensor  # (T, N, *O)
    rewards: torch.Tensor  # (T, N)
    terminated: torch.Tensor  # (T, N) bool
    truncated: torch.Tensor  # (T, N) bool
    valid: torch.Tensor | None  # (T, N) bool, or None if every row happened
    outputs: dict[str, torch.Tensor]  # each (T, N, ...)
    last_observations: torch.Tensor  # (K, *O), true successors whose value the returns need
    last_rows: torch.Tensor  # (K,) index t * N + n of the rows they follow


class RolloutMemory:
    """T consecutive timesteps of N copies, written once, read once.

    Rows are staged in host arrays: writing a row there costs a tenth of indexing a tensor, and the device gets the whole
    rollout in one transfer. A successor is the next row's observation, so only those that aren't (a truncated episode's last,
    the rollout's last) are kept.
    """

    def __init__(self, length: int, num_envs: int, device: torch.device) -> None:
        self.length, self.num_envs, self.device = length, num_envs, device
        self.position = 0
        self._arrays: dict[str, np.ndarray] = {}
        self._successors: list[tuple[np.ndarray, np.ndarray]] = []  # rows, observations
        self._any_invalid = False

    def record(self, transition: Transition) -> None:
        """Write one row per copy.

        Raises RunError if the rollout is full: an update is overdue.
        """
        t = self.position
        if t >= self.length:
            raise RunError(f"the rollout of {self.length} timesteps is full; update before recording more")
        if not self._arrays:
            self._allocate(transition)
        arrays = self._arrays
        arrays["observations"][t] = transition.observations
        arrays["rewards"][t] = transition.rewards
        arrays["terminated"][t] = transition.terminated
        arrays["truncated"][t] = transition.truncated
        for key, value in transition.outputs.items():
            arrays[key][t] = value
        arrays["valid"][t] = True if transition.valid is None else transition.valid
        self._any_invalid |= transition.valid is not None
        last = t == self.length - 1
        self._keep_successors(t, np.ones(self.num_envs, bool) if last else transition.truncated, transition.next_observations)
        self.position += 1

    def clear(self) -> None:
        """Drop the rows of an unfinished rollout."""
        self.position = 0
        self._successors = []
        self._any_invalid = False

    def truncate(self, next_observations: np.ndarray) -> None:
        """Mark the last row of every copy as truncated with these successors (N, *O), unless its episode ended there."""
        t = self.position - 1
        if t < 0:
            return
        running = ~(self._arrays["terminated"][t] | self._arrays["truncated"][t])
        self._arrays["truncated"][t] |= running
        self._keep_successors(t, running, next_observations)

    def _keep_successors(self, t: int, copies: np.ndarray, observations: np.ndarray) -> None:
        if copies.any():
            self._successors.append((t * self.num_envs + np.flatnonzero(copies), np.array(observations[copies])))

    def _allocate(self, transition: Transition) -> None:
        rows = {
            "observations": transition.observations,
            "rewards": np.zeros(self.num_envs, np.float32),
            "terminated": transition.terminated,
            "truncated": transition.truncated,
            "valid": np.ones(self.num_envs, bool),
            **transition.outputs,
        }
        for key, row in rows.items():
            pinned = self.device.type == "cuda"
            row = np.asarray(row)
            tensor = torch.zeros((self.length, *row.shape), dtype=torch.from_numpy(row[:0].copy()).dtype, pin_memory=pinned)
            self._arrays[key] = tensor.numpy()

    def read(self) -> Rollout:
        """Return the full rollout on the device and start the next one; the tensors hold until its first row is written.

        Raises RunError if the rollout isn't full.
        """
        if self.position != self.length:
            raise RunError(f"an update is due, but the rollout has {self.position} of {self.length} timesteps")
        tensors = {key: torch.from_numpy(array).to(self.device, non_blocking=True) for key, array in self._arrays.items()}
        rows, observations = (np.concatenate(parts) for parts in zip(*self._successors, strict=True))
        valid = tensors.pop("valid")
        rollout = Rollout(
            observations=tensors.pop("observations"),
            rewards=tensors.pop("rewards"),
            terminated=tensors.pop("terminated"),
            truncated=tensors.pop("truncated"),
            valid=valid if self._any_invalid else None,
            outputs=tensors,
            last_observations=torch.from_numpy(observations).to(self.device),
            last_rows=torch.from_numpy(rows).to(self.device),
        )
        self.clear()
        return rollout

    def snapshot(self) -> dict[str, Any]:
        """Return the rows written so far."""
        rows = slice(0, self.position)
        successors = [{"rows": rows_, "observations": observations} for rows_, observations in self._successors]
        return {
            "position": self.position,
            "arrays": {key: array[rows].copy() for key, array in self._arrays.items()} if self.position else {},
            "successors": successors,
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
        self._successors = [(np.array(s["rows"]), np.array(s["observations"])) for s in snapshot["successors"]]
        self._arrays = {}
        for key, rows in snapshot["arrays"].items():
            self._arrays[key] = np.zeros((self.length, *rows.shape[1:]), rows.dtype)
            self._arrays[key][: self.position] = rows
