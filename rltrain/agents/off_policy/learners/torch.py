"""What learns in PyTorch: a learner, a batch, what gradient steps report."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rltrain.optimizers.torch import Adam, FlatParameters

Diagnostics = dict[str, torch.Tensor]  # each (), by tag


@dataclass
class Batch:
    """Transitions, ready to learn from."""

    inputs: torch.Tensor  # (B, O) normalised
    next_inputs: torch.Tensor  # (B, O) normalised, k steps later
    actions: torch.Tensor  # (B, A), or (B,) choices
    returns: torch.Tensor  # (B,) sums of k rewards
    discounts: torch.Tensor  # (B,) gamma^k, 0 where the episode terminated
    weights: torch.Tensor | None  # (B,) importance weights, or None: all alike
    next_action_masks: torch.Tensor | None  # (B, M) bool, or None: all are allowed
    action_masks: torch.Tensor | None  # (B, M) bool, or None


class Learner:
    """A network that learns: its parameters, their optimiser and, where the algorithm has one, a target that follows them."""

    def __init__(self, network: Any, learning_rate: float, device: torch.device, *, has_target: bool = False) -> None:
        self.network = network
        target = copy.deepcopy(network) if has_target else None
        self.parameters = FlatParameters(dict(network.named_parameters()), device)
        self.optimizer = Adam(self.parameters, learning_rate)
        self.target: Any = target
        self.target_parameters = None if target is None else FlatParameters(dict(target.named_parameters()), device)

    def step(self, vjp: Callable[..., Any], gradients: Any, max_norm: float) -> torch.Tensor:
        """Take one step down a loss, given its gradients with respect to what `vjp` takes; return the gradient's norm."""
        self.parameters.clear_gradients()
        vjp(gradients)
        norm = self.parameters.clip_gradients(max_norm)
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target: target <- target + share (network - target)."""
        if self.target_parameters is not None:
            self.target_parameters.values.lerp_(self.parameters.values, share)
