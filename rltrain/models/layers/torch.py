"""Perceptrons in PyTorch, and how fresh parameters are drawn."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from rltrain.models.config import AnyNetworkConfig

ACTIVATIONS: dict[str, Callable] = {"tanh": torch.tanh} | {
    name: getattr(nn.functional, name) for name in ("relu", "elu", "silu", "gelu")
}


class MLP(nn.Module):
    """A multi-layer perceptron: (B, inputs) -> (B, sum of outputs).

    `outputs` are (size, gain) of each part of the last layer. Orthogonal weights with gain sqrt(2) and these, zero biases
    (Andrychowicz et al. 2021, "What matters in on-policy reinforcement learning"); or all uniform within 1 / sqrt(inputs of
    the layer). Layer norm (Ba et al. 2016) stands between a hidden layer's sum and its activation.
    """

    def __init__(
        self,
        inputs: int,
        sizes: list[int],
        outputs: Sequence[tuple[int, float]],
        cfg: AnyNetworkConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [inputs, *sizes, sum(size for size, _ in outputs)]
        self.activation = cfg.activation
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(n, m)) for m, n in itertools.pairwise(widths)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(n)) for n in widths[1:]])
        hidden = sizes if cfg.layer_norm else []
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(n)) for n in hidden])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(n)) for n in hidden])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            blocks = [(len(weight), math.sqrt(2))] if weight is not self.weights[-1] else outputs
            fill(weight, bias, blocks, cfg.initialization, generator)

    @property
    def normalizes(self) -> bool:
        """Whether there is a layer norm."""
        return len(self.scales) > 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last layer's outputs."""
        activate, last, normalizes = ACTIVATIONS[self.activation], len(self.weights) - 1, self.normalizes
        for i in range(last):
            x = nn.functional.linear(x, self.weights[i], self.biases[i])
            if normalizes:
                x = nn.functional.layer_norm(x, x.shape[1:], self.scales[i], self.shifts[i])
            x = activate(x)
        return nn.functional.linear(x, self.weights[last], self.biases[last])


def fill(
    weight: torch.Tensor, bias: torch.Tensor, blocks: Sequence[tuple[int, float]], initialization: str, generator: torch.Generator
) -> None:
    """Fill a layer's weight (n, ...) and bias (n,); `blocks` are (rows, gain) of an orthogonal one's parts."""
    if initialization == "orthogonal":
        for block, (_, gain) in zip(weight.data.split([size for size, _ in blocks]), blocks, strict=True):
            nn.init.orthogonal_(block, gain, generator=generator)
        return
    bound = math.prod(weight.shape[1:]) ** -0.5
    weight.data.uniform_(-bound, bound, generator=generator)
    bias.data.uniform_(-bound, bound, generator=generator)
