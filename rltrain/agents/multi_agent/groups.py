"""Members of a team that share parameters, and how their arrays become rows of one batch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.structures import Array, Arrays

MEMBER, OWN = "member", "own"


@dataclass
class Group:
    """Members that share parameters, and how their arrays become rows."""

    members: tuple[str, ...]
    paths: list[str]  # of the leaves of one member's observation; [""] for an array
    _numbers: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def shares(self) -> bool:
        """Whether there are several members, so that rows say whose they are."""
        return len(self.members) > 1

    def space(self, space: Any) -> Any:
        """Return the space of rows for one member's space, or the team's states."""
        from gymnasium.spaces import Dict, Discrete

        return Dict({OWN: space, MEMBER: Discrete(len(self.members))}) if self.shares else space

    def observations(self, arrays: dict[str, Array]) -> Arrays:
        """Return the observations of all members as rows."""
        by_path = {
            path: self.rows({name: arrays[f"{name}/{path}" if path else name] for name in self.members}) for path in self.paths
        }
        return self._label(by_path.get("", by_path))

    def states(self, states: Arrays) -> Arrays:
        """Return the states, which are those of every member, as rows."""
        return self._label(spaces.map_arrays(lambda array: join([array] * len(self.members)), states))

    def read(self, name: str, row: Any, *, central: bool) -> Any:
        """Return what a whole team's Transition, or a row of the fused loop's, says of the group called `name`, as rows."""
        own = {key.removeprefix(f"{name}/"): value for key, value in row.outputs.items() if key.startswith(f"{name}/")}
        return row._replace(
            observations=self.observations(row.observations),
            states=self.states(row.states) if central else None,
            next_observations=self.observations(row.next_observations),
            next_states=self.states(row.next_states) if central else None,
            rewards=self.rows(row.rewards),
            terminated=self.rows(row.terminated),
            truncated=self.rows(row.truncated),
            valid=None if row.valid is None else self.rows(row.valid),
            outputs=own,
        )

    def rows(self, by_member: dict[str, Array]) -> Array:
        """Return what belongs to each member (N, ...) as rows (M x N, ...)."""
        return join([by_member[name] for name in self.members])

    def flags(self, done: Arrays) -> Array:
        """Return flags of copies (N,), or by member, as rows (M x N,)."""
        return self.rows(done) if isinstance(done, dict) else join([done] * len(self.members))

    def split(self, rows: Array) -> dict[str, Array]:
        """Return rows (M x N, ...) by member."""
        copies = len(rows) // len(self.members)
        return {name: rows[i * copies : (i + 1) * copies] for i, name in enumerate(self.members)}

    def _label(self, rows: Arrays) -> Arrays:
        if not self.shares:
            return rows
        by_path = spaces.named(rows, OWN)
        count = len(next(iter(by_path.values())))
        if count not in self._numbers:
            self._numbers[count] = np.repeat(np.arange(len(self.members), dtype=np.int32), count // len(self.members))
        return {**by_path, MEMBER: self._numbers[count]}


def join(arrays: list[Array]) -> Array:
    """Return arrays one after the other: NumPy's, or those of a device."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if isinstance(arrays[0], np.ndarray) else arrays[0].__array_namespace__().concat(arrays)
