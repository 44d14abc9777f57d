"""Networks in PyTorch: encoder -> hidden layers -> outputs. Ordinary modules; `rltrain.models.base` says what all have.

Letters: B rows, O an observation as the network gets it, A the flat size of an action, F outputs, C critics.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rltrain.models.config import ActorCriticsConfig, NetworkConfig, QNetworkConfig
from rltrain.models.engines.torch import VJP, Autograd, Engine, engine_for

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0

ACTIVATIONS: dict[str, Callable] = {"tanh": torch.tanh} | {
    name: getattr(nn.functional, name) for name in ("relu", "elu", "silu", "gelu")
}
Encoder = Any  # a module that makes `size` features (B, size) of observations; None: they are rows of numbers already
AnyConfig = NetworkConfig | QNetworkConfig | ActorCriticsConfig


class Network(nn.Module):
    """A module that is read through engines, which are found when they are first asked for."""

    def __getstate__(self) -> dict[str, Any]:
        """Travel, and be copied, without engines, which read this network's own memory."""
        return {name: value for name, value in self.__dict__.items() if name not in ("engine", "engines")}


class MLP(Network):
    """A multi-layer perceptron: (B, inputs) -> (B, sum of outputs).

    `outputs` are (size, gain) of each part of the last layer. Orthogonal weights with gain sqrt(2) and these, zero biases
    (Andrychowicz et al. 2021, "What matters in on-policy reinforcement learning"); or all uniform within 1 / sqrt(inputs of
    the layer). Layer norm (Ba et al. 2016) stands between a hidden layer's sum and its activation.
    """

    def __init__(
        self, inputs: int, sizes: list[int], outputs: Sequence[tuple[int, float]], cfg: AnyConfig, generator: torch.Generator
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


class FeedForward(MLP):
    """An encoder and a perceptron: observations (B, *O), and actions (B, A) behind their features -> (B, F).

    The perceptron's parameters are its own, so that their names are those of a network without an encoder.
    """

    def __init__(
        self,
        inputs: int,
        sizes: list[int],
        outputs: Sequence[tuple[int, float]],
        cfg: AnyConfig,
        generator: torch.Generator,
        encoder: Encoder = None,
    ) -> None:
        super().__init__(inputs, sizes, outputs, cfg, generator)
        self.encoder: Encoder = encoder

    @functools.cached_property
    def engine(self) -> Engine:
        """What computes outputs and gradients where an algorithm asks."""
        return engine_for(self)

    def forward(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F)."""
        features = inputs if self.encoder is None else self.encoder(inputs)
        return super().forward(features if actions is None else torch.cat((features, actions), 1))

    def init_carry(self, num_envs: int) -> None:
        """Nothing is remembered from one row to the next."""

    def step(
        self, observations: Any, carry: None = None, *, actions: torch.Tensor | None = None, noise: Any = None
    ) -> tuple[torch.Tensor, None]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        return self.engine.infer(observations, actions), None

    def unroll(
        self,
        observations: Any,
        starts: torch.Tensor | None = None,
        carry: None = None,
        *,
        actions: torch.Tensor | None = None,
        noise: Any = None,
        learns: bool = False,
        keep: Any = "last",
    ) -> tuple[torch.Tensor, None, dict[str, torch.Tensor]]:
        """Return outputs (T, N, F) for T rows of N copies, carries, and new running statistics; differentiable."""
        first = next(iter(observations.values())) if isinstance(observations, dict) else observations
        shape = first.shape[:2]
        flat = lambda array: array.flatten(0, 1)  # noqa: E731
        rows = {key: flat(array) for key, array in observations.items()} if isinstance(observations, dict) else flat(observations)
        outputs = self(rows, None if actions is None else flat(actions))
        return outputs.view(*shape, -1), None, {}


class ActorCritic(Network):
    """A policy's and a value network, or one network with the outputs of both.

    `encoders` are the policy's (or the shared one) and the value network's.
    """

    def __init__(
        self,
        inputs: int,
        critic_inputs: int,
        outputs: int,
        cfg: NetworkConfig,
        generator: torch.Generator,
        device: torch.device,
        encoders: tuple[Encoder, Encoder] = (None, None),
    ) -> None:
        super().__init__()
        policy, value = (outputs, POLICY_GAIN), (1, VALUE_GAIN)
        first, second = encoders
        self.is_shared = cfg.shared
        if cfg.shared:
            self.shared = FeedForward(inputs, cfg.policy_sizes, (policy, value), cfg, generator, first)
        else:
            self.policy = FeedForward(inputs, cfg.policy_sizes, (policy,), cfg, generator, first)
            self.value = FeedForward(critic_inputs, cfg.value_sizes, (value,), cfg, generator, second)
        self.to(device)

    def forward(self, inputs: Any, critic_inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distribution's logits (B, F) and values (B,), differentiable."""
        if self.is_shared:
            return _split(self.shared(inputs))
        return self.policy(inputs), self.value(critic_inputs)[:, 0]

    @functools.cached_property
    def engines(self) -> tuple[Engine, Engine]:
        """What computes the policy's and the value network's outputs; one engine, where that is one network."""
        return (self.shared.engine, self.shared.engine) if self.is_shared else (self.policy.engine, self.value.engine)

    def logits(self, inputs: Any) -> torch.Tensor:
        """Return what the policy's distribution is made of, (B, F)."""
        outputs = self.engines[0].infer(inputs)
        return outputs[:, :-1] if self.is_shared else outputs

    def values(self, critic_inputs: Any) -> torch.Tensor:
        """Return values (B,)."""
        return self.engines[1].infer(critic_inputs)[:, -1]

    def logits_and_values(self, inputs: Any, critic_inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both, with one pass through a shared network."""
        if self.is_shared:
            return _split(self.engines[0].infer(inputs))
        return self.logits(inputs), self.values(critic_inputs)

    def logits_and_values_with_vjp(
        self, inputs: Any, critic_inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor, torch.Tensor], None]]:
        """Return both, and what takes a loss's gradients with respect to them and adds the parameters' to `grad`."""
        if self.is_shared:
            outputs, shared = self.engines[0].forward_and_vjp(inputs)
            return *_split(outputs), lambda *gradients: _join(shared, *gradients)
        logits, policy = self.engines[0].forward_and_vjp(inputs)
        outputs, value = self.engines[1].forward_and_vjp(critic_inputs)

        def vjp(logits_gradients: torch.Tensor, values_gradients: torch.Tensor) -> None:
            policy(logits_gradients)
            value(values_gradients[:, None])

        return logits, outputs[:, 0], vjp


def _split(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return outputs[:, :-1], outputs[:, -1]


def _join(vjp: VJP, logits_gradients: torch.Tensor, values_gradients: torch.Tensor) -> None:
    vjp(torch.cat((logits_gradients, values_gradients[:, None]), 1))


class QNetwork(Network):
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(
        self,
        inputs: int,
        choices: int,
        cfg: QNetworkConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
    ) -> None:
        super().__init__()
        outputs = [(choices, VALUE_GAIN)] + ([(1, VALUE_GAIN)] if cfg.dueling else [])
        self.dueling = cfg.dueling
        self.q = FeedForward(inputs, cfg.sizes, outputs, cfg, generator, encoder)
        self.to(device)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return Q of every choice, (B, choices), differentiable."""
        return self._join(self.q(inputs))

    @functools.cached_property
    def engine(self) -> Engine:
        """What computes the streams' outputs."""
        return self.q.engine

    def values(self, inputs: Any) -> torch.Tensor:
        """Return Q of every choice, (B, choices)."""
        outputs = self.engine.infer(inputs)
        return self._join(outputs) if self.dueling else outputs

    def values_with_vjp(self, inputs: Any) -> tuple[torch.Tensor, VJP]:
        """Return Q (B, choices), and what takes a loss's gradient with respect to it and adds the parameters' to `grad`."""
        outputs, vjp = self.engine.forward_and_vjp(inputs)
        if not self.dueling:
            return outputs, vjp
        return self._join(outputs), lambda gradients: vjp(_split_streams(gradients))

    def _join(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return Q = V + A - mean A (Wang et al. 2016, equation 9)."""
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdim=True)


def _split_streams(gradients: torch.Tensor) -> torch.Tensor:
    """Return the gradient with respect to the streams, for that with respect to Q."""
    return torch.cat((gradients - gradients.mean(1, keepdim=True), gradients.sum(1, keepdim=True)), 1)


class Policy(Network):
    """A policy's network."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        cfg: ActorCriticsConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
    ) -> None:
        super().__init__()
        self.policy = FeedForward(inputs, cfg.policy_sizes, [(outputs, POLICY_GAIN)], cfg, generator, encoder)
        self.to(device)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return what actions or their distribution are made of, (B, F), differentiable."""
        return self.policy(inputs)

    @functools.cached_property
    def engine(self) -> Engine:
        """What computes the outputs."""
        return self.policy.engine

    def logits(self, inputs: Any) -> torch.Tensor:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.engine.infer(inputs)

    def logits_with_vjp(self, inputs: Any) -> tuple[torch.Tensor, VJP]:
        """Return logits (B, F), and what takes a loss's gradient with respect to them and adds the parameters' to `grad`."""
        return self.engine.forward_and_vjp(inputs)


class Critics(Network):
    """C networks for the value of an action, or of every choice; an encoder, where there is one, is common to all."""

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        cfg: ActorCriticsConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
    ) -> None:
        super().__init__()
        self.count = count
        for i in range(count):
            self.add_module(f"critic_{i}", FeedForward(inputs, cfg.critic_sizes, [(outputs, VALUE_GAIN)], cfg, generator))
        self.critics = nn.ModuleDict({} if encoder is None else {"encoder": encoder})  # what they share
        self.to(device)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What makes features for all critics, or None."""
        return self.critics["encoder"] if len(self.critics) else None

    @property
    def networks(self) -> list[FeedForward]:
        """The critics."""
        return [getattr(self, f"critic_{i}") for i in range(self.count)]

    @functools.cached_property
    def engines(self) -> list[Engine]:
        """What computes each critic's outputs."""
        return [network.engine for network in self.networks]

    def forward(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return Q: actions (B, A) -> (C, B, 1); without actions, of every choice -> (C, B, choices); differentiable."""
        features = inputs if self.encoder is None else self.encoder(inputs)
        return torch.stack([network(features, actions) for network in self.networks])

    def values(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return Q: actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices)."""
        if self.encoder is None:
            outputs = torch.stack([engine.infer(inputs, actions) for engine in self.engines])
        else:
            outputs = Autograd(self).infer(inputs, actions)
        return outputs if actions is None else outputs[:, :, 0]

    def values_with_vjp(
        self, inputs: Any, actions: torch.Tensor | None = None, *, to_actions: bool = False, count: int | None = None
    ) -> tuple[torch.Tensor, VJP]:
        """Return `values`, and what takes a loss's gradient with respect to them, of their shape.

        That adds the parameters' gradients to their `grad`; with `to_actions` it returns the actions' (B, A) instead, for a
        policy to climb. Only the first `count` critics are asked, if given.
        """
        if self.encoder is None:
            pairs = [engine.forward_and_vjp(inputs, actions, to_actions=to_actions) for engine in self.engines[:count]]
            outputs = torch.stack([outputs for outputs, _ in pairs])
            back: VJP = functools.partial(_pull, [vjp for _, vjp in pairs])
        else:
            outputs, back = Autograd(self).forward_and_vjp(inputs, actions, to_actions=to_actions)
        if actions is None:
            return outputs, back
        return outputs[:count, :, 0], lambda gradients: back(self._fill(gradients)[:, :, None])

    def _fill(self, gradients: torch.Tensor) -> torch.Tensor:
        """Return gradients (C, B): zeros for critics that were not asked but computed, as with a common encoder."""
        missing = self.count - len(gradients)
        if not missing or self.encoder is None:
            return gradients
        return torch.cat((gradients, gradients.new_zeros(missing, gradients.shape[1])))


def _pull(vjps: Sequence[VJP], gradients: torch.Tensor) -> torch.Tensor | None:
    found = [vjp(own) for vjp, own in zip(vjps, gradients, strict=True)]
    return None if found[0] is None else functools.reduce(torch.add, found)  # type: ignore[arg-type]
