"""What networks that remember are given in place of rows (B, *O): sequences of rows, and what came before them.

Letters: T timesteps of S sequences, L of them learned from, B = L x S rows, timestep by timestep.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from rltrain.spaces import map_arrays
from rltrain.structures import Array, Arrays


class Run(NamedTuple):
    """T timesteps, one after the other."""

    inputs: Arrays  # (T, S, *O), as networks read them
    starts: Array  # (T, S) bool: what is remembered is zeroed before that row


class Sequences(NamedTuple):
    """Rows to learn from: a network gives outputs (B, F)."""

    before: Run  # of which only what is remembered counts, without gradients; T may be 0
    rows: Run  # of L timesteps
    carry: Any  # what acting remembered before the first row, arrays (S, layers, H); None: nothing


class Successors(NamedTuple):
    """Rows of which each follows another: a network gives outputs (B, F) with what it remembers after that one."""

    sequences: Sequences  # whose `rows` may go on after those to learn from
    inputs: Arrays  # (B, *O)
    after: Array  # (B,) which of these rows, counted timestep by timestep


def is_sequences(inputs: Any) -> bool:
    """Tell sequences from rows."""
    return isinstance(inputs, Sequences | Successors)


def remembering_nothing(inputs: Any) -> Any:
    """Return sequences before which nothing is remembered, for a network that doesn't act; rows as they are."""
    if isinstance(inputs, Successors):
        return inputs._replace(sequences=inputs.sequences._replace(carry=None))
    return inputs._replace(carry=None) if isinstance(inputs, Sequences) else inputs


def map_rows(encode: Callable[[Any], Array], inputs: Any) -> Any:
    """Return features in place of all observations that there are: `encode` makes (B, F) of (B, *O)."""
    if isinstance(inputs, Successors):
        return inputs._replace(sequences=map_rows(encode, inputs.sequences), inputs=encode(inputs.inputs))
    if isinstance(inputs, Sequences):
        return inputs._replace(before=_map_run(encode, inputs.before), rows=_map_run(encode, inputs.rows))
    return encode(inputs)


def _map_run(encode: Callable[[Any], Array], run: Run) -> Run:
    head = run.starts.shape
    if head[0] == 0:
        return run
    features = encode(map_arrays(lambda array: array.reshape(-1, *array.shape[2:]), run.inputs))
    return run._replace(inputs=features.reshape(*head, -1))
