"""What a policy's file takes and gives: arrays by name, a row per copy. No torch, no jax.

In: `observations`, or `observations/PATH` of composite ones, `observations/MEMBER...` of teams; `action_masks` where choices are
masked; `state/...` where the policy remembers, zeros where an episode begins. Out: `actions` as the environment takes them
(`actions/MEMBER` of teams), `logits` that they are made of, and for each `state/...` a `next_state/...`.
"""

import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.structures import Arrays

OBSERVATIONS, MASKS, ACTIONS, LOGITS, STATE, NEXT = "observations", "action_masks", "actions", "logits", "state", "next_state"


@dataclass(frozen=True)
class Form:
    """A policy's inputs, as examples, and what is said of it beside its numbers."""

    inputs: dict[str, np.ndarray]  # by name, (N, ...)
    outputs: tuple[str, ...]
    about: dict[str, Any]  # plain data: spaces, versions, where it comes from

    def zeros(self, rows: int) -> dict[str, np.ndarray]:
        """Return inputs of zeros."""
        return {name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in self.inputs.items()}

    def text(self) -> str:
        """Return inputs, outputs and what is said of the policy as JSON."""
        inputs = {name: {"dtype": str(array.dtype), "shape": ["batch", *array.shape[1:]]} for name, array in self.inputs.items()}
        return json.dumps({**self.about, "inputs": inputs, "outputs": list(self.outputs)}, indent=1)


class ByMember:
    """A policy that is asked member by member: what both backends' have in common."""

    groups: dict[str, Any]  # of a team, by name
    algorithms: dict[str, Any]  # by group; "" where the policy is one agent's

    def init_state(self, rows: int) -> dict[str, np.ndarray]:
        """Return what is remembered as an episode begins, by name."""
        state: dict[str, np.ndarray] = {}
        for name, members in self._members().items():
            for member in members:
                carry = self.algorithms[name].init_carry(rows)
                if self.algorithms[name].remembers:
                    _, remembered, actions, _ = carry
                    prefix = joined(STATE, member)
                    state |= {f"{prefix}/{i}": np.asarray(part) for i, part in enumerate(remembered)}
                    state |= {} if actions is None else {f"{prefix}/actions": np.asarray(actions)}
        return state

    def forward(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return outputs by name."""
        found: dict[str, Any] = {}
        for name, members in self._members().items():
            for number, member in enumerate(members):
                found |= self._act(name, number, member, arrays)
        return dict(sorted(found.items()))

    def _members(self) -> dict[str, tuple[str, ...]]:
        """Return by group who belongs to it."""
        return {name: self.groups[name].members if self.groups else ("",) for name in self.algorithms}

    @abstractmethod
    def _act(self, name: str, number: int, member: str, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return outputs by name of a member, the `number`-th of its group."""


def joined(name: str, member: str) -> str:
    """Return the name of what is a member's."""
    return f"{name}/{member}" if member else name


def named_inputs(observations: Arrays, masks: Any, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return all inputs by name; `masks` is an array, a dict by member, or None."""
    arrays = spaces.named(observations, OBSERVATIONS)
    if masks is not None:
        arrays |= spaces.named(masks, MASKS)
    return {name: np.asarray(array) for name, array in arrays.items()} | states


def describe_space(space: Any) -> Any:
    """Return a space as plain data."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Dict):
        return {"type": "Dict", "spaces": {key: describe_space(part) for key, part in space.spaces.items()}}
    if isinstance(space, gymnasium.spaces.Tuple):
        return {"type": "Tuple", "spaces": [describe_space(part) for part in space.spaces]}
    about: dict[str, Any] = {"type": type(space).__name__, "dtype": str(space.dtype), "shape": list(space.shape)}
    if isinstance(space, gymnasium.spaces.Box):
        return about | {side: _short(getattr(space, side)) for side in ("low", "high")}
    if isinstance(space, gymnasium.spaces.Discrete):
        return about | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return about | {"nvec": np.asarray(space.nvec).tolist(), "start": np.asarray(space.start).tolist()}
    return about


def _short(bound: np.ndarray) -> Any:
    """Return a bound as numbers, one where it is the same everywhere; JSON has no infinity, so that is text."""
    values = [float(value) if np.isfinite(value) else str(value) for value in np.ravel(bound)]
    return values[0] if len(set(values)) == 1 else values
