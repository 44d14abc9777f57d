"""Recurrent cells in JAX: features of T timesteps of N copies in, what is remembered of them out.

Letters: T timesteps, N copies, I inputs, H the size of a cell, G its gates. A carry is a tuple of arrays (N, layers, H).
What acting needs works on NumPy arrays too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain.models.layers.jax import fill, sigmoid
from rltrain.ops.trees.jax import Parameters, xp_of
from rltrain.structures import Array

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

Carry = tuple[Array, ...]


class Cell:
    """Layers of a plain cell (Elman 1990), GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997), as in torch.nn.

    rnn: h' = tanh(W x + b + U h + c).
    gru: r, z = sigmoid(...) of the same sums; n = tanh(W x + b + r (U h + c)); h' = n + z (h - n).
    lstm: i, f, o = sigmoid(...), g = tanh(...); m' = f m + i g; h' = o tanh(m').
    """

    def __init__(self, kind: str, inputs: int, size: int, layers: int, initialization: str) -> None:
        self.kind, self.size, self.gates, self.layers = kind, size, GATES[kind], layers
        self.widths, self.initialization = [inputs] + [size] * (layers - 1), initialization

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        parameters: Parameters = {}
        rows, blocks = self.gates * self.size, [(self.size, 1.0)] * self.gates
        keys = jax.random.split(key, 2 * self.layers)
        for kind, widths, own in (
            ("", self.widths, keys[: self.layers]),
            ("hidden_", [self.size] * self.layers, keys[self.layers :]),
        ):
            for i, width in enumerate(widths):
                weight, bias = fill(own[i], (rows, width), blocks, self.initialization)
                parameters |= {f"{kind}weights.{i}": weight, f"{kind}biases.{i}": bias}
        return parameters

    def init_carry(self, num_envs: int) -> Carry:
        """Return what is remembered at first: nothing."""
        return tuple(np.zeros((num_envs, self.layers, self.size), np.float32) for _ in range(2 if self.kind == "lstm" else 1))

    def step(self, parameters: Parameters, x: Array, carry: Carry) -> tuple[Array, Carry]:
        """Return outputs (N, H) for inputs (N, I), and the carry after them."""
        after = []
        for i in range(self.layers):
            sums = x @ parameters[f"weights.{i}"].T + parameters[f"biases.{i}"]
            state = self._turn(parameters, sums, tuple(part[:, i] for part in carry), i)
            after.append(state)
            x = state[0]
        return x, tuple(xp_of(x).stack(parts, 1) for parts in zip(*after, strict=True))

    def forward(
        self, parameters: Parameters, x: Array, starts: Array, carry: Carry, *, every: bool = False
    ) -> tuple[Array, Carry]:
        """Return outputs (T, N, H) for inputs (T, N, I), and the carry after the last timestep, or `every` one (T, N, layers, H).

        The carry is zeroed before a timestep where `starts` (T, N) bool says that an episode begins there.
        """
        goes_on = (~starts).astype(jnp.float32)[..., None]  # (T, N, 1)
        after = []
        for i in range(self.layers):
            sums = x @ parameters[f"weights.{i}"].T + parameters[f"biases.{i}"]  # of all timesteps at once

            def turn(state: Carry, row: tuple[Array, Array], i: int = i) -> tuple[Carry, Carry]:
                own, kept = row
                state = self._turn(parameters, own, tuple(part * kept for part in state), i)
                return state, state

            last, states = jax.lax.scan(turn, tuple(jnp.asarray(part[:, i]) for part in carry), (sums, goes_on))
            x = states[0]
            after.append(states if every else last)
        return x, tuple(jnp.stack(parts, -2) for parts in zip(*after, strict=True))

    def _turn(self, parameters: Parameters, sums: Array, state: Any, layer: int) -> Carry:
        """Return the state (h,) or (h, m) after inputs whose part of the sums (N, G H) is given."""
        h, xp = state[0], xp_of(sums)
        hidden = h @ parameters[f"hidden_weights.{layer}"].T + parameters[f"hidden_biases.{layer}"]
        if self.kind == "rnn":
            return (xp.tanh(sums + hidden),)
        if self.kind == "gru":
            reset, keep, new = xp.split(sums, 3, 1)
            hidden_reset, hidden_keep, hidden_new = xp.split(hidden, 3, 1)
            new = xp.tanh(new + sigmoid(reset + hidden_reset) * hidden_new)
            return (new + sigmoid(keep + hidden_keep) * (h - new),)
        enter, forget, new, out = xp.split(sums + hidden, 4, 1)
        memory = sigmoid(forget) * state[1] + sigmoid(enter) * xp.tanh(new)
        return sigmoid(out) * xp.tanh(memory), memory
