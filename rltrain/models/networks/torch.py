"""Networks in PyTorch, written as plain affine operations: modules cost more than the sums."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rltrain.models.config import ActorCriticsConfig, NetworkConfig, QNetworkConfig

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0


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
    "elu": (torch.nn.functional.elu, lambda g, z, h: aten.elu_backward(g, 1.0, 1.0, 1.0, False, z)),
    "silu": (torch.nn.functional.silu, lambda g, z, h: aten.silu_backward(g, z)),
    "gelu": (torch.nn.functional.gelu, lambda g, z, h: aten.gelu_backward(g, z)),
}
DIFFERENTIABLE: dict[str, Callable] = {"tanh": torch.tanh} | {
    name: getattr(nn.functional, name) for name in ("relu", "elu", "silu", "gelu")
}


class _Layers(torch.autograd.Function):
    """A perceptron as one node of the graph: with small layers, a node per operation costs as much as the arithmetic.

    `backward` adds to the parameters' `grad` in place and returns no gradient for them; `anchor` is any of the parameters, it
    only tells autograd that there is something to differentiate. Without it only the input's gradient is worked out.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor | None, mlp: "MLP") -> torch.Tensor:
        activate, layers = ACTIVATIONS[mlp.activation][0], mlp.layers
        kept, h = [x], x
        for weight, bias in layers[:-1]:
            z = nn.functional.linear(h, weight, bias)
            h = activate(z)
            kept += [z, h]
        ctx.save_for_backward(*kept)
        ctx.mlp = mlp
        return nn.functional.linear(h, *layers[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, layers = ctx.saved_tensors, ctx.mlp.layers
        differentiate = ACTIVATIONS[ctx.mlp.activation][1]
        g = gradients[0]
        for i in reversed(range(len(layers))):
            weight, bias = layers[i]
            if ctx.needs_input_grad[1]:
                _add_product(weight, g, kept[2 * i])
                bias.grad.add_(g.sum(0))
            if i > 0:
                g = differentiate(g.mm(weight), kept[2 * i - 1], kept[2 * i])
        return (g.mm(layers[0][0]) if ctx.needs_input_grad[0] else None), None, None


def _add_product(weight: torch.Tensor, g: torch.Tensor, h: torch.Tensor) -> None:
    """Add g^T h to the weight's gradient. MKL is four times as quick when the narrow matrix comes first."""
    assert weight.grad is not None
    if g.shape[1] <= h.shape[1]:
        weight.grad.addmm_(g.t(), h)
    else:
        weight.grad.add_(h.t().mm(g).t())


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
        cfg: NetworkConfig | QNetworkConfig | ActorCriticsConfig,
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
            if cfg.initialization == "orthogonal":
                for block, (_, gain) in zip(weight.data.split([size for size, _ in blocks]), blocks, strict=True):
                    nn.init.orthogonal_(block, gain, generator=generator)
            else:
                bound = weight.shape[1] ** -0.5
                weight.data.uniform_(-bound, bound, generator=generator)
                bias.data.uniform_(-bound, bound, generator=generator)
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)

    @functools.cached_property
    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights and biases in order; walking a ParameterList costs as much as a product."""
        return list(zip(self.weights, self.biases, strict=True))

    def forward(self, x: torch.Tensor, *, learns: bool = True) -> torch.Tensor:
        """Return the last layer's outputs; unless it `learns`, gradients pass through and leave none at the parameters."""
        if len(self.scales):
            return self._forward_normalized(x, learns)
        if torch.is_grad_enabled():
            return _Layers.apply(x, self.layers[0][0] if learns else None, self)
        activate = ACTIVATIONS[self.activation][0]
        for weight, bias in self.layers[:-1]:
            x = activate(nn.functional.linear(x, weight, bias))
        return nn.functional.linear(x, *self.layers[-1])

    def _forward_normalized(self, x: torch.Tensor, learns: bool) -> torch.Tensor:
        activate = DIFFERENTIABLE[self.activation]
        layers = [
            (*layer, *norm) for layer, norm in zip(self.layers[:-1], zip(self.scales, self.shifts, strict=True), strict=True)
        ]
        last = self.layers[-1]
        if not learns:
            layers, last = [tuple(p.detach() for p in layer) for layer in layers], tuple(p.detach() for p in last)  # type: ignore[assignment,misc]
        for weight, bias, scale, shift in layers:
            z = nn.functional.linear(x, weight, bias)
            x = activate(nn.functional.layer_norm(z, z.shape[1:], scale, shift))
        return nn.functional.linear(x, *last)


class ActorCritic:
    """A policy's and a value network, or one network with the outputs of both."""

    def __init__(
        self, inputs: int, critic_inputs: int, outputs: int, cfg: NetworkConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        policy, value = (outputs, POLICY_GAIN), (1, VALUE_GAIN)
        self.shared = cfg.shared
        if cfg.shared:
            self.networks = {"shared": MLP(inputs, cfg.policy_sizes, (policy, value), cfg, generator).to(device)}
        else:
            self.networks = {
                "policy": MLP(inputs, cfg.policy_sizes, (policy,), cfg, generator).to(device),
                "value": MLP(critic_inputs, cfg.value_sizes, (value,), cfg, generator).to(device),
            }

    def heads(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the policy's distribution is made of: (B, inputs) -> (B, outputs)."""
        if self.shared:
            return self.networks["shared"].forward(inputs)[:, :-1]
        return self.networks["policy"].forward(inputs)

    def values(self, critic_inputs: torch.Tensor) -> torch.Tensor:
        """Return values: (B, critic inputs) -> (B,)."""
        return self.networks["shared" if self.shared else "value"].forward(critic_inputs)[:, -1]

    def heads_and_values(self, inputs: torch.Tensor, critic_inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both, with one pass through a shared network."""
        if not self.shared:
            return self.heads(inputs), self.values(critic_inputs)
        outputs = self.networks["shared"].forward(inputs)
        return outputs[:, :-1], outputs[:, -1]

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {
            f"{name}.{parameter_name}": parameter
            for name, network in self.networks.items()
            for parameter_name, parameter in network.named_parameters()
        }


class QNetwork:
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(self, inputs: int, choices: int, cfg: QNetworkConfig, generator: torch.Generator, device: torch.device) -> None:
        outputs = [(choices, VALUE_GAIN)] + ([(1, VALUE_GAIN)] if cfg.dueling else [])
        self.dueling = cfg.dueling
        self.network = MLP(inputs, cfg.sizes, outputs, cfg, generator).to(device)

    def values(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return Q of every choice: (B, inputs) -> (B, choices)."""
        outputs = self.network.forward(inputs)
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdim=True)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {f"q.{name}": parameter for name, parameter in self.network.named_parameters()}


class Policy:
    """A policy's network."""

    def __init__(
        self, inputs: int, outputs: int, cfg: ActorCriticsConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        self.network = MLP(inputs, cfg.policy_sizes, [(outputs, POLICY_GAIN)], cfg, generator).to(device)

    def heads(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what actions or their distribution are made of: (B, inputs) -> (B, outputs)."""
        return self.network.forward(inputs)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {f"policy.{name}": parameter for name, parameter in self.network.named_parameters()}


class Critics:
    """C networks for the value of an action, or of every choice."""

    def __init__(
        self, count: int, inputs: int, outputs: int, cfg: ActorCriticsConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        self.networks = [MLP(inputs, cfg.critic_sizes, [(outputs, VALUE_GAIN)], cfg, generator).to(device) for _ in range(count)]

    def values(self, inputs: torch.Tensor, actions: torch.Tensor | None = None, *, learns: bool = True) -> torch.Tensor:
        """Return Q: (B, inputs) and actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices).

        Unless they learn, gradients pass through to the actions and leave none at the parameters.
        """
        if actions is None:
            return torch.stack([network.forward(inputs, learns=learns) for network in self.networks])
        rows = torch.cat((inputs, actions), 1)
        return torch.stack([network.forward(rows, learns=learns)[:, 0] for network in self.networks])

    def first(self, inputs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the first critic's Q (B,), which a policy climbs: gradients pass through to the actions."""
        return self.networks[0].forward(torch.cat((inputs, actions), 1), learns=False)[:, 0]

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {
            f"critic_{i}.{name}": parameter
            for i, network in enumerate(self.networks)
            for name, parameter in network.named_parameters()
        }
