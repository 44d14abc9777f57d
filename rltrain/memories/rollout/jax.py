"""Rollouts in JAX."""

from typing import NamedTuple

import jax
import numpy as np

from rltrain import spaces
from rltrain.memories.rollout.staged import StagedRollout
from rltrain.structures import Array, Arrays


class Rollout(NamedTuple):
    """A full rollout; T timesteps of N copies. Composite observations and states are dicts of arrays."""

    observations: Arrays  # (T, N, *O)
    states: Arrays  # (T, N, *S) or None
    next_observations: Arrays  # (T, N, *O), the true successors
    next_states: Arrays  # (T, N, *S) or None
    rewards: Array  # (T, N)
    terminated: Array  # (T, N) bool
    truncated: Array  # (T, N) bool
    valid: Array | None  # (T, N) bool, or None if every row happened
    outputs: dict[str, Array]  # each (T, N, ...)


class RolloutMemory(StagedRollout):
    """A staged rollout that is read with every successor in its row: compiled code wants one shape, whatever was truncated."""

    may_be_left_out = False  # of a checkpoint
    why_not_lent = ""

    @property
    def is_empty(self) -> bool:
        """Whether the next row is a rollout's first."""
        return self.position == 0

    def read(self) -> Rollout:
        """Return the full rollout and start the next one; the arrays hold until its first row is written.

        Raises RunError if the rollout isn't full.
        """
        arrays, last, any_invalid = self.take()
        rows = last.pop("rows")
        next_arrays = {}
        for key, successors in last.items():
            array = arrays[key]
            full = np.concatenate((array[1:], array[-1:]))
            full.reshape(-1, *array.shape[2:])[rows] = successors
            next_arrays[key] = full
        valid = arrays.pop("valid")
        return Rollout(
            observations=spaces.unnamed(arrays, "observations"),
            states=spaces.unnamed(arrays, "states"),
            next_observations=spaces.unnamed(next_arrays, "observations"),
            next_states=spaces.unnamed(next_arrays, "states"),
            rewards=arrays.pop("rewards"),
            terminated=arrays.pop("terminated"),
            truncated=arrays.pop("truncated"),
            valid=valid if any_invalid else None,
            outputs=arrays,
        )

    def lend(self, observations: Arrays, states: Arrays) -> Rollout | None:
        """Return an unfinished rollout with zeros for the rows to come, or None if there is none.

        `observations` and `states` are those to act on next: the last row's successors.
        """
        if not self.position:
            return None
        position, self.position = self.position, self.length
        row = {**spaces.named(observations, "observations"), **({} if states is None else spaces.named(states, "states"))}
        for key, values in row.items():
            self._arrays[key][position] = values
        everything = np.arange(self.length * self.num_envs)[-self.num_envs :]
        zeros = {key: np.zeros((self.num_envs, *array.shape[2:]), array.dtype) for key, array in self._arrays.items()}
        self._successors.append({"rows": everything, **{key: zeros[key] for key in self._successor_keys()}})
        rollout = self.read()
        self.position = position
        return rollout

    def take_back(self, rollout: Rollout, timestep: int) -> None:
        """Stage the rows of a rollout that a fused loop gives back at `timestep`."""
        self.clear()
        self.position = position = timestep % self.length
        if not position:
            return
        rollout = jax.device_get(rollout)
        self._arrays = {
            **spaces.named(rollout.observations, "observations"),
            **({} if rollout.states is None else spaces.named(rollout.states, "states")),
            "rewards": rollout.rewards,
            "terminated": rollout.terminated,
            "truncated": rollout.truncated,
            "valid": np.ones((self.length, self.num_envs), bool) if rollout.valid is None else rollout.valid,
            **rollout.outputs,
        }
        self._any_invalid = rollout.valid is not None
        self._arrays = {key: np.array(array) for key, array in self._arrays.items()}
        for t in range(position):
            next_states = None if rollout.next_states is None else _row(rollout.next_states, t)
            self._keep_successors(t, rollout.truncated[t], _row(rollout.next_observations, t), next_states)

    def _successor_keys(self) -> list[str]:
        return [key for key in self._arrays if key.split("/")[0] in ("observations", "states")]


def _row(arrays: Arrays, t: int) -> Arrays:
    return spaces.map_arrays(lambda array: array[t], arrays)
