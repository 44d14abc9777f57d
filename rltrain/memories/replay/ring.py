"""Where transitions are on the host: arrays that are written in place, by one agent or by several that share them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError, RunError
from rltrain.memories.replay import files
from rltrain.memories.replay.mapping import allocator
from rltrain.memories.replay.priorities import Priorities
from rltrain.structures import Arrays, Transition

CARRY = ("carry.0", "carry.1")  # what a network that acts remembered before a row, of which a cell has one or two
OUTPUTS = ("actions", "action_masks", "starts", "actions_before", *CARRY)  # what agents want back


class Ring:
    """The last T timesteps of N copies, as a ring of T + 1 rows of arrays (T + 1, N, ...).

    A successor is the next row's observation. The row after the newest holds the newest successors; those that no row will hold
    (where an episode ended) are kept apart, in slots. So images take half the memory of storing both, and drawing a batch costs
    one more look-up.

    `parts` says by key who records how many of the copies. Where there are several, a row is written when all have recorded it.
    """

    def __init__(
        self, size: int, parts: Sequence[tuple[str, int]], *, mapped: str = "auto", directory: str | None = None
    ) -> None:
        self.recipe = size, list(parts), mapped, directory
        self.size, self.parts, self.num_envs = size, list(parts), sum(copies for _, copies in parts)
        self.timesteps = max(1, size // self.num_envs)
        self.length = self.timesteps + 1
        self.priorities: list[Priorities] = []  # of all who draw by priority
        self._allocator = (mapped, directory, parts[0][0])
        self._recorded: dict[int, Transition] = {}  # parts of the next row
        self._new: Callable[..., np.ndarray] | None = None
        self._arrays: dict[str, np.ndarray] = {}  # each (T + 1, N, ...)
        self.flat: dict[str, np.ndarray] = {}  # the same as (T + 1) x N rows
        self.observations: list[str] = []  # their names
        self.outputs: list[str] = []  # those of what acting wanted back
        self._slots = np.zeros((0, self.num_envs), np.int64)  # (T + 1, N) 1 + the slot of each row's kept successor; 0: none
        self._kept: dict[str, np.ndarray] = {}  # successors where episodes ended, each (slots, ...)
        self._free: list[int] = []  # slots that hold none
        self.clear()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be a copy, with views of its own arrays."""
        self.__dict__.update(state)
        self._view()

    def _view(self) -> None:
        """Make views of the arrays a row per transition."""
        self.flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in self._arrays.items()}

    @classmethod
    def of(cls, recipe: Any) -> "Ring":
        """Return an empty one like that whose recipe it is."""
        size, parts, mapped, directory = recipe
        return cls(size, parts, mapped=mapped, directory=directory)

    def clear(self) -> None:
        """Forget all transitions."""
        self.position = 0  # where the next row goes, and the newest successors are
        self.filled = 0  # timesteps that are here
        self.count = 0  # transitions that are here, without those that did not happen
        self._slots[:] = 0
        self._kept, self._free = {}, []
        self._recorded = {}
        self._loaded: str | Path | None = None  # the file that said what transitions are like, until one is recorded
        self.any_invalid = False
        for priorities in self.priorities:
            priorities.restore(np.zeros(0, np.int64), np.zeros(0), 1.0)

    def columns(self, part: int) -> slice:
        """Return the copies of a part."""
        start = sum(copies for _, copies in self.parts[:part])
        return slice(start, start + self.parts[part][1])

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, transition: Transition, part: int = 0) -> None:
        """Take one row per copy of a part; once every part's is here, write them over the oldest ones.

        Raises RunError if the part's row was taken already, ConfigError if parts don't record alike.
        """
        if len(self.parts) > 1:
            if part in self._recorded:
                missing = ", ".join(key for i, (key, _) in enumerate(self.parts) if i not in self._recorded)
                raise RunError(f"{self.parts[part][0]}: records another timestep before {missing}, which shares its memory")
            self._recorded[part] = transition
            if len(self._recorded) < len(self.parts):
                return
            transition = self._join([self._recorded[i] for i in range(len(self.parts))])
            self._recorded = {}
        self._write(transition)

    def _join(self, transitions: list[Transition]) -> Transition:
        """Return the parts' transitions side by side."""
        forms = [{name: np.shape(array)[1:] for name, array in transition.outputs.items()} for transition in transitions]
        for (key, _), form in zip(self.parts, forms, strict=True):
            if form != forms[0]:
                there = f"{key} records {_names(form)}, {self.parts[0][0]} {_names(forms[0])}"
                raise ConfigError(f"{key}.memory_of", self.parts[0][0], f"{there}; agents that share a memory learn from alike")
        valid = None
        if any(transition.valid is not None for transition in transitions):
            valid = np.concatenate([np.ones(len(t.rewards), bool) if t.valid is None else t.valid for t in transitions])

        def side_by_side(*arrays: Any) -> np.ndarray:
            return np.concatenate([np.asarray(array) for array in arrays])

        observations, following = (
            spaces.map_arrays(side_by_side, *(getattr(transition, name) for transition in transitions))
            for name in ("observations", "next_observations")
        )
        rewards, terminated, truncated = (
            side_by_side(*(getattr(transition, name) for transition in transitions))
            for name in ("rewards", "terminated", "truncated")
        )
        outputs = {name: side_by_side(*(transition.outputs[name] for transition in transitions)) for name in forms[0]}
        return Transition(
            observations, None, outputs.get("actions"), following, None, rewards, terminated, truncated, valid, {}, outputs
        )

    def _write(self, transition: Transition) -> None:
        """Write one row per copy over the oldest ones."""
        observations = spaces.named(transition.observations, "observations")
        if not self._arrays:
            self._allocate(observations, transition.outputs)
        elif self._loaded is not None:
            self._check_form(self._loaded, {**observations, **transition.outputs}, "the environment's")
            self._loaded = None
        t, following = self.position, (self.position + 1) % self.length
        arrays = self._arrays
        if self.filled == self.timesteps:
            self._forget(following)
        for name, array in observations.items():
            arrays[name][t] = array
        for name, array in spaces.named(transition.next_observations, "observations").items():
            arrays[name][following] = array
        for name, array in transition.outputs.items():
            arrays[name][t] = array
        if "action_masks" in arrays:
            arrays["action_masks"][following] = True  # as long as it isn't known
        arrays["rewards"][t] = transition.rewards
        arrays["terminated"][t] = transition.terminated
        arrays["truncated"][t] = transition.truncated
        valid = arrays["valid"][t]
        valid[:] = True if transition.valid is None else transition.valid
        self.any_invalid |= transition.valid is not None
        self.count += self.num_envs if transition.valid is None else int(valid.sum())
        self.position = following
        self.filled = min(self.filled + 1, self.timesteps)
        if np.count_nonzero(transition.terminated) or np.count_nonzero(transition.truncated):
            self._keep_successors(t, arrays["terminated"][t] | arrays["truncated"][t])
        for priorities in self.priorities:
            if priorities.lag == 0:
                priorities.add(self._rows_of(t), valid)
            elif self.filled > priorities.lag:
                priorities.add(self._rows_of((t - priorities.lag) % self.length), np.ones(self.num_envs, bool))

    def interrupt(self, part: int | None = None) -> None:
        """Mark the newest row of every copy, or of a part's, as truncated, unless its episode ended there.

        Its next row is another episode's.
        """
        if not self.filled:
            return
        t = (self.position - 1) % self.length
        running = ~(self._arrays["terminated"][t] | self._arrays["truncated"][t]) & self._arrays["valid"][t]
        if part is not None:
            own = self.columns(part)
            running[: own.start] = running[own.stop :] = False
        self._arrays["truncated"][t] |= running
        self._keep_successors(t, running)

    def _keep_successors(self, t: int, copies: np.ndarray) -> None:
        """Copy the successors of `copies` (N,) bool in row t, still in the row after it, to where they stay."""
        copies = np.flatnonzero(copies)
        if not len(copies):
            return
        if len(self._free) < len(copies):
            self._add_slots(len(copies))
        slots = [self._free.pop() for _ in copies]
        self._slots[t, copies] = np.array(slots) + 1
        for name in self.observations:
            self._kept[name][slots] = self._arrays[name][(t + 1) % self.length, copies]

    def _add_slots(self, least: int) -> None:
        held = len(next(iter(self._kept.values()))) if self._kept else 0
        more = max(least, held, 8)
        for name in self.observations:
            array = self._arrays[name]
            empty = np.zeros((more, *array.shape[2:]), array.dtype)
            self._kept[name] = np.concatenate((self._kept[name], empty)) if held else empty
        self._free += reversed(range(held, held + more))

    def _forget(self, t: int) -> None:
        """Free the row t, the oldest: the newest successors are going to be there."""
        self.count -= int(self._arrays["valid"][t].sum()) if self.any_invalid else self.num_envs
        slots = self._slots[t]
        if np.count_nonzero(slots):  # a quarter of the time of any()
            self._free += (slots[slots > 0] - 1).tolist()
            slots[:] = 0
        for priorities in self.priorities:
            priorities.add(self._rows_of(t), np.zeros(self.num_envs, bool))

    def _rows_of(self, t: int) -> np.ndarray:
        return np.arange(t * self.num_envs, (t + 1) * self.num_envs)

    def at(self) -> np.ndarray:
        """Return the places of all timesteps (K,), from the oldest on."""
        return (self.position - self.filled + np.arange(self.filled)) % self.length

    def rows(self) -> np.ndarray:
        """Return the rows of all transitions (K x N,), from the oldest timestep on."""
        return (self.at()[:, None] * self.num_envs + np.arange(self.num_envs)).reshape(-1)

    def _allocate(self, observations: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Make the arrays, of the first row's shapes and types; numbers of 64 bits are kept as 32, as networks read them."""
        shapes = {
            name: (np.shape(array), _kept_type(np.asarray(array).dtype)) for name, array in {**observations, **outputs}.items()
        }
        flags = dict.fromkeys(("terminated", "truncated", "valid"), ((self.num_envs,), np.dtype(bool)))
        shapes = {**shapes, "rewards": ((self.num_envs,), np.dtype(np.float32)), **flags}
        slots = np.dtype(np.int32 if self.length * self.num_envs < 2**31 else np.int64)
        total = sum(self.length * int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
        total += self.length * self.num_envs * slots.itemsize
        self._new = self._new or allocator(self.size, total, *self._allocator)
        self._slots = self._new((self.length, self.num_envs), slots)
        self._arrays = {name: self._new((self.length, *shape), dtype) for name, (shape, dtype) in shapes.items()}
        self._view()
        self.observations, self.outputs = list(observations), list(outputs)

    # -- reading -------------------------------------------------------------------------------------------------------

    def successors(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        """Return the rows after these (B,), the true successors' observations (B, ...), and which of them are kept apart."""
        slots = self._slots.reshape(-1).take(rows)
        kept = np.flatnonzero(slots)
        following = (rows + self.num_envs) % (self.length * self.num_envs)
        found = {}
        for name in self.observations:
            found[name] = self.flat[name].take(following, 0)
            if len(kept):
                found[name][kept] = self._kept[name][slots[kept] - 1]
        return following, found, kept

    def newest(self, timesteps: int) -> tuple[Arrays, np.ndarray | None]:
        """Return the observations (K, *O) of the newest timesteps and weights (K,), 0 where the row did not happen, or None."""
        at = (self.position - timesteps + np.arange(timesteps)) % self.length
        found = {name: self._arrays[name][at].reshape(-1, *self._arrays[name].shape[2:]) for name in self.observations}
        weights = self._arrays["valid"][at].reshape(-1).astype(np.float32) if self.any_invalid else None
        return spaces.unnamed(found, "observations"), weights

    # -- keeping -------------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, np.ndarray]:
        """Return every timestep from the oldest on, each array (K, N, ...), with "next_observations": the true successors."""
        at = self.at()
        found = {name: array[at] for name, array in self._arrays.items()}
        slots = self._slots[at]
        for name in self.observations:
            successors = self._arrays[name][(at + 1) % self.length]
            successors[slots > 0] = self._kept[name][slots[slots > 0] - 1] if self._kept else 0
            found[f"next_{name}"] = successors
        return found

    def export(self, path: str | Path) -> None:
        """Write every transition to a .npz or .parquet file, with its true successor."""
        if not self.filled:
            raise ConfigError("path", path, "the memory is empty: there is nothing to write")
        files.write(Path(path), self.read())

    def load(self, path: str | Path) -> None:
        """Record the transitions of a file that `export` wrote, as episodes of their own; the newest, if not all fit.

        Raises ConfigError if it holds something else, or transitions of another number of copies.
        """
        arrays = files.read(Path(path))
        timesteps, copies = arrays["rewards"].shape
        if copies != self.num_envs:
            raise ConfigError("path", path, f"holds transitions of {copies} copies; this memory is of {self.num_envs}")
        first = not self._arrays
        if not first:
            rows = {name: array[0] for name, array in arrays.items() if name.split("/")[0] in ("observations", *OUTPUTS)}
            self._check_form(path, rows, "the file's", ours="this memory's")
        self.interrupt()
        for t in range(max(0, timesteps - self.timesteps), timesteps):
            row = {name: array[t] for name, array in arrays.items()}
            observations, successors = spaces.unnamed(row, "observations"), spaces.unnamed(row, "next_observations")
            rewards, terminated, truncated, valid = (row.pop(name) for name in ("rewards", "terminated", "truncated", "valid"))
            outputs = {name: row[name] for name in OUTPUTS if name in row}
            self._write(
                Transition(
                    observations,
                    None,
                    row["actions"],
                    successors,
                    None,
                    rewards,
                    terminated,
                    truncated,
                    None if valid.all() else valid,
                    {},
                    outputs,
                )
            )
        self.interrupt()
        self._loaded = path if first else None

    def _check_form(self, path: str | Path, row: dict[str, Any], theirs: str, ours: str = "the file's") -> None:
        """Raise ConfigError unless a row (N, ...) has the arrays that are here, of their shapes."""
        here = {name: self._arrays[name].shape[2:] for name in (*self.observations, *self.outputs)}
        there = {name: np.shape(array)[1:] for name, array in row.items()}
        if here != there:
            raise ConfigError("path", path, f"{ours} transitions are of {_names(here)}, {theirs} of {_names(there)}")

    def snapshot(self) -> dict[str, Any]:
        """Return all transitions and where they are."""
        at = self.at()
        slots = self._slots[at]
        return {
            "position": self.position,
            "arrays": {name: array[at] for name, array in self._arrays.items()} if self.filled else {},
            "observations": list(self.observations),
            "newest_successors": {name: self._arrays[name][self.position].copy() for name in self.observations},
            "kept_at": np.argwhere(slots),
            "kept": {name: array[slots[slots > 0] - 1] for name, array in self._kept.items()},
            "any_invalid": self.any_invalid,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back where it was.

        Raises ValueError if it is of another number of copies, or more than fits.
        """
        self.clear()
        arrays = snapshot["arrays"]
        if not arrays:
            return
        filled, copies = arrays["rewards"].shape
        if copies != self.num_envs or filled > self.timesteps or snapshot["position"] >= self.length:
            raise ValueError(f"the memory there doesn't fit {self.timesteps} timesteps of {self.num_envs} copies")
        names = list(snapshot["observations"])
        others = arrays.keys() - {*names, "rewards", "terminated", "truncated", "valid"}
        self._allocate({name: arrays[name][0] for name in names}, {name: arrays[name][0] for name in arrays if name in others})
        self.position, self.filled = int(snapshot["position"]), filled
        at = self.at()
        for name, array in arrays.items():
            self._arrays[name][at] = array
        for name, array in snapshot["newest_successors"].items():
            self._arrays[name][self.position] = array
        if "action_masks" in self._arrays:
            self._arrays["action_masks"][self.position] = True
        self.count, self.any_invalid = int(arrays["valid"].sum()), bool(snapshot["any_invalid"])
        kept_at = np.array(snapshot["kept_at"])
        self._kept = {name: np.array(array) for name, array in snapshot["kept"].items()}
        self._slots[at[kept_at[:, 0]], kept_at[:, 1]] = np.arange(1, len(kept_at) + 1)


def _kept_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype == np.float64 else dtype


def _names(form: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in form.items()) or "nothing"
