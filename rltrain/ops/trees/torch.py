"""Moments as they are kept, in PyTorch."""

import numpy as np
import torch

from rltrain.ops import normalizers


def to_arrays(moments: normalizers.Moments) -> dict[str, np.ndarray]:
    """Return moments by name, as they are kept."""
    return {name: array.cpu().numpy().copy() for name, array in moments._asdict().items()}


def to_moments(arrays: dict[str, np.ndarray], device: torch.device) -> normalizers.Moments:
    """Return moments as they were."""
    return normalizers.Moments(**{name: torch.as_tensor(np.array(array), device=device) for name, array in arrays.items()})
