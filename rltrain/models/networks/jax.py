"""Networks in JAX: encoder -> hidden layers -> outputs. Parameters are flat dicts by name, in the PyTorch twin's shapes.

Letters: B rows, T timesteps of N copies, O an observation as the network gets it, A the flat size of an action, F outputs,
C critics. `forward` can be differentiated as it is; `..._with_vjp` come with what takes a loss's gradient with respect to the
outputs and gives the parameters'. A network with a cell takes `Sequences` and `Successors` (`rltrain.models.sequences`) wherever
it takes rows.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rltrain.models.cells.jax import Carry, Cell
from rltrain.models.config import ActorCriticsConfig, AnyNetworkConfig, NetworkConfig, QNetworkConfig
from rltrain.models.engines.jax import forward_and_vjp, infer
from rltrain.models.layers.jax import MLP, perceive
from rltrain.models.sequences import Run, Sequences, Successors, map_rows, remembering_nothing
from rltrain.ops.trees.jax import part, prefixed
from rltrain.structures import Array

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0

Parameters = dict[str, Array]
Encoder = Any  # makes `size` features (B, size) of observations; None: they are rows of numbers already
VJP = Callable[[Array], Any]


class Network:
    """Parts with parameters; `acts_in_numpy` says whether outputs of NumPy arrays are computed in NumPy."""

    parts: Sequence[Any]
    acts_in_numpy: bool

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        keys = jax.random.split(key, len(self.parts)) if len(self.parts) > 1 else [key]
        return {name: value for own, each in zip(keys, self.parts, strict=True) for name, value in each.init(own).items()}


class FeedForward(Network):
    """An encoder, a cell that remembers, a perceptron, the first two where asked for: observations (B, *O) -> (B, F).

    Actions (B, A), `actions` of the `inputs`, go behind the features, and behind what is remembered. The perceptron's parameters
    are its own, so that their names are those of a network without the others.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        sizes: Sequence[int],
        outputs: Sequence[tuple[int, float]],
        cfg: AnyNetworkConfig,
        encoder: Encoder = None,
        *,
        actions: int = 0,
    ) -> None:
        remembers = cfg.cell != "none"
        self.name, self.cfg, self.encoder, self.acts_in_numpy = name, cfg, encoder, encoder is None
        self.mlp = MLP(cfg.cell_size + actions if remembers else inputs, tuple(sizes), tuple(outputs), cfg)
        self.cell: Any = None
        if remembers:
            self.cell = Cell(cfg.cell, inputs - actions, cfg.cell_size, cfg.cell_layers, cfg.initialization)

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        fresh = prefixed(self.name, self.mlp.init(key, jnp.zeros((1, self.mlp.inputs)))["params"])
        if self.encoder is not None:
            fresh |= prefixed(f"{self.name}.encoder", self.encoder.init(jax.random.fold_in(key, 1)))
        if self.cell is not None:
            fresh |= prefixed(f"{self.name}.cell", self.cell.init(jax.random.fold_in(key, 2)))
        return fresh

    def forward(self, parameters: Parameters, inputs: Any, actions: Array | None = None) -> Array:
        """Return outputs (B, F), of NumPy arrays without an encoder in NumPy; rows outside sequences are an episode's first."""
        own = part(parameters, self.name)
        features = self._encode(own, inputs) if self.cell is None else self._recall(own, inputs)
        return perceive(self.mlp, own, features if actions is None else jnp.concatenate((features, actions), 1))

    def _encode(self, own: Parameters, rows: Any) -> Array:
        return rows if self.encoder is None else self.encoder.forward(part(own, "encoder"), rows)

    def _recall(self, own: Parameters, inputs: Any) -> Array:
        """Return what the cell says about rows, or sequences of them, (B, H)."""
        flat = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
        if isinstance(inputs, Sequences):
            return flat(self._remember(own, inputs.rows, self._warm_up(own, inputs))[0])
        if not isinstance(inputs, Successors):
            features = self._encode(own, inputs)
            return self.cell.step(part(own, "cell"), features, self.cell.init_carry(len(features)))[0]
        _, carries = self._remember(own, inputs.sequences.rows, self._warm_up(own, inputs.sequences), every=True)
        known = tuple(flat(each)[inputs.after] for each in carries)
        return self.cell.step(part(own, "cell"), self._encode(own, inputs.inputs), known)[0]

    def _warm_up(self, own: Parameters, sequences: Sequences) -> Carry:
        """Return what is remembered before the rows to learn from."""
        carry, before = sequences.carry, sequences.before
        if carry is None:
            carry = self.cell.init_carry(sequences.rows.starts.shape[1])
        if len(before.starts) == 0:
            return carry
        return jax.lax.stop_gradient(self._remember(own, before, carry)[1])

    def _remember(self, own: Parameters, run: Run, carry: Any, *, every: bool = False) -> tuple[Array, Carry]:
        """Return what the cell says about each row, (T, N, H), and what it remembers after the last, or `every` one."""
        features = self._encode(own, jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), run.inputs))
        return self.cell.forward(part(own, "cell"), features.reshape(*run.starts.shape, -1), run.starts, carry, every=every)

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row: of a cell zeros, else nothing."""
        return None if self.cell is None else self.cell.init_carry(num_envs)

    def step(
        self,
        parameters: Parameters,
        observations: Any,
        carry: Carry | None = None,
        *,
        actions: Array | None = None,
        noise: Any = None,
    ) -> tuple[Array, Carry | None]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        if self.cell is None:
            return self.forward(parameters, observations, actions), None
        own = part(parameters, self.name)
        features, carry = self.cell.step(part(own, "cell"), self._encode(own, observations), carry)
        return perceive(self.mlp, own, features if actions is None else jnp.concatenate((features, actions), 1)), carry

    def unroll(
        self,
        parameters: Parameters,
        observations: Any,
        starts: Array | None = None,
        carry: Carry | None = None,
        *,
        actions: Array | None = None,
        noise: Any = None,
        learns: bool = False,
        keep: str = "last",
    ) -> tuple[Array, Carry | None, dict[str, Array]]:
        """Return outputs (T, N, F) for T rows of N copies, carries, and new running statistics.

        The carries are that after the last row, (N, layers, H), or to `keep` "all" those after each, (T, N, layers, H). The carry
        is zeroed before a row where `starts` (T, N) bool says that an episode begins there.
        """
        shape = jax.tree.leaves(observations)[0].shape[:2]
        flat = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
        if self.cell is None:
            rows = jax.tree.map(flat, observations)
            outputs = self.forward(parameters, rows, None if actions is None else flat(actions))
            return outputs.reshape(*shape, -1), None, {}
        own = part(parameters, self.name)
        remembered, carries = self._remember(own, Run(observations, starts), carry, every=keep == "all")
        features = flat(remembered if actions is None else jnp.concatenate((remembered, actions), -1))
        return perceive(self.mlp, own, features).reshape(*shape, -1), carries, {}


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
        self.parts = (self.shared,) if cfg.shared else (self.policy, self.value)
        self.acts_in_numpy = first is None

    def forward(self, parameters: Parameters, inputs: Any, critic_inputs: Any) -> tuple[Array, Array]:
        """Return what the policy's distribution is made of, (B, F), and values (B,)."""
        if not self.is_shared:
            return self.policy.forward(parameters, inputs), self.value.forward(parameters, critic_inputs)[:, -1]
        outputs = self.shared.forward(parameters, inputs)
        return outputs[:, :-1], outputs[:, -1]

    def logits(self, parameters: Parameters, inputs: Any) -> Array:
        """Return what the policy's distribution is made of, (B, F)."""
        outputs = infer(self.parts[0], parameters, inputs)
        return outputs[:, :-1] if self.is_shared else outputs

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what the policy remembers before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, parameters: Parameters, inputs: Any, carry: Carry | None) -> tuple[Array, Carry | None]:
        """Return `logits` (N, F) for one row of N copies, and what the policy remembers after it."""
        outputs, carry = self.parts[0].step(parameters, inputs, carry)
        return outputs[:, :-1] if self.is_shared else outputs, carry

    def values(self, parameters: Parameters, critic_inputs: Any) -> Array:
        """Return values (B,)."""
        return infer(self.parts[-1], parameters, critic_inputs)[:, -1]

    def logits_and_values_with_vjp(
        self, parameters: Parameters, inputs: Any, critic_inputs: Any
    ) -> tuple[Array, Array, Callable[[Array, Array], Parameters]]:
        """Return both with one pass through a shared network, and what takes a loss's gradients with respect to them."""
        (logits, values), vjp = forward_and_vjp(lambda own: self.forward(own, inputs, critic_inputs), parameters)
        return logits, values, lambda *gradients: vjp(gradients)

    def unroll_with_vjp(
        self, parameters: Parameters, inputs: Any, critic_inputs: Any, starts: Array, carries: tuple[Carry, ...]
    ) -> tuple[Array, Array, Callable[[Array, Array], Parameters]]:
        """Return logits (T, N, F) and values (T, N) of what remembers, and what takes a loss's gradients with respect to them.

        `carries` are those before the first row, of the policy's and the value network, or of the one that both share.
        """

        def unroll(own: Parameters) -> tuple[Array, Array]:
            rows = zip(self.parts, (inputs, critic_inputs), carries, strict=False)
            outputs = [part.unroll(own, x, starts, carry)[0] for part, x, carry in rows]
            return outputs[0][..., :-1] if self.is_shared else outputs[0], outputs[-1][..., -1]

        (logits, values), vjp = forward_and_vjp(unroll, parameters)
        return logits, values, lambda *gradients: vjp(gradients)


