"""The look for observations and states outside their space as part of a compiled program, which can't raise: the host does."""

from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from rltrain.envs.jax_copies import Copies, PureCopies
from rltrain.envs.ranges import RangeWatch
from rltrain.spaces import named
from rltrain.structures import Array, Arrays


class Outside(NamedTuple):
    """Of every copy (N,) the first number that is outside, int32 all."""

    leaf: Array  # the leaf's number, from 1, in the order of the watch's limits, those at a reset go on; 0: nothing is outside
    at: Array  # its place in the leaf, counted along all dimensions
    value: Array


def find_outside(watch: RangeWatch, env: PureCopies, after: Copies, valid: Arrays, begun: Copies) -> Outside | None:
    """Return what is outside `after` a step, else what is where an episode has `begun`; None: nothing is to be looked at.

    `valid` is the step's.
    """
    if not watch.limits:
        return None
    there, fresh = (
        _look(watch, copies.observations, env.states(copies) if watch.has_states else None, shown)
        for copies, shown in ((after, env.shown(after, valid)), (begun, begun.there))
    )
    fresh = fresh._replace(leaf=jnp.where(fresh.leaf > 0, fresh.leaf + len(watch.limits), 0))
    return Outside(*(jnp.where(there.leaf > 0, a, b) for a, b in zip(there, fresh, strict=True)))


def _look(watch: RangeWatch, observations: Arrays, states: Arrays, shown: dict[str, Array] | None) -> Outside:
    zeros = jnp.zeros(len(next(iter(named(observations, "").values()))), jnp.int32)
    found = Outside(zeros, zeros, zeros)
    for number, ((part, path), limits) in reversed(list(enumerate(watch.limits.items(), 1))):
        arrays = observations if part == "observations" else states
        rows = arrays[path] if path else arrays
        flat, shape = rows.reshape(len(rows), -1).astype(jnp.int32), rows.shape[1:]
        low, high = (np.broadcast_to(np.clip(limit, -(2**31), 2**31 - 1), shape).astype(np.int32).ravel() for limit in limits)
        outside = (flat < low) | (flat > high)
        if shown is not None and part == "observations":
            outside &= shown[path.partition("/")[0]][:, None]
        at = jnp.argmax(outside, axis=1).astype(jnp.int32)
        value = jnp.take_along_axis(flat, at[:, None], axis=1)[:, 0]
        found = Outside(
            *(jnp.where(outside.any(axis=1), a, b) for a, b in zip((jnp.int32(number), at, value), found, strict=True))
        )
    return found


def refuse(watch: RangeWatch, outside: Outside, timestep: int) -> NoReturn:
    """Raise EnvironmentFailure for the first copy that has something outside at that timestep; the host's arrays (N,)."""
    row = int(np.argmax(outside.leaf > 0))
    resets, number = divmod(int(outside.leaf[row]) - 1, len(watch.limits))
    part, path = list(watch.limits)[number]
    shape: Any = watch.spaces[part, path].shape or ()
    place = [int(i) for i in np.unravel_index(int(outside.at[row]), shape)] if shape else []
    watch.refuse(part, path, row, place, int(outside.value[row]), f"timestep {timestep + resets}")
