"""Networks in JAX: encoder -> hidden layers -> outputs. Parameters are flat dicts by name, in the PyTorch twin's shapes.

Letters: B rows, O an observation as the network gets it, A the flat size of an action, F outputs, C critics.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rltrain.models.config import ActorCriticsConfig, NetworkConfig, QNetworkConfig
from rltrain.models.engines import in_numpy
from rltrain.structures import Array

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0
LAYER_NORM_EPSILON = 1e-5
BLOCK = 1024  # rows of which an encoder makes features at once where nothing is learned: a rollout's would not fit
MLP_PARAMETERS = ("weights", "biases", "scales", "shifts")

Parameters = dict[str, Array]
Encoder = Any  # makes `size` features (B, size) of observations; None: they are rows of numbers already
AnyConfig = NetworkConfig | QNetworkConfig | ActorCriticsConfig

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
    cfg: AnyConfig

    def setup(self) -> None:
        """Declare the parameters."""
        widths = [self.inputs, *self.sizes, sum(size for size, _ in self.outputs)]
        weights, biases = [], []
        for i, (m, n) in enumerate(itertools.pairwise(widths)):
            blocks = [(n, math.sqrt(2))] if i < len(self.sizes) else self.outputs
            weights.append(self.param(f"weights.{i}", _weights, (n, m), blocks, self.cfg.initialization))
            biases.append(self.param(f"biases.{i}", _biases, (n, m), self.cfg.initialization))
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
                x = jax.lax.optimization_barrier(_layer_norm(_by_row(x)) * self.scales[i] + self.shifts[i]).T
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


def fill(key: Array, shape: tuple[int, ...], blocks: Sequence[tuple[int, float]], initialization: str) -> tuple[Array, Array]:
    """Return a fresh layer's weight (n, ...) and bias (n,); `blocks` are (rows, gain) of an orthogonal one's parts."""
    return _weights(key, shape, blocks, initialization), _biases(jax.random.fold_in(key, 1), shape, initialization)


def _weights(key: Array, shape: tuple[int, ...], blocks: Sequence[tuple[int, float]], initialization: str) -> Array:
    m = math.prod(shape[1:])
    if initialization == "orthogonal":
        keys = jax.random.split(key, len(blocks))
        parts = [nn.initializers.orthogonal(gain)(k, (m, size)).T for k, (size, gain) in zip(keys, blocks, strict=True)]
        return jnp.concatenate(parts).reshape(shape)
    return jax.random.uniform(key, shape, minval=-(m**-0.5), maxval=m**-0.5)


def _biases(key: Array, shape: tuple[int, ...], initialization: str) -> Array:
    n, m = shape[0], math.prod(shape[1:])
    if initialization == "orthogonal":
        return jnp.zeros(n)
    return jax.random.uniform(key, (n,), minval=-(m**-0.5), maxval=m**-0.5)


def _layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)


class FeedForward:
    """An encoder and a perceptron: observations (B, *O), and actions (B, A) behind their features -> (B, F).

    The perceptron's parameters are its own, so that their names are those of a network without an encoder.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        sizes: Sequence[int],
        outputs: Sequence[tuple[int, float]],
        cfg: AnyConfig,
        encoder: Encoder = None,
    ) -> None:
        self.name, self.cfg, self.encoder = name, cfg, encoder
        self.mlp = MLP(inputs, tuple(sizes), tuple(outputs), cfg)

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        fresh = self.mlp.init(key, jnp.zeros((1, self.mlp.inputs)))["params"]
        return _named(self.name, fresh) | init_encoder(self.encoder, f"{self.name}.encoder", key)

    def forward(self, parameters: Parameters, inputs: Any, actions: Array | None = None) -> Array:
        """Return outputs (B, F); of NumPy arrays, where there is no encoder, in NumPy."""
        own = part(parameters, self.name)
        features = inputs if self.encoder is None else self.encoder.forward(part(own, "encoder"), inputs)
        mlp = {name: array for name, array in own.items() if name.partition(".")[0] in MLP_PARAMETERS}
        if isinstance(features, np.ndarray):
            return in_numpy.forward(mlp, features, self.cfg.activation, ACTIVATIONS[self.cfg.activation])
        rows = features if actions is None else jnp.concatenate((features, actions), 1)
        return self.mlp.apply({"params": mlp}, rows)

    @property
    def acts_in_numpy(self) -> bool:
        """Whether outputs of NumPy arrays are computed in NumPy."""
        return self.encoder is None

    def init_carry(self, num_envs: int) -> None:
        """Nothing is remembered from one row to the next."""

    def step(
        self, parameters: Parameters, observations: Any, carry: None = None, *, actions: Array | None = None, noise: Any = None
    ) -> tuple[Array, None]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        return self.forward(parameters, observations, actions), None

    def unroll(
        self,
        parameters: Parameters,
        observations: Any,
        starts: Array | None = None,
        carry: None = None,
        *,
        actions: Array | None = None,
        noise: Any = None,
        learns: bool = False,
        keep: Any = "last",
    ) -> tuple[Array, None, dict[str, Array]]:
        """Return outputs (T, N, F) for T rows of N copies, carries, and new running statistics."""
        shape = jax.tree.leaves(observations)[0].shape[:2]
        flat = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
        outputs = self.forward(parameters, jax.tree.map(flat, observations), None if actions is None else flat(actions))
        return outputs.reshape(*shape, -1), None, {}


