"""The seam between algorithms and what computes a network's outputs and gradients in PyTorch.

`forward` of every network is plain operations, for autograd, `torch.func`, `torch.export` and whatever else. Algorithms read
through an engine instead: `infer` where nothing is differentiated, `forward_and_vjp` where gradients with respect to the outputs
are known. An engine gives the same numbers as `forward` and autograd; the table in `engine_for` says which network has which, by
what it is and where it lives, never by measuring. Without the file of an engine, autograd does its work.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from rltrain.models.sequences import is_sequences
from rltrain.spaces import map_arrays
from rltrain.structures import count_rows

BLOCK = 1024  # rows of which an encoder makes features at once where nothing is learned: a rollout's would not fit
VJP = Callable[[torch.Tensor], torch.Tensor | None]


class Engine(Protocol):
    """Computes the outputs (B, F) of one network, and vector-Jacobian products."""

    def infer(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs, of which no gradient will be asked."""

    def forward_and_vjp(
        self, inputs: Any, actions: torch.Tensor | None = None, *, to_actions: bool = False
    ) -> tuple[torch.Tensor, VJP]:
        """Return outputs, and what takes a loss's gradient (B, F) with respect to them.

        That adds the parameters' gradients to their `grad`; with `to_actions` it leaves them alone and returns the actions'.
        """


class Autograd:
    """Any network, by the operations of its `forward`."""

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network

    def infer(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F)."""
        with torch.no_grad():
            if self.network.encoder is None or is_sequences(inputs) or (rows := count_rows(inputs)) <= BLOCK:
                return self.network(inputs, actions)
            parts = [slice(first, first + BLOCK) for first in range(0, rows, BLOCK)]
            return torch.cat(
                [
                    self.network(map_arrays(lambda array: array[part], inputs), None if actions is None else actions[part])  # noqa: B023
                    for part in parts
                ],
                -2,
            )

    def forward_and_vjp(
        self, inputs: Any, actions: torch.Tensor | None = None, *, to_actions: bool = False
    ) -> tuple[torch.Tensor, VJP]:
        """Return outputs (B, F) and their vector-Jacobian product."""
        with torch.enable_grad():
            if to_actions:
                assert actions is not None
                actions = actions.detach().requires_grad_()
            outputs = self.network(inputs, actions)

        def vjp(gradients: torch.Tensor) -> torch.Tensor | None:
            if to_actions:
                return torch.autograd.grad(outputs, actions, gradients)[0]  # type: ignore[arg-type]
            outputs.backward(gradients)
            return None

        return outputs.detach(), vjp


class Remembering(Autograd):
    """Any network with a cell, by the operations of its `forward` and `unroll`."""

    def step(self, inputs: Any, carry: Any, actions: torch.Tensor | None = None) -> tuple[torch.Tensor, Any]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        starts = torch.zeros(1, carry[0].shape[0], dtype=torch.bool, device=carry[0].device)
        of_time = lambda array: array[None]  # noqa: E731
        with torch.no_grad():
            own = None if actions is None else actions[None]
            outputs, carry, _ = self.network.unroll(map_arrays(of_time, inputs), starts, carry, actions=own)
        return outputs[0], carry

    def unroll(self, inputs: Any, starts: torch.Tensor, carry: Any, *, every: bool) -> tuple[torch.Tensor, Any]:
        """Return outputs (T, N, F) of T x N rows of which no gradient will be asked, and the carry at the end, or `every` one."""
        with torch.no_grad():
            outputs, carries, _ = self.network.unroll(_by_time(inputs, starts), starts, carry, keep="all" if every else "last")
        return outputs, carries

    def unroll_and_vjp(self, inputs: Any, starts: torch.Tensor, carry: Any) -> tuple[torch.Tensor, Any]:
        """Return outputs (T, N, F), and what takes a loss's gradient with respect to them and adds the parameters' to `grad`."""
        with torch.enable_grad():
            outputs, _, _ = self.network.unroll(_by_time(inputs, starts), starts, carry)
        return outputs.detach(), outputs.backward


def _by_time(inputs: Any, starts: torch.Tensor) -> Any:
    return map_arrays(lambda array: array.view(*starts.shape, *array.shape[1:]), inputs)


def sum_of(vjps: Sequence[VJP]) -> VJP:
    """Return what adds up what several networks' vector-Jacobian products give, each for its own gradient (C, ...)."""

    def vjp(gradients: torch.Tensor) -> torch.Tensor | None:
        each = [one(own) for one, own in zip(vjps, gradients, strict=True)]
        return None if each[0] is None else functools.reduce(torch.add, each)  # type: ignore[arg-type]

    return vjp


def engine_for(network: Any) -> Any:
    """Return the engine of a network: by hand for perceptrons that read rows of numbers, without layer norm; else autograd."""
    if network.cell is not None:
        return _remembering(network)
    if network.encoder is None and not network.normalizes:
        try:
            from rltrain.models.engines.by_hand.torch import ByHand
        except ImportError:
            return Autograd(network)
        return ByHand(network)
    return Autograd(network)


def _remembering(network: Any) -> Any:
    """Return the engine of a network with a cell: by hand on a CPU without layer norm, else autograd."""
    if network.weights[0].device.type == "cpu" and not network.normalizes:
        try:
            from rltrain.models.engines.remembering.torch import Remembering as ByHand
        except ImportError:
            return Remembering(network)
        return ByHand(network)
    return Remembering(network)
