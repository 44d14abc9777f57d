"""Recurrent cells and their gradients by hand on a CPU: a timestep of a small cell takes a fifth of the time of its operations.

Backpropagation through time (Werbos 1990). Letters: T timesteps, N copies, H the size of a cell, G its gates.
"""

import functools
from typing import Any

import numpy as np
import torch

from rltrain.models.cells.torch import Carry
from rltrain.models.engines.by_hand.torch import ByHand
from rltrain.models.engines.torch import VJP
from rltrain.models.sequences import Run, Sequences, Successors
from rltrain.spaces import map_arrays
from rltrain.structures import count_rows

Arrays = tuple[np.ndarray, ...]


class Remembering:
    """The engine of an encoder, if there is one, a cell and a perceptron."""

    def __init__(self, network: Any) -> None:
        self.encoder, self.cell, self.perceptron = network.encoder, network.cell, ByHand(network)

    @functools.cached_property
    def parameters(self) -> list[tuple[Any, ...]]:
        """Each layer's weights, biases, hidden weights and hidden biases."""
        cell = self.cell
        return list(zip(cell.weights, cell.biases, cell.hidden_weights, cell.hidden_biases, strict=True))

    @functools.cached_property
    def arrays(self) -> list[Arrays]:
        """The same memory for NumPy."""
        return [tuple(parameter.detach().numpy() for parameter in layer) for layer in self.parameters]

    def infer(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F) of rows or sequences."""
        return self.perceptron.infer(self._recall(inputs), actions)

    def forward_and_vjp(
        self, inputs: Any, actions: torch.Tensor | None = None, *, to_actions: bool = False
    ) -> tuple[torch.Tensor, VJP]:
        """Return outputs (B, F) of sequences, and what adds the parameters' gradients to their `grad` or returns the actions'."""
        if to_actions:
            return self.perceptron.forward_and_vjp(self._recall(inputs), actions, to_actions=True)
        outputs, vjp = self.unroll_and_vjp(*_flat(inputs.rows), self._warm_up(inputs), actions)
        length, copies = inputs.rows.starts.shape
        return outputs.flatten(0, 1), lambda gradients: vjp(gradients.view(length, copies, -1))

    def step(self, inputs: Any, carry: Carry, actions: torch.Tensor | None = None) -> tuple[torch.Tensor, Carry]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        x, carry = self._step(inputs, carry)
        return self.perceptron.infer(x, actions), carry

    def _step(self, inputs: Any, carry: Carry) -> tuple[torch.Tensor, Carry]:
        """Return what the cell says about one row of N copies, (N, H), and the carry after it."""
        x, states = self._encode(inputs)[1].numpy(), tuple(part.numpy() for part in carry)
        after = []
        for i, (weight, bias, hidden_weight, hidden_bias) in enumerate(self.arrays):
            state = tuple(part[:, i] for part in states)
            state, _ = _turn(self.cell.kind, x @ weight.T + bias, state, hidden_weight, hidden_bias)
            after.append(state)
            x = state[0]
        return torch.from_numpy(x), tuple(torch.from_numpy(np.stack(parts, 1)) for parts in zip(*after, strict=True))

    def unroll(self, inputs: Any, starts: torch.Tensor, carry: Carry, *, every: bool) -> tuple[torch.Tensor, Carry]:
        """Return outputs (T, N, F), and the carry after the last row, or `every` one."""
        _, x = self._encode(inputs)
        x, _, carries = self._remember(x, starts, carry)
        kept = tuple(torch.from_numpy(each if every else each[-1]) for each in carries)
        return self.perceptron.infer(x).view(*starts.shape, -1), kept

    def unroll_and_vjp(
        self, inputs: Any, starts: torch.Tensor, carry: Carry, actions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Return outputs (T, N, F), and what takes a loss's gradient with respect to them and adds the parameters' to `grad`."""
        features, x = self._encode(inputs, learns=True)
        x, layers, _ = self._remember(x, starts, carry)
        outputs, perceptron_vjp = self.perceptron.forward_and_vjp(x, actions, to_inputs=True)

        def vjp(gradients: torch.Tensor) -> None:
            g: Any = perceptron_vjp(gradients.flatten(0, 1))
            g = g if actions is None else g[:, : self.cell.size].contiguous()
            for i in reversed(range(len(layers))):
                g = self._to_parameters(i, layers[i], g, lowest=i == 0 and self.encoder is None)
            if self.encoder is not None:
                features.backward(g)

        return outputs.view(*starts.shape, -1), vjp

    def _recall(self, inputs: Any) -> torch.Tensor:
        """Return what the cell says about rows, or sequences of them, (B, H); see the network's own."""
        if isinstance(inputs, Sequences):
            return self._remember(self._encode(_flat(inputs.rows)[0])[1], inputs.rows.starts, self._warm_up(inputs))[0]
        if not isinstance(inputs, Successors):
            return self._step(inputs, self.cell.init_carry(count_rows(inputs)))[0]
        rows, starts = _flat(inputs.sequences.rows)
        _, _, carries = self._remember(self._encode(rows)[1], starts, self._warm_up(inputs.sequences))
        known = tuple(torch.from_numpy(each).flatten(0, 1)[inputs.after] for each in carries)
        return self._step(inputs.inputs, known)[0]

    def _warm_up(self, sequences: Sequences) -> Carry:
        """Return what is remembered before the rows to learn from."""
        carry, before = sequences.carry, sequences.before
        if carry is None:
            carry = self.cell.init_carry(sequences.rows.starts.shape[1])
        if len(before.starts) == 0:
            return carry
        rows, starts = _flat(before)
        _, _, carries = self._remember(self._encode(rows)[1], starts, carry)
        return tuple(torch.from_numpy(each[-1]) for each in carries)

    def _encode(self, inputs: Any, *, learns: bool = False) -> tuple[Any, torch.Tensor]:
        """Return features (B, I) with their graph, if `learns`, and without."""
        if self.encoder is None:
            return None, inputs
        with torch.set_grad_enabled(learns):
            features = self.encoder(inputs)
        return features, features.detach()

    def _remember(self, x: torch.Tensor, starts: torch.Tensor, carry: Carry) -> tuple[torch.Tensor, list[Any], list[np.ndarray]]:
        """Return the last layer's outputs (T x N, H), what each layer's gradients need, and the carries (T, N, layers, H)."""
        goes_on = (~starts).numpy().astype(np.float32)[:, :, None]
        length, copies = starts.shape
        layers: list[Any] = []
        carries = [np.empty((length, copies, len(self.arrays), self.cell.size), np.float32) for _ in carry]
        for i, (weight, bias, hidden_weight, hidden_bias) in enumerate(self.arrays):
            inputs = x.numpy().reshape(length * copies, -1)
            sums = (inputs @ weight.T + bias).reshape(length, copies, -1)
            state, befores, kept = tuple(part[:, i].numpy() for part in carry), [], []
            for t in range(length):
                state = tuple(part * goes_on[t] for part in state)
                befores.append(state)
                state, saved = _turn(self.cell.kind, sums[t], state, hidden_weight, hidden_bias)
                kept.append(saved)
                for each, part in zip(carries, state, strict=True):
                    each[t, :, i] = part
            layers.append((inputs, goes_on, befores, kept))
            x = torch.from_numpy(np.ascontiguousarray(carries[0][:, :, i]).reshape(length * copies, -1))
        return x, layers, carries

    def _to_parameters(self, layer: int, saved: Any, g: torch.Tensor, *, lowest: bool) -> Any:
        """Add to a layer's `grad` by the gradient `g` (T x N, H) of its outputs; return that of its inputs, if they need one."""
        inputs, goes_on, befores, kept = saved
        weight, _, hidden_weight, _ = self.arrays[layer]
        length, copies, size = len(befores), len(befores[0][0]), self.cell.size
        to_sums = np.empty((length, copies, self.cell.gates * size), np.float32)
        to_hidden = np.empty_like(to_sums) if self.cell.kind == "gru" else to_sums
        outputs = g.numpy().reshape(length, copies, size)
        later = tuple(np.zeros((copies, size), np.float32) for _ in befores[0])
        for t in reversed(range(length)):
            later = _turn_back(
                self.cell.kind, outputs[t] + later[0], later, befores[t], kept[t], to_sums[t], to_hidden[t], hidden_weight
            )
            later = tuple(part * goes_on[t] for part in later)
        flat, hidden = to_sums.reshape(length * copies, -1), to_hidden.reshape(length * copies, -1)
        states = np.concatenate([state[0] for state in befores])
        found = flat.T @ inputs, flat.sum(0), hidden.T @ states, hidden.sum(0)
        for parameter, gradient in zip(self.parameters[layer], found, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(torch.from_numpy(gradient))
        return None if lowest else torch.from_numpy(flat @ weight)


def _flat(run: Run) -> tuple[Any, torch.Tensor]:
    """Return a run's inputs as rows (T x N, *O), and its starts (T, N)."""
    return map_arrays(lambda array: array.flatten(0, 1), run.inputs), run.starts


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + e^-x), written over x."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1
    x *= 0.5
    return x


