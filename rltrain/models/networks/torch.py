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
IN_NUMPY: dict[str, Callable] = {"tanh": np.tanh, "relu": functools.partial(np.maximum, np.float32(0))}
FEW_ROWS = 4  # up to which NumPy's products take less time than torch's

PullBack = Callable[[torch.Tensor], Any]


class _Layers(torch.autograd.Function):
    """A perceptron as one node of the graph: with small layers, a node per operation costs as much as the arithmetic.

    `backward` adds to the parameters' `grad` in place and returns no gradient for them; `anchor` is any of the parameters, it
    only tells autograd that there is something to differentiate. Without it only the input's gradient is worked out.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor | None, mlp: "MLP") -> torch.Tensor:
        outputs, kept = mlp.run(x)
        ctx.save_for_backward(*kept)
        ctx.mlp = mlp
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_input, to_parameters, _ = ctx.needs_input_grad
        g = ctx.mlp.run_back(ctx.saved_tensors, gradients[0], to_parameters=to_parameters, to_input=to_input)
        return g, None, None


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
        self.normalizes = bool(hidden)  # to ask a ParameterList costs as much as a sum
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

    @functools.cached_property
    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same memory for NumPy, weights transposed."""
        return [(weight.detach().numpy().T, bias.detach().numpy()) for weight, bias in self.layers]

    def forward(self, x: torch.Tensor, *, learns: bool = True) -> torch.Tensor:
        """Return the last layer's outputs; unless it `learns`, gradients pass through and leave none at the parameters."""
        if self.normalizes:
            return self._forward_normalized(x, learns)
        if torch.is_grad_enabled():
            return _Layers.apply(x, self.layers[0][0] if learns else None, self)
        if len(x) <= FEW_ROWS and x.device.type == "cpu" and self.activation in IN_NUMPY:
            return self._forward_few(x.numpy())
        activate = ACTIVATIONS[self.activation][0]
        for weight, bias in self.layers[:-1]:
            x = activate(nn.functional.linear(x, weight, bias))
        return nn.functional.linear(x, *self.layers[-1])

    def forward_and_pull_back(self, x: torch.Tensor) -> tuple[torch.Tensor, PullBack]:
        """Return the outputs, and what adds the gradient by slopes with respect to them to the parameters' `grad`.

        It does without autograd's engine, which costs a small network as much as the products.
        """
        if self.normalizes:
            with torch.enable_grad():
                outputs = self._forward_normalized(x, learns=True)
            return outputs.detach(), outputs.backward
        outputs, kept = self.run(x)
        return outputs, functools.partial(self.run_back, kept)

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the outputs and what `run_back` needs: the input, and of each hidden layer the sum and the activation."""
        activate, kept = ACTIVATIONS[self.activation][0], [x]
        for weight, bias in self.layers[:-1]:
            z = nn.functional.linear(x, weight, bias)
            x = activate(z)
            kept += [z, x]
        return nn.functional.linear(x, *self.layers[-1]), kept

    def run_back(
        self, kept: Sequence[torch.Tensor], g: torch.Tensor, *, to_parameters: bool = True, to_input: bool = False
    ) -> torch.Tensor | None:
        """Add to the parameters' `grad` by the gradient `g` of the outputs; return that of the input, if it is asked for."""
        differentiate, layers = ACTIVATIONS[self.activation][1], self.layers
        for i in reversed(range(len(layers))):
            weight, bias = layers[i]
            if to_parameters:
                _add_product(weight, g, kept[2 * i])
                bias.grad.add_(g.sum(0))  # type: ignore[union-attr]
            if i > 0:
                g = differentiate(g.mm(weight), kept[2 * i - 1], kept[2 * i])
        return g.mm(layers[0][0]) if to_input else None

    def _forward_few(self, x: np.ndarray) -> torch.Tensor:
        activate = IN_NUMPY[self.activation]
        for weight, bias in self.arrays[:-1]:
            x = x.dot(weight)
            x += bias
            activate(x, out=x)
        weight, bias = self.arrays[-1]
        return torch.from_numpy(x.dot(weight) + bias)

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
        return _join_streams(outputs) if self.dueling else outputs

    def values_and_pull_back(self, inputs: torch.Tensor) -> tuple[torch.Tensor, PullBack]:
        """Return Q (B, choices), and what adds the gradient by slopes with respect to it to the parameters' `grad`."""
        outputs, pull_back = self.network.forward_and_pull_back(inputs)
        if not self.dueling:
            return outputs, pull_back
        return _join_streams(outputs), lambda slopes: pull_back(_split_slopes(slopes))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {f"q.{name}": parameter for name, parameter in self.network.named_parameters()}


def _join_streams(outputs: torch.Tensor) -> torch.Tensor:
    """Return Q = V + A - mean A (Wang et al. 2016, equation 9)."""
    advantages, value = outputs[:, :-1], outputs[:, -1:]
    return value + advantages - advantages.mean(1, keepdim=True)


def _split_slopes(slopes: torch.Tensor) -> torch.Tensor:
    """Return the slopes with respect to the streams, for slopes with respect to Q."""
    return torch.cat((slopes - slopes.mean(1, keepdim=True), slopes.sum(1, keepdim=True)), 1)


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

    def values_and_pull_back(self, inputs: torch.Tensor, actions: torch.Tensor | None = None) -> tuple[torch.Tensor, PullBack]:
        """Return `values`, and what adds the gradient by slopes of their shape to the parameters' `grad`."""
        rows = inputs if actions is None else torch.cat((inputs, actions), 1)
        outputs, pull_backs = zip(*(network.forward_and_pull_back(rows) for network in self.networks), strict=True)
        values = torch.stack(outputs)

        def pull_back(slopes: torch.Tensor) -> None:
            for pull, own in zip(pull_backs, slopes.view(values.shape), strict=True):
                pull(own)

        return (values if actions is None else values[:, :, 0]), pull_back

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
