"""Encoders of one's own as PyTorch modules: good ones, and one for each mistake."""

from typing import Any

import torch
from torch import nn


class Rows(nn.Module):
    """Features of one Box of numbers."""

    def __init__(self, space: Any, size: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(space.shape[0], size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (B, size)."""
        return torch.tanh(self.first(x))


class Pixels(nn.Module):
    """Features of one image, (B, height, width, channels) of bytes."""

    def __init__(self, space: Any, channels: int = 8, size: int = 16) -> None:
        super().__init__()
        height, width, depth = space.shape
        self.convolution = nn.Conv2d(depth, channels, 3)
        self.last = nn.Linear(channels * (height - 2) * (width - 2), size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (B, size)."""
        x = torch.relu(self.convolution(x.permute(0, 3, 1, 2).float() / 255))
        return torch.relu(self.last(x.flatten(1)))


class Both(nn.Module):
    """Features of a dict with an image and a vector."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.pixels, self.rows = Pixels(space["picture"]), Rows(space["place"])

    def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return features (B, 21)."""
        return torch.cat((self.pixels(x["picture"]), self.rows(x["place"])), 1)


# -- mistakes ------------------------------------------------------------------------------------------------------------------


class WrongShape(Rows):
    """Gives a sequence for each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, size)."""
        return super().forward(x)[:, None]


class Squeezes(Rows):
    """Loses the rows' dimension where there is one row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, size), of one row (size,)."""
        return super().forward(x).squeeze(0)


class Integers(Rows):
    """Gives integers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, size) integers."""
        return super().forward(x).long()


class Normalizes(Rows):
    """Keeps running statistics."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, size)."""
        return self.norm(super().forward(x))


class Stumbles(Rows):
    """Fails on observations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raise."""
        raise RuntimeError("shapes don't fit")


class Unmade(nn.Module):
    """Can't be made."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        raise KeyError("picture")


def number(space: Any) -> int:
    """Return what is no module."""
    return 3