class QNetwork(Network):
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(self, inputs: int, choices: int, cfg: QNetworkConfig, encoder: Encoder = None) -> None:
        outputs = ((choices, VALUE_GAIN), *([(1, VALUE_GAIN)] if cfg.dueling else []))
        self.dueling = cfg.dueling
        self.q = FeedForward("q", inputs, cfg.sizes, outputs, cfg, encoder)
        self.parts, self.acts_in_numpy = (self.q,), encoder is None

    def forward(self, parameters: Parameters, inputs: Any) -> Array:
        """Return Q of every choice, (B, choices)."""
        return self._join(self.q.forward(parameters, inputs))

    def values(self, parameters: Parameters, inputs: Any) -> Array:
        """Return Q of every choice, (B, choices)."""
        return self.forward(parameters, inputs)

    logits = values  # of which the largest is the best choice's

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, parameters: Parameters, inputs: Any, carry: Carry | None) -> tuple[Array, Carry | None]:
        """Return Q (N, choices) for one row of N copies, and what is remembered after it."""
        outputs, carry = self.parts[0].step(parameters, inputs, carry)
        return self._join(outputs), carry

    def values_with_vjp(self, parameters: Parameters, inputs: Any) -> tuple[Array, VJP]:
        """Return Q (B, choices), and what takes a loss's gradient with respect to it."""
        return forward_and_vjp(lambda own: self.forward(own, inputs), parameters)

    def _join(self, outputs: Array) -> Array:
        """Return Q = V + A - mean A (Wang et al. 2016, equation 9)."""
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdims=True)


