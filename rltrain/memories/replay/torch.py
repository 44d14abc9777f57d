"""Replay memories in PyTorch."""

from typing import Any

import numpy as np
import torch

from rltrain import spaces
from rltrain.memories.replay.host import Replay, Sample


class ReplayMemory(Replay):
    """A replay memory that is read as tensors."""

    def __init__(self, size: int, num_envs: int, seed: int, device: torch.device, **how: Any) -> None:
        super().__init__(size, num_envs, seed, **how)
        self.device = device

    def sample(self, batch_size: int, importance_exponent: float) -> Sample:
        """Return transitions on the device; see `draw`."""
        sample = self.draw(batch_size, importance_exponent)
        return sample._replace(
            observations=spaces.map_arrays(self._move, sample.observations),
            next_observations=spaces.map_arrays(self._move, sample.next_observations),
            returns=self._move(sample.returns),
            discounts=self._move(sample.discounts),
            outputs={name: self._move(array) for name, array in sample.outputs.items()},
            weights=None if sample.weights is None else self._move(sample.weights),
            **({} if self.window is None else self._move_windows(sample)),
        )

    def _move_windows(self, sample: Sample) -> dict[str, Any]:
        return {
            "carry": None if sample.carry is None else tuple(self._move(part) for part in sample.carry),
            "last": self._move(sample.last),
            "last_actions": self._move(sample.last_actions),
            "happened": None if sample.happened is None else self._move(sample.happened),
        }

    def _move(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(self.device, non_blocking=True) if self.device.type != "cpu" else tensor
