"""Rollouts in PyTorch."""

from typing import Any, NamedTuple

import numpy as np
import torch

from rltrain import spaces
from rltrain.memories.rollout.staged import StagedRollout
from rltrain.structures import Arrays


class Rollout(NamedTuple):
    """A full rollout on the device; T timesteps of N copies. Composite observations and states are dicts of tensors."""

    observations: Arrays  # (T, N, *O)
    states: Arrays  # (T, N, *S) or None
    rewards: torch.Tensor  # (T, N)
    terminated: torch.Tensor  # (T, N) bool
    truncated: torch.Tensor  # (T, N) bool
    valid: torch.Tensor | None  # (T, N) bool, or None if every row happened
    outputs: dict[str, torch.Tensor]  # each (T, N, ...)
    last_observations: Arrays  # (K, *O), true successors whose value the returns need
    last_states: Arrays  # (K, *S) or None
    last_rows: torch.Tensor  # (K,) index t * N + n of the rows they follow


class RolloutMemory(StagedRollout):
    """A staged rollout that is read as tensors."""

    def __init__(self, length: int, num_envs: int, device: torch.device) -> None:
        super().__init__(length, num_envs)
        self.device = device

    def _zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if self.device.type != "cuda":
            return np.zeros(shape, dtype)
        return torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, pin_memory=True).numpy()

    def read(self) -> Rollout:
        """Return the full rollout on the device and start the next one; the tensors hold until its first row is written.

        Raises RunError if the rollout isn't full.
        """
        arrays, successors, any_invalid = self.take()
        tensors = {key: torch.from_numpy(array).to(self.device, non_blocking=True) for key, array in arrays.items()}
        last = {key: torch.from_numpy(array).to(self.device) for key, array in successors.items()}
        valid = tensors.pop("valid")
        return Rollout(
            observations=spaces.unnamed(tensors, "observations"),
            states=spaces.unnamed(tensors, "states"),
            rewards=tensors.pop("rewards"),
            terminated=tensors.pop("terminated"),
            truncated=tensors.pop("truncated"),
            valid=valid if any_invalid else None,
            outputs=tensors,
            last_observations=spaces.unnamed(last, "observations"),
            last_states=spaces.unnamed(last, "states"),
            last_rows=last["rows"],
        )
