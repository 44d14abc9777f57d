"""Recurrent cells in PyTorch: features of T timesteps of N copies in, what is remembered of them out.

Letters: T timesteps, N copies, I inputs, H the size of a cell, G its gates. A carry is a tuple of arrays (N, layers, H).
"""

from typing import Any

import torch
from torch import nn

from rltrain.models.layers.torch import fill

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

Carry = tuple[torch.Tensor, ...]


class Cell(nn.Module):
    """Layers of a plain cell (Elman 1990), GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997), as in torch.nn.

    rnn: h' = tanh(W x + b + U h + c).
    gru: r, z = sigmoid(...) of the same sums; n = tanh(W x + b + r (U h + c)); h' = n + z (h - n).
    lstm: i, f, o = sigmoid(...), g = tanh(...); m' = f m + i g; h' = o tanh(m').
    """

    def __init__(self, kind: str, inputs: int, size: int, layers: int, initialization: str, generator: torch.Generator) -> None:
        super().__init__()
        self.kind, self.size, self.gates, self.layers = kind, size, GATES[kind], layers
        rows, blocks = self.gates * size, [(size, 1.0)] * self.gates
        widths = [inputs] + [size] * (layers - 1)
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(rows, width)) for width in widths])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(rows)) for _ in widths])
        self.hidden_weights = nn.ParameterList([nn.Parameter(torch.empty(rows, size)) for _ in widths])
        self.hidden_biases = nn.ParameterList([nn.Parameter(torch.zeros(rows)) for _ in widths])
        for weight, bias in zip((*self.weights, *self.hidden_weights), (*self.biases, *self.hidden_biases), strict=True):
            fill(weight, bias, blocks, initialization, generator)

    def init_carry(self, num_envs: int) -> Carry:
        """Return what is remembered at first: nothing."""
        zeros = [self.weights[0].new_zeros(num_envs, self.layers, self.size) for _ in range(2 if self.kind == "lstm" else 1)]
        return tuple(zeros)

    def step(self, x: torch.Tensor, carry: Carry) -> tuple[torch.Tensor, Carry]:
        """Return outputs (N, H) for inputs (N, I), and the carry after them."""
        after = []
        for i in range(self.layers):
            sums = nn.functional.linear(x, self.weights[i], self.biases[i])
            state = self._turn(sums, tuple(part[:, i] for part in carry), i)
            after.append(state)
            x = state[0]
        return x, tuple(torch.stack(parts, 1) for parts in zip(*after, strict=True))

    def forward(self, x: torch.Tensor, starts: torch.Tensor, carry: Carry, *, every: bool = False) -> tuple[torch.Tensor, Carry]:
        """Return outputs (T, N, H) for inputs (T, N, I), and the carry after the last timestep, or `every` one (T, N, layers, H).

        The carry is zeroed before a timestep where `starts` (T, N) bool says that an episode begins there.
        """
        goes_on = (~starts).to(x.dtype).unsqueeze(-1)  # (T, N, 1)
        after = []
        for i in range(self.layers):
            sums = nn.functional.linear(x, self.weights[i], self.biases[i])  # of all timesteps at once
            state, states = tuple(part[:, i] for part in carry), []
            for own, kept in zip(sums.unbind(0), goes_on.unbind(0), strict=True):
                state = self._turn(own, tuple(part * kept for part in state), i)
                states.append(state)
            x = torch.stack([state[0] for state in states])
            after.append([torch.stack(parts) for parts in zip(*states, strict=True)] if every else state)
        return x, tuple(torch.stack(parts, -2) for parts in zip(*after, strict=True))

    def _turn(self, sums: torch.Tensor, state: Any, layer: int) -> Carry:
        """Return the state (h,) or (h, m) after inputs whose part of the sums (N, G H) is given."""
        h = state[0]
        hidden = nn.functional.linear(h, self.hidden_weights[layer], self.hidden_biases[layer])
        if self.kind == "rnn":
            return (torch.tanh(sums + hidden),)
        if self.kind == "gru":
            reset, keep, new = sums.chunk(3, 1)
            hidden_reset, hidden_keep, hidden_new = hidden.chunk(3, 1)
            new = torch.tanh(new + torch.sigmoid(reset + hidden_reset) * hidden_new)
            return (new + torch.sigmoid(keep + hidden_keep) * (h - new),)
        enter, forget, new, out = (sums + hidden).chunk(4, 1)
        memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(memory), memory
