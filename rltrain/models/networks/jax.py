"""Networks in JAX. Parameters are flat dicts by name, in the shapes that the PyTorch twin has."""

import itertools
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rltrain.models.config import ActorCriticsConfig, NetworkConfig, QNetworkConfig
from rltrain.structures import Array

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0
LAYER_NORM_EPSILON = 1e-5

Parameters = dict[str, Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "silu": nn.silu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


class MLP(nn.Module):
    """A multi-layer perceptron: (B, inputs) -> (B, sum of outputs).

    `outputs` are (size, gain) of each part of the last layer. Orthogonal weights with gain sqrt(2) and these, zero biases
    (Andrychowicz et al. 2021, "What matters in on-policy reinforcement learning"); or all uniform within 1 / sqrt(inputs of
    the layer). Layer norm (Ba et al. 2016) stands between a hidden layer's sum and its activation.
    """

    inputs: int
    sizes: Sequence[int]
    outputs: Sequence[tuple[int, float]]
    cfg: NetworkConfig | QNetworkConfig | ActorCriticsConfig

    def setup(self) -> None:
        """Declare the parameters."""
        widths = [self.inputs, *self.sizes, sum(size for size, _ in self.outputs)]
        weights, biases = [], []
        for i, (m, n) in enumerate(itertools.pairwise(widths)):
            blocks = [(n, math.sqrt(2))] if i < len(self.sizes) else self.outputs
            weights.append(self.param(f"weights.{i}", _weights, n, m, blocks, self.cfg.initialization))
            biases.append(self.param(f"biases.{i}", _biases, n, m, self.cfg.initialization))
        self.layers = list(zip(weights, biases, strict=True))
        hidden = self.sizes if self.cfg.layer_norm else []
        self.scales = [self.param(f"scales.{i}", nn.initializers.ones, (n,)) for i, n in enumerate(hidden)]
        self.shifts = [self.param(f"shifts.{i}", nn.initializers.zeros, (n,)) for i, n in enumerate(hidden)]

    def __call__(self, x: Array) -> Array:
        """Return the last layer's outputs.

        Computed with a column per row: on a CPU XLA takes a fifth less time for such products and their gradients.
        """
        activate = ACTIVATIONS[self.cfg.activation]
        x = x.T
        for i, (weight, bias) in enumerate(self.layers[:-1]):
            x = weight @ x + bias[:, None]
            if self.scales:
                x = jax.lax.optimization_barrier(_layer_norm(jnp, _by_row(x)) * self.scales[i] + self.shifts[i]).T
            x = activate(x)
        weight, bias = self.layers[-1]
        return _by_row(weight @ x + bias[:, None])


def _by_row(columns: Array) -> Array:
    """Return a product (n, B) as rows (B, n), computed before what is made of them.

    On a CPU XLA puts a product and the reduction of each of its columns (log softmax, maximum, layer norm) into one loop over
    parts of the columns, and beyond 32,768 of them computes the product anew for every part: 65,536 took a second, not a
    hundredth. The barrier has it lay out rows, over which it makes no such loop.
    """
    return jax.lax.optimization_barrier(columns.T)


def _weights(key: Array, n: int, m: int, blocks: Sequence[tuple[int, float]], initialization: str) -> Array:
    if initialization == "orthogonal":
        keys = jax.random.split(key, len(blocks))
        parts = [nn.initializers.orthogonal(gain)(k, (m, size)).T for k, (size, gain) in zip(keys, blocks, strict=True)]
        return jnp.concatenate(parts)
    return jax.random.uniform(key, (n, m), minval=-(m**-0.5), maxval=m**-0.5)


def _biases(key: Array, n: int, m: int, initialization: str) -> Array:
    if initialization == "orthogonal":
        return jnp.zeros(n)
    return jax.random.uniform(key, (n,), minval=-(m**-0.5), maxval=m**-0.5)


def _layer_norm(xp: ModuleType, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / xp.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)


class ActorCritic:
    """A policy's and a value network, or one network with the outputs of both."""

    def __init__(self, inputs: int, critic_inputs: int, outputs: int, cfg: NetworkConfig) -> None:
        policy, value = (outputs, POLICY_GAIN), (1, VALUE_GAIN)
        self.cfg, self.shared = cfg, cfg.shared
        sizes = tuple(cfg.policy_sizes)
        if cfg.shared:
            self.networks = {"shared": MLP(inputs, sizes, (policy, value), cfg)}
        else:
            self.networks = {
                "policy": MLP(inputs, sizes, (policy,), cfg),
                "value": MLP(critic_inputs, tuple(cfg.value_sizes), (value,), cfg),
            }

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        parameters: Parameters = {}
        for k, (name, network) in zip(jax.random.split(key, len(self.networks)), self.networks.items(), strict=True):
            parameters |= _init(network, name, k)
        return parameters

    def _apply(self, name: str, parameters: Parameters, inputs: Array) -> Array:
        own = {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}
        if isinstance(inputs, np.ndarray):
            return _forward_in_numpy(own, inputs, self.cfg)
        own.pop("log_std", None)
        return self.networks[name].apply({"params": own}, inputs)

    def heads(self, parameters: Parameters, inputs: Array) -> Array:
        """Return what the policy's distribution is made of: (B, inputs) -> (B, outputs)."""
        if self.shared:
            return self._apply("shared", parameters, inputs)[:, :-1]
        return self._apply("policy", parameters, inputs)

    def values(self, parameters: Parameters, critic_inputs: Array) -> Array:
        """Return values: (B, critic inputs) -> (B,)."""
        return self._apply("shared" if self.shared else "value", parameters, critic_inputs)[:, -1]

    def heads_and_values(self, parameters: Parameters, inputs: Array, critic_inputs: Array) -> tuple[Array, Array]:
        """Return both, with one pass through a shared network."""
        if not self.shared:
            return self.heads(parameters, inputs), self.values(parameters, critic_inputs)
        outputs = self._apply("shared", parameters, inputs)
        return outputs[:, :-1], outputs[:, -1]


class QNetwork:
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(self, inputs: int, choices: int, cfg: QNetworkConfig) -> None:
        outputs = ((choices, VALUE_GAIN), *([(1, VALUE_GAIN)] if cfg.dueling else []))
        self.dueling = cfg.dueling
        self.network = MLP(inputs, tuple(cfg.sizes), outputs, cfg)

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return _init(self.network, "q", key)

    def values(self, parameters: Parameters, inputs: Array) -> Array:
        """Return Q of every choice: (B, inputs) -> (B, choices)."""
        outputs = _forward(self.network, "q", parameters, inputs)
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdims=True)


