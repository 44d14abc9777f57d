"""Snapshots of PettingZoo's copies: an episode as its seed and the actions so far, from which it is played again.

A snapshot of N copies holds lists and arrays with one item per copy; so it is cut and joined as copies are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rltrain import spaces
from rltrain.envs.pettingzoo_copies import Copy, cast
from rltrain.envs.snapshots import put_snapshot, take_snapshot

ONCE = ("timestep",)  # what a snapshot holds once, for all copies


class Episode(NamedTuple):
    """A running episode of one copy."""

    seed: int  # of the copy's episodes
    number: int  # of the episode, from 0
    played: dict[str, np.ndarray]  # actions by member (T, *A), zeros of those that were absent


def episode_of(copy: Copy, action_spaces: Mapping[str, Any]) -> Episode:
    """Return the episode that a copy is in."""
    played = {}
    for name, space in action_spaces.items():
        none = np.zeros(space.shape or (), space.dtype)
        played[name] = np.array([actions.get(name, none) for actions in copy.played], space.dtype).reshape(-1, *none.shape)
    return Episode(copy.seed, copy.episode, played)


def gather(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """Return the part of a snapshot that says which episodes the copies are in."""
    seeds, numbers, played = ([episode[i] for episode in episodes] for i in range(3))
    return {"seeds": seeds, "episodes": numbers, "played": played}


def pick(snapshot: Mapping[str, Any], i: int) -> Episode:
    """Return the episode that copy i of a snapshot is in."""
    return Episode(int(snapshot["seeds"][i]), int(snapshot["episodes"][i]), snapshot["played"][i])


def replay(copy: Copy, episode: Episode, action_spaces: Mapping[str, Any]) -> dict[str, Any]:
    """Play an episode again in a copy, whatever that was doing; return its last observations.

    Raises CopyError where the environment fails.
    """
    observations, _ = copy.begin(episode.seed, episode.number)
    for t in range(len(next(iter(episode.played.values())))):
        rows = {name: cast(action_spaces[name], actions[t : t + 1])[0] for name, actions in episode.played.items()}
        observations = copy.step({name: rows[name] for name in copy.env.agents})[0]
    return observations


def attributes_of(copy: Copy) -> dict[str, Any] | None:
    """Return a copy's attributes, or None where one isn't plain data."""
    return take_snapshot(copy.env, copy.made)


def put_attributes(copy: Copy, episode: Episode, attributes: dict[str, Any]) -> None:
    """Put a copy's attributes back, in the middle of an episode that can't be played again."""
    copy.begin(episode.seed, episode.number)
    copy.played = [dict(zip(episode.played, rows, strict=True)) for rows in zip(*episode.played.values(), strict=True)]
    put_snapshot(copy.env, attributes, copy.made)


def cut(snapshot: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return a snapshot per slice of the copies."""
    ends = np.cumsum(sizes)
    scopes = [slice(int(end - size), int(end)) for end, size in zip(ends, sizes, strict=True)]
    return [{key: _per_copy(lambda rows, s=scope: rows[s], key, value) for key, value in snapshot.items()} for scope in scopes]


def join(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the snapshot of all copies."""
    first, *others = parts
    return {key: _per_copy(_concatenate, key, value, *(other[key] for other in others)) for key, value in first.items()}


def _per_copy(function: Callable[..., Any], key: str, value: Any, *more: Any) -> Any:
    """Return `function` of what a snapshot holds per copy under `key`; what it holds once stays."""
    return value if value is None or key in ONCE else spaces.map_arrays(function, value, *more)


def _concatenate(*parts: Any) -> Any:
    return [item for part in parts for item in part] if isinstance(parts[0], list) else np.concatenate(parts)
