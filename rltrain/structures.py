"""What travels through the house: steps, transitions, progress, schedules. No torch, no jax.

Letters used in shapes everywhere: N copies of the environment in a scope, T rollout length, B minibatch,
O, S, A the shapes of one observation, state and action.

Where an environment has several named agents, its *members*, what belongs to one of them is a dict by name: observations,
actions, rewards, flags and `valid`; states are those of the whole.
"""

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy.ndarray, torch.Tensor or jax.Array
Arrays = Any  # an array, or a flat dict of arrays by path where a space is composite (`rltrain.spaces`)
INFOS_BY_COPY = ("is_success", "state", "action_mask")  # entries of infos that this project reads, a row per copy


class Step(NamedTuple):
    """What an environment answers to one step of all its copies."""

    next_observations: Arrays  # (N, *O), the TRUE successors, read before any reset
    next_states: Arrays  # (N, *S) or None
    rewards: Array  # (N,) float32
    terminated: Array  # (N,) bool
    truncated: Array  # (N,) bool
    valid: Array | None  # (N,) bool or None (all are); False: the row did not happen (a simulator's dummy step)
    infos: dict[str, Any]
    exact_rewards: Array | None = None  # (N,) float64 as a host environment gave them, of which returns are summed


class Transition(NamedTuple):
    """One step with what led to it; `outputs` is what `act` wants back at `record`."""

    observations: Arrays  # (N, *O)
    states: Arrays  # (N, *S) or None
    actions: Array  # (N, *A), as the environment got them
    next_observations: Arrays  # (N, *O)
    next_states: Arrays
    rewards: Array  # (N,)
    terminated: Array  # (N,)
    truncated: Array  # (N,)
    valid: Array | None  # (N,)
    infos: dict[str, Any]
    outputs: dict[str, Array]  # each (N, ...)


class Acting(NamedTuple):
    """What a pure algorithm acts with besides its policy; of a team, each by group."""

    carry: Any = None  # from timestep to timestep: None, or a tree of arrays (N, ...) of the form that `init_carry` returns
    noise: Any = None  # the random numbers of this timestep, of the kind and shape that `acting_noise` says


class Progress(NamedTuple):
    """Where the run stands. `timesteps` is the horizon of schedules, not necessarily where the run stops."""

    timestep: int
    timesteps: int


@dataclass(frozen=True, kw_only=True)
class UpdateSchedule:
    """When to learn, as data: the Python loop and a compiled loop obey the same rule."""

    learning_starts: int = 0  # in timesteps
    every: int = 1  # in timesteps

    def is_due(self, timestep: int) -> bool:
        """Tell whether an update follows timestep t (counted from 0): t >= learning_starts and (t + 1) % every == 0."""
        return (timestep >= self.learning_starts) & ((timestep + 1) % self.every == 0)  # also of a traced timestep

    def first(self) -> int:
        """Return how many timesteps are made before the first update."""
        return -(-(self.learning_starts + 1) // self.every) * self.every


def count_rows(arrays: Arrays) -> int:
    """Return the number of rows of an array, or of each in a dict."""
    return len(next(iter(arrays.values())) if isinstance(arrays, dict) else arrays)


def ended(terminated: Arrays, truncated: Arrays) -> Array:
    """Return which copies' episodes ended (N,) bool; of several members, that of a copy ends with the last one's."""
    if isinstance(terminated, dict):
        return functools.reduce(operator.and_, (terminated[name] | truncated[name] for name in terminated))
    return terminated | truncated


def starts_after(terminated: Arrays, truncated: Arrays, valid: Arrays) -> Arrays:
    """Return where something else begins after this row, (N,) bool, by member where there are such.

    There an episode ended, or the row didn't happen: nothing that was remembered belongs to what comes next.
    """
    if isinstance(terminated, dict):
        return {name: starts_after(terminated[name], truncated[name], valid and valid[name]) for name in terminated}
    ended = terminated | truncated
    return ended if valid is None else ended | ~valid


def most_exact(rewards: Arrays, exact: Arrays) -> Arrays:
    """Return what to sum returns of: `exact`, float64, where there is such and `rewards`, float32, are still made of it.

    Somebody's own wrapper or agent may have changed `rewards` and know of no others.
    """
    if exact is None:
        return rewards
    if isinstance(rewards, dict):
        return {name: most_exact(own, exact.get(name)) for name, own in rewards.items()}
    if type(rewards) is not np.ndarray or exact.astype(np.float32).tobytes() != rewards.tobytes():
        return rewards
    return exact


def mean(values: Iterable[float]) -> float:
    """Return the mean of at least one number; of equal ones, just these: .7 three times has no mean a bit below .7."""
    array = np.asarray(list(values), np.float64)
    with np.errstate(all="ignore"):
        differences = array - array[0]
    return float(array[0]) + math.fsum(differences) / len(array) if np.isfinite(differences).all() else float(np.mean(array))


def mean_of_those_who_played(returns: Array, played: Array) -> np.ndarray:
    """Return the means (N,) of returns (M, N) where `played` (M, N) bool, 0 where nobody did; of equal returns, just these."""
    returns, played = np.asarray(returns), np.asarray(played)
    first = np.where(played.any(axis=0), returns[played.argmax(axis=0), np.arange(returns.shape[1])], 0.0)
    return first + np.where(played, returns - first, 0.0).sum(axis=0) / np.maximum(1, played.sum(axis=0))


def cut(value: Any, scope: slice, copies: int) -> Any:
    """Return the rows of `scope` of every array in `value` that has a row per copy; of a Step's infos see `cut_infos`."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
        return type(value)(*((cut_infos if name == "infos" else cut)(item, scope, copies) for name, item in parts))
    if isinstance(value, dict):
        return {key: cut(item, scope, copies) for key, item in value.items()}
    if hasattr(value, "shape") and value.shape and value.shape[0] == copies:
        return value[scope]
    return value


def cut_infos(infos: Any, scope: slice, copies: int) -> Any:
    """Return infos for the copies in `scope`: what has a row per copy is cut, anything else is whole, however long it is.

    As Gymnasium's vector environments give them, `_key` beside `key` says which copies gave one, so `key` has a row per copy.
    """
    if not isinstance(infos, dict):
        return cut(infos, scope, copies)
    by_copy = {key for key in infos if key in INFOS_BY_COPY or f"_{key}" in infos or (str(key)[:1] == "_" and key[1:] in infos)}
    return {
        key: cut_infos(item, scope, copies) if isinstance(item, dict) else cut(item, scope, copies) if key in by_copy else item
        for key, item in infos.items()
    }
