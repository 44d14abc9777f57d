"""What learns in PyTorch: networks with their optimiser and, where the algorithm has one, a target that follows them."""

import copy
from typing import Any

import numpy as np
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

    def step(self, learning_rate: float, max_norm: float) -> torch.Tensor:
        """Take one step down the gradient that the parameters have; return the gradient's norm."""
        norm = self.parameters.clip_gradients(max_norm)
        self.optimizer.learning_rate = learning_rate
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target: target <- target + share (network - target)."""
        if self.target_parameters is not None:
            self.target_parameters.values.lerp_(self.parameters.values, share)

    def snapshot(self) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, np.ndarray] | None]:
        """Return parameters, optimiser and target, if there is one, as they are kept."""
        target = None if self.target_parameters is None else self.target_parameters.snapshot()
        return self.parameters.snapshot(), self.optimizer.snapshot(), target

    def restore(self, parameters: dict[str, np.ndarray], optimizer: Any, target: Any) -> None:
        """Put these back; where there is no optimiser, only the parameters, with a target that is a copy.

        Raises ValueError if they don't fit.
        """
        self.parameters.restore(parameters)
        if self.target_parameters is not None:
            self.target_parameters.restore(parameters if target is None else target)
        if optimizer is not None:
            self.optimizer.restore(optimizer)