class Policy(Network):
    """A policy's network."""

    def __init__(self, inputs: int, outputs: int, cfg: ActorCriticsConfig, encoder: Encoder = None) -> None:
        self.policy = FeedForward("policy", inputs, cfg.policy_sizes, [(outputs, POLICY_GAIN)], cfg, encoder)
        self.parts, self.acts_in_numpy = (self.policy,), encoder is None

    def forward(self, parameters: Parameters, inputs: Any) -> Array:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.policy.forward(parameters, inputs)

    def logits(self, parameters: Parameters, inputs: Any) -> Array:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.forward(parameters, inputs)

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, parameters: Parameters, inputs: Any, carry: Carry | None) -> tuple[Array, Carry | None]:
        """Return `logits` (N, F) for one row of N copies, and what is remembered after it."""
        return self.parts[0].step(parameters, inputs, carry)

    def logits_with_vjp(self, parameters: Parameters, inputs: Any) -> tuple[Array, VJP]:
        """Return logits (B, F), and what takes a loss's gradient with respect to them."""
        return forward_and_vjp(lambda own: self.forward(own, inputs), parameters)


class Critics(Network):
    """C networks for the value of an action, or of every choice; an encoder, where there is one, is common to all.

    Of the `inputs`, `actions` are the action's. What each remembers is its own: of sequences it begins with nothing, or `before`.
    """

    def __init__(
        self, count: int, inputs: int, outputs: int, cfg: ActorCriticsConfig, encoder: Encoder = None, *, actions: int = 0
    ) -> None:
        last, sizes = [(outputs, VALUE_GAIN)], cfg.critic_sizes
        self.networks = [FeedForward(f"critic_{i}", inputs, sizes, last, cfg, actions=actions) for i in range(count)]
        self.parts, self.acts_in_numpy = self.networks, encoder is None
        self.encoder = encoder

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        fresh = super().init(key)
        return (
            fresh if self.encoder is None else fresh | prefixed("critics.encoder", self.encoder.init(jax.random.fold_in(key, 1)))
        )

    def forward(self, parameters: Parameters, inputs: Any, actions: Array | None = None, *, count: int | None = None) -> Array:
        """Return Q: actions (B, A) -> (C, B, 1); without actions, of every choice -> (C, B, choices).

        Only the first `count` critics are asked, if given.
        """
        features = remembering_nothing(inputs)
        if self.encoder is not None:
            encode = functools.partial(self.encoder.forward, part(parameters, "critics.encoder"))
            features = map_rows(encode, features)
        return jnp.stack([network.forward(parameters, features, actions) for network in self.networks[:count]])

    def values(self, parameters: Parameters, inputs: Any, actions: Array | None = None, *, count: int | None = None) -> Array:
        """Return Q: actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices)."""
        outputs = self.forward(parameters, inputs, actions, count=count)
        return outputs if actions is None else outputs[:, :, 0]

    def values_with_vjp(
        self,
        parameters: Parameters,
        inputs: Any,
        actions: Array | None = None,
        *,
        to_actions: bool = False,
        count: int | None = None,
    ) -> tuple[Array, VJP]:
        """Return `values`, and what takes a loss's gradient with respect to them, of their shape.

        With `to_actions` that gives the actions' gradient (B, A) instead of the parameters', for a policy to climb.
        """
        if to_actions:
            return forward_and_vjp(lambda own: self.values(parameters, inputs, own, count=count), actions)
        return forward_and_vjp(lambda own: self.values(own, inputs, actions, count=count), parameters)