def _turn(
    kind: str, sums: np.ndarray, state: Arrays, hidden_weight: np.ndarray, hidden_bias: np.ndarray
) -> tuple[Arrays, Arrays]:
    """Return the state after inputs whose part of the sums (N, G H) is given, and what its gradient needs."""
    h, size = state[0], state[0].shape[1]
    hidden = h @ hidden_weight.T
    hidden += hidden_bias
    if kind == "rnn":
        hidden += sums
        new = np.tanh(hidden, out=hidden)
        return (new,), (new,)
    if kind == "gru":
        gates = _sigmoid(sums[:, : 2 * size] + hidden[:, : 2 * size])
        reset, keep, part = gates[:, :size], gates[:, size:], hidden[:, 2 * size :]
        new = reset * part
        new += sums[:, 2 * size :]
        np.tanh(new, out=new)
        after = h - new
        after *= keep
        after += new
        return (after,), (reset, keep, part, new)
    hidden += sums
    gates = _sigmoid(np.concatenate((hidden[:, : 2 * size], hidden[:, 3 * size :]), 1))
    enter, forget, out = gates[:, :size], gates[:, size : 2 * size], gates[:, 2 * size :]
    new = np.tanh(hidden[:, 2 * size : 3 * size])
    memory = forget * state[1]
    memory += enter * new
    seen = np.tanh(memory)
    return (out * seen, memory), (enter, forget, out, new, seen)