class Policy:
    """A policy's network."""

    def __init__(self, inputs: int, outputs: int, cfg: ActorCriticsConfig) -> None:
        self.network = MLP(inputs, tuple(cfg.policy_sizes), ((outputs, POLICY_GAIN),), cfg)

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return _init(self.network, "policy", key)

    def heads(self, parameters: Parameters, inputs: Array) -> Array:
        """Return what actions or their distribution are made of: (B, inputs) -> (B, outputs)."""
        return _forward(self.network, "policy", parameters, inputs)


class Critics:
    """C networks for the value of an action, or of every choice."""

    def __init__(self, count: int, inputs: int, outputs: int, cfg: ActorCriticsConfig) -> None:
        self.networks = [MLP(inputs, tuple(cfg.critic_sizes), ((outputs, VALUE_GAIN),), cfg) for _ in range(count)]

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        parameters: Parameters = {}
        for i, (k, network) in enumerate(zip(jax.random.split(key, len(self.networks)), self.networks, strict=True)):
            parameters |= _init(network, f"critic_{i}", k)
        return parameters

    def values(self, parameters: Parameters, inputs: Array, actions: Array | None = None) -> Array:
        """Return Q: (B, inputs) and actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices)."""
        rows = inputs if actions is None else jnp.concatenate((inputs, actions), 1)
        found = [_forward(network, f"critic_{i}", parameters, rows) for i, network in enumerate(self.networks)]
        return jnp.stack(found if actions is None else [values[:, 0] for values in found])

    def first(self, parameters: Parameters, inputs: Array, actions: Array) -> Array:
        """Return the first critic's Q (B,), which a policy climbs."""
        return _forward(self.networks[0], "critic_0", parameters, jnp.concatenate((inputs, actions), 1))[:, 0]


def _init(network: MLP, name: str, key: Array) -> Parameters:
    fresh = network.init(key, jnp.zeros((1, network.inputs)))["params"]
    return {f"{name}.{parameter_name}": parameter for parameter_name, parameter in fresh.items()}


def _forward(network: MLP, name: str, parameters: Parameters, inputs: Array) -> Array:
    own = {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}
    if isinstance(inputs, np.ndarray):
        return _forward_in_numpy(own, inputs, network.cfg)
    return network.apply({"params": own}, inputs)


def _forward_in_numpy(
    parameters: Parameters, x: np.ndarray, cfg: NetworkConfig | QNetworkConfig | ActorCriticsConfig
) -> np.ndarray:
    """Return what `MLP` does, on NumPy arrays: for a few rows an eighth of the time of a compiled call."""
    last = sum(name.startswith("weights.") for name in parameters) - 1
    for i in range(last):
        x = x @ parameters[f"weights.{i}"].T + parameters[f"biases.{i}"]
        if cfg.layer_norm:
            x = _layer_norm(np, x) * parameters[f"scales.{i}"] + parameters[f"shifts.{i}"]
        x = _activate_in_numpy(cfg.activation, x)
    return x @ parameters[f"weights.{last}"].T + parameters[f"biases.{last}"]


def _activate_in_numpy(name: str, x: np.ndarray) -> np.ndarray:
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0)
    if name == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if name == "silu":
        return x / (1 + np.exp(-x))
    return np.asarray(ACTIVATIONS[name](x))
