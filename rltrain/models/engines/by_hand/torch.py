"""Perceptrons and their gradients by hand in PyTorch: with small layers, autograd's graph costs as much as the arithmetic."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


def _tanh(z: torch.Tensor) -> torch.Tensor:
    """Return tanh(z), written over z. NumPy's is seven times as quick as torch's on a CPU."""
    if z.device.type == "cpu":
        array = z.numpy()
        np.tanh(array, out=array)
        return z
    return z.tanh_()


# name: (z -> h, may write over z; (gradient of h, z, h) -> gradient of z)
aten = torch.ops.aten
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (_tanh, lambda g, z, h: aten.tanh_backward(g, h)),
    "relu": (torch.relu_, lambda g, z, h: aten.threshold_backward(g, h, 0)),
    "elu": (nn.functional.elu, lambda g, z, h: aten.elu_backward(g, 1.0, 1.0, 1.0, False, z)),
    "silu": (nn.functional.silu, lambda g, z, h: aten.silu_backward(g, z)),
    "gelu": (nn.functional.gelu, lambda g, z, h: aten.gelu_backward(g, z)),
}
IN_NUMPY: dict[str, Callable] = {"tanh": np.tanh, "relu": functools.partial(np.maximum, np.float32(0))}
FEW_ROWS = 4  # up to which NumPy's products take less time than torch's


class ByHand:
    """The engine of a perceptron that reads rows of numbers: (B, inputs), with actions (B, A) behind them."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.activate, self.differentiate = ACTIVATIONS[network.activation]

    @functools.cached_property
    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights and biases in order: the parameters' memory, without autograd's bookkeeping."""
        return [(weight.detach(), bias.detach()) for weight, bias in self.parameters]

    @functools.cached_property
    def parameters(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Weights and biases in order; walking a ParameterList costs as much as a product."""
        return list(zip(self.network.weights, self.network.biases, strict=True))

    @functools.cached_property
    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same memory for NumPy, weights transposed."""
        return [(weight.numpy().T, bias.numpy()) for weight, bias in self.layers]

    def infer(self, inputs: torch.Tensor, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F)."""
        x = inputs if actions is None else torch.cat((inputs, actions), 1)
        if len(x) <= FEW_ROWS and x.device.type == "cpu" and self.network.activation in IN_NUMPY:
            return self._infer_few(x.numpy())
        for weight, bias in self.layers[:-1]:
            x = self.activate(nn.functional.linear(x, weight, bias))
        return nn.functional.linear(x, *self.layers[-1])

    def _infer_few(self, x: np.ndarray) -> torch.Tensor:
        activate = IN_NUMPY[self.network.activation]
        for weight, bias in self.arrays[:-1]:
            x = x.dot(weight)
            x += bias
            activate(x, out=x)
        weight, bias = self.arrays[-1]
        return torch.from_numpy(x.dot(weight) + bias)

    def forward_and_vjp(
        self, inputs: torch.Tensor, actions: torch.Tensor | None = None, *, to_actions: bool = False, to_inputs: bool = False
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor | None]]:
        """Return outputs (B, F), and what adds the parameters' gradients to their `grad` or returns the actions'.

        With `to_inputs` it adds the parameters' and returns the inputs'.
        """
        x = inputs if actions is None else torch.cat((inputs, actions), 1)
        kept = [x]  # the input, and of each hidden layer the sum and the activation
        for weight, bias in self.layers[:-1]:
            z = nn.functional.linear(x, weight, bias)
            x = self.activate(z)
            kept += [z, x]
        outputs = nn.functional.linear(x, *self.layers[-1])
        if to_actions:
            assert actions is not None
            return outputs, functools.partial(self._to_actions, kept, actions.shape[1])
        return outputs, functools.partial(self._to_parameters, kept, to_inputs=to_inputs)

    def _to_parameters(self, kept: Sequence[torch.Tensor], g: torch.Tensor, *, to_inputs: bool = False) -> torch.Tensor | None:
        """Add to the parameters' `grad` by the gradient `g` of the outputs; return the inputs', if asked."""
        for i in reversed(range(len(self.layers))):
            weight, bias = self.parameters[i]
            if weight.grad is None or bias.grad is None:
                weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
            _add_product(weight.grad, g, kept[2 * i])
            bias.grad.add_(g.sum(0))
            if i > 0:
                g = self.differentiate(g.mm(self.layers[i][0]), kept[2 * i - 1], kept[2 * i])
        return g.mm(self.layers[0][0]) if to_inputs else None

    def _to_actions(self, kept: Sequence[torch.Tensor], count: int, g: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the actions by that of the outputs."""
        for i in reversed(range(1, len(self.layers))):
            g = self.differentiate(g.mm(self.layers[i][0]), kept[2 * i - 1], kept[2 * i])
        return g.mm(self.layers[0][0])[:, -count:]


def _add_product(gradient: torch.Tensor, g: torch.Tensor, h: torch.Tensor) -> None:
    """Add g^T h to a weight's gradient. MKL is four times as quick when the narrow matrix comes first."""
    if g.shape[1] <= h.shape[1]:
        gradient.addmm_(g.t(), h)
    else:
        gradient.add_(h.t().mm(g).t())
