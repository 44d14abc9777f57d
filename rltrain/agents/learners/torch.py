"""What learns in PyTorch: networks with their optimiser and, where the algorithm has one, a target that follows them."""

import copy
from typing import Any

import torch
from torch import nn

from rltrain.optimizers.torch import Adam, FlatParameters, RMSProp


class Learner:
    """A network that learns: its parameters, their optimiser and, with `has_target`, a target that follows them.

    `more` are parameters by name that learn along. The names of the network's own begin with `prefix`.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        device: torch.device,
        *,
        optimizer: type[Adam] | type[RMSProp] = Adam,
        epsilon: float = 1e-8,
        has_target: bool = False,
        prefix: str = "",
        more: dict[str, nn.Parameter] | None = None,
    ) -> None:
        self.network: Any = network
        target = copy.deepcopy(network) if has_target else None
        named = {f"{prefix}{name}": parameter for name, parameter in network.named_parameters()}
        self.parameters = FlatParameters({**named, **(more or {})}, device)
        self.optimizer = optimizer(self.parameters, learning_rate, epsilon=epsilon)
        self.target: Any = target
        self.target_parameters = None if target is None else FlatParameters(dict(target.named_parameters()), device)

    def step(self, max_norm: float) -> torch.Tensor:
        """Take one step down the gradient that the parameters have; return the gradient's norm."""
        norm = self.parameters.clip_gradients(max_norm)
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target: target <- target + share (network - target)."""
        if self.target_parameters is not None:
            self.target_parameters.values.lerp_(self.parameters.values, share)