def in_blocks(network: FeedForward, parameters: Parameters, inputs: Any) -> Array:
    """Return outputs (B, F) of which no gradient will be asked; an encoder makes features of BLOCK rows at a time."""
    rows = jax.tree.leaves(inputs)[0].shape[0]
    whole = rows // BLOCK * BLOCK
    if network.encoder is None or whole == 0 or rows == BLOCK:
        return network.forward(parameters, inputs)
    blocks = jax.tree.map(lambda array: array[:whole].reshape(-1, BLOCK, *array.shape[1:]), inputs)
    outputs = jax.lax.map(lambda block: network.forward(parameters, block), blocks)
    outputs = outputs.reshape(whole, -1)
    if whole == rows:
        return outputs
    rest = jax.tree.map(lambda array: array[whole:], inputs)
    return jnp.concatenate((outputs, network.forward(parameters, rest)))


def part(parameters: Parameters, name: str) -> Parameters:
    """Return the parameters of one part of a network, by their names in it."""
    return {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}


def init_encoder(encoder: Encoder, name: str, key: Array) -> Parameters:
    """Return fresh parameters of an encoder by name, none if there is none."""
    return {} if encoder is None else _named(name, encoder.init(jax.random.fold_in(key, 1)))


def _named(name: str, parameters: Parameters) -> Parameters:
    return {f"{name}.{key}": value for key, value in parameters.items()}


class ActorCritic:
    """A policy's and a value network, or one network with the outputs of both.

    `encoders` are the policy's (or the shared one) and the value network's.
    """

    def __init__(
        self,
        inputs: int,
        critic_inputs: int,
        outputs: int,
        cfg: NetworkConfig,
        encoders: tuple[Encoder, Encoder] = (None, None),
    ) -> None:
        policy, value = (outputs, POLICY_GAIN), (1, VALUE_GAIN)
        first, second = encoders
        self.is_shared = cfg.shared
        if cfg.shared:
            self.shared = FeedForward("shared", inputs, cfg.policy_sizes, (policy, value), cfg, first)
        else:
            self.policy = FeedForward("policy", inputs, cfg.policy_sizes, (policy,), cfg, first)
            self.value = FeedForward("value", critic_inputs, cfg.value_sizes, (value,), cfg, second)
        self.networks = [self.shared] if cfg.shared else [self.policy, self.value]
        self.acts_in_numpy = first is None

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return _init_all(self.networks, key)

    def logits(self, parameters: Parameters, inputs: Any) -> Array:
        """Return what the policy's distribution is made of, (B, F)."""
        if self.is_shared:
            return in_blocks(self.shared, parameters, inputs)[:, :-1]
        return in_blocks(self.policy, parameters, inputs)

    def values(self, parameters: Parameters, critic_inputs: Any) -> Array:
        """Return values (B,)."""
        return in_blocks(self.shared if self.is_shared else self.value, parameters, critic_inputs)[:, -1]

    def forward(self, parameters: Parameters, inputs: Any, critic_inputs: Any) -> tuple[Array, Array]:
        """Return both, with one pass through a shared network."""
        if not self.is_shared:
            return self.policy.forward(parameters, inputs), self.value.forward(parameters, critic_inputs)[:, -1]
        outputs = self.shared.forward(parameters, inputs)
        return outputs[:, :-1], outputs[:, -1]


class QNetwork:
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(self, inputs: int, choices: int, cfg: QNetworkConfig, encoder: Encoder = None) -> None:
        outputs = ((choices, VALUE_GAIN), *([(1, VALUE_GAIN)] if cfg.dueling else []))
        self.dueling = cfg.dueling
        self.q = FeedForward("q", inputs, cfg.sizes, outputs, cfg, encoder)
        self.acts_in_numpy = encoder is None

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return self.q.init(key)

    def values(self, parameters: Parameters, inputs: Any) -> Array:
        """Return Q of every choice, (B, choices)."""
        return self._join(self.q.forward(parameters, inputs))

    def _join(self, outputs: Array) -> Array:
        """Return Q = V + A - mean A (Wang et al. 2016, equation 9)."""
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdims=True)


class Policy:
    """A policy's network."""

    def __init__(self, inputs: int, outputs: int, cfg: ActorCriticsConfig, encoder: Encoder = None) -> None:
        self.policy = FeedForward("policy", inputs, cfg.policy_sizes, [(outputs, POLICY_GAIN)], cfg, encoder)
        self.acts_in_numpy = encoder is None

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return self.policy.init(key)

    def logits(self, parameters: Parameters, inputs: Any) -> Array:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.policy.forward(parameters, inputs)


class Critics:
    """C networks for the value of an action, or of every choice; an encoder, where there is one, is common to all."""

    def __init__(self, count: int, inputs: int, outputs: int, cfg: ActorCriticsConfig, encoder: Encoder = None) -> None:
        self.networks = [FeedForward(f"critic_{i}", inputs, cfg.critic_sizes, [(outputs, VALUE_GAIN)], cfg) for i in range(count)]
        self.encoder = encoder

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        return _init_all(self.networks, key) | init_encoder(self.encoder, "critics.encoder", key)

    def values(self, parameters: Parameters, inputs: Any, actions: Array | None = None, *, count: int | None = None) -> Array:
        """Return Q: actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices).

        Only the first `count` critics are asked, if given.
        """
        features = inputs
        if self.encoder is not None:
            features = self.encoder.forward(part(parameters, "critics.encoder"), inputs)
        outputs = [network.forward(parameters, features, actions) for network in self.networks[:count]]
        return jnp.stack(outputs if actions is None else [values[:, 0] for values in outputs])


def _init_all(networks: Sequence[FeedForward], key: Array) -> Parameters:
    keys = jax.random.split(key, len(networks))
    return {name: value for k, network in zip(keys, networks, strict=True) for name, value in network.init(k).items()}