def _turn_back(
    kind: str,
    g: np.ndarray,
    later: Arrays,
    before: Arrays,
    saved: Arrays,
    to_sums: np.ndarray,
    to_hidden: np.ndarray,
    hidden_weight: np.ndarray,
) -> Arrays:
    """Return the gradient of the state before a timestep, from that `g` of its h and `later` of its memory.

    Writes those of its sums into `to_sums`, and of their hidden part into `to_hidden`.
    """
    size = g.shape[1]
    if kind == "rnn":
        np.multiply(g, 1 - saved[0] * saved[0], out=to_sums)
        return (to_sums @ hidden_weight,)
    if kind == "gru":
        reset, keep, part, new = saved
        to_new = g * (1 - keep)
        to_new *= 1 - new * new
        to_sums[:, :size] = to_new * part * reset * (1 - reset)
        to_sums[:, size : 2 * size] = g * (before[0] - new) * keep * (1 - keep)
        to_sums[:, 2 * size :] = to_new
        to_hidden[:, : 2 * size] = to_sums[:, : 2 * size]
        np.multiply(to_new, reset, out=to_hidden[:, 2 * size :])
        return (g * keep + to_hidden @ hidden_weight,)
    enter, forget, out, new, seen = saved
    to_memory = later[1] + g * out * (1 - seen * seen)
    to_sums[:, :size] = to_memory * new * enter * (1 - enter)
    to_sums[:, size : 2 * size] = to_memory * before[1] * forget * (1 - forget)
    to_sums[:, 2 * size : 3 * size] = to_memory * enter * (1 - new * new)
    to_sums[:, 3 * size :] = g * seen * out * (1 - out)
    return to_sums @ hidden_weight, to_memory * forget
