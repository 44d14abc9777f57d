"""Networks and policy heads in PyTorch, written as plain affine operations: modules and distributions cost more than the sums.

Shapes: B rows, O and A the flat sizes of observation and action. A policy's `heads` are its network's outputs (B, A).
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from rltrain.errors import ConfigError

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


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


class _Layers(torch.autograd.Function):
    """A perceptron as one node of the graph: with small layers, a node per operation costs as much as the arithmetic.

    `backward` adds to the parameters' `grad` in place and returns no gradient for them; `anchor` is any of the parameters, it
    only tells autograd that there is something to differentiate.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, mlp: "MLP") -> torch.Tensor:
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
    """A multi-layer perceptron: (B, inputs) -> (B, outputs).

    Orthogonal weights with gain sqrt(2), `output_gain` in the last layer; zero biases (Andrychowicz et al. 2021, "What
    matters in on-policy reinforcement learning").
    """

    def __init__(
        self, inputs: int, sizes: list[int], outputs: int, *, activation: str, output_gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [inputs, *sizes, outputs]
        self.activation = activation
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(n, m)) for m, n in itertools.pairwise(widths)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(n)) for n in widths[1:]])
        for i, weight in enumerate(self.weights):
            gain = output_gain if i == len(sizes) else math.sqrt(2)
            nn.init.orthogonal_(weight, gain, generator=generator)
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)

    @functools.cached_property
    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights and biases in order; walking a ParameterList costs as much as a product."""
        return list(zip(self.weights, self.biases, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last layer's outputs."""
        if torch.is_grad_enabled():
            return _Layers.apply(x, self.layers[0][0], self)
        activate = ACTIVATIONS[self.activation][0]
        for weight, bias in self.layers[:-1]:
            x = activate(nn.functional.linear(x, weight, bias))
        return nn.functional.linear(x, *self.layers[-1])


class Categorical:
    """A distribution over `n` choices, given by logits (B, n)."""

    def __init__(self, space: Any) -> None:
        self.size = int(space.n)
        self.start = int(space.start)
        self.parameters: dict[str, nn.Parameter] = {}
        self.action_shape: tuple[int, ...] = ()

    def sample(self, heads: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw choices (B,) by the Gumbel-max trick: argmax(logits - log E), E exponential."""
        noise = torch.empty_like(heads).exponential_(generator=generator)
        return (heads - noise.log_()).argmax(-1)

    def mode(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the likeliest choices (B,)."""
        return heads.argmax(-1)

    def log_prob(self, heads: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a), (B,)."""
        return torch.log_softmax(heads, -1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def log_prob_and_entropy(self, heads: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) and -sum p log p, each (B,)."""
        log_probs = torch.log_softmax(heads, -1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropy

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return choices as the environment counts them, from `space.start`."""
        return actions + self.start if self.start else actions


class Gaussian:
    """A diagonal Gaussian whose standard deviation doesn't depend on the observation; heads (B, A) are its means.

    A bounded dimension is acted on in units of half its range, so that one initial standard deviation fits every space:
    environment action = clip(middle + half range x sample); the density is the unclipped sample's.
    """

    def __init__(self, space: Any, initial_log_std: float, device: torch.device) -> None:
        self.size = int(np.prod(space.shape))
        self.action_shape = tuple(space.shape)
        self.environment_dtype = torch.float64 if space.dtype == np.float64 else torch.float32
        low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore", over="ignore"):
            middle, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        dtype = self.environment_dtype
        self.middle, self.half = (torch.as_tensor(array, dtype=torch.float32, device=device) for array in (middle, half))
        self.low, self.high = (torch.as_tensor(array, dtype=dtype, device=device) for array in (low, high))
        self.log_std = nn.Parameter(torch.full((self.size,), float(initial_log_std), device=device))
        self.parameters = {"log_std": self.log_std}

    def sample(self, heads: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw samples (B, A)."""
        noise = torch.empty_like(heads).normal_(generator=generator)
        return torch.addcmul(heads, noise, self.log_std.exp())

    def mode(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the means (B, A)."""
        return heads

    def log_prob(self, heads: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a) = -sum_i ((a_i - m_i)^2 / (2 s_i^2) + log s_i + log sqrt(2 pi)), (B,)."""
        z = (actions - heads) * torch.exp(-self.log_std)
        return -0.5 * (z * z).sum(-1) - (self.log_std.sum() + self.size * LOG_SQRT_2PI)

    def log_prob_and_entropy(self, heads: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) (B,) and the entropy sum_i (1/2 + log sqrt(2 pi) + log s_i), a scalar: it is the same in every row."""
        return self.log_prob(heads, actions), self.log_std.sum() + self.size * (0.5 + LOG_SQRT_2PI)

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions (B, *A) in the environment's units, inside its bounds."""
        scaled = torch.addcmul(self.middle, self.half, actions).to(self.environment_dtype)
        return torch.clamp(scaled, self.low, self.high).reshape(-1, *self.action_shape)


def make_head(space: Any, initial_log_std: float, device: torch.device) -> Categorical | Gaussian:
    """Return the policy head for an action space.

    Raises ConfigError for a space that no head serves.
    """
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(space)
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(space, initial_log_std, device)
    raise ConfigError("env.action_space", space, "this agent acts in Discrete and in Box spaces of floats")


class Observations:
    """Turns an environment's observations into network inputs: (B, *O) -> (B, O) float32; Discrete becomes one-hot."""

    def __init__(self, space: Any) -> None:
        import gymnasium

        self.space = space
        self.start = 0
        if isinstance(space, gymnasium.spaces.Discrete):
            self.size, self.start, self.one_hot = int(space.n), int(space.start), True
        elif isinstance(space, gymnasium.spaces.Box):
            self.size, self.one_hot = int(np.prod(space.shape)), False
        else:
            raise ConfigError("env.observation_space", space, "this agent reads Box and Discrete observations")

    def __call__(self, observations: torch.Tensor) -> torch.Tensor:
        """Return network inputs (B, O)."""
        if self.one_hot:
            return nn.functional.one_hot(observations.long() - self.start, self.size).float()
        if observations.dtype != torch.float32:
            observations = observations.float()
        return observations if observations.ndim == 2 else observations.reshape(-1, self.size)
