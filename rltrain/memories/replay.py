"""The part of a replay memory that both backends share: transitions in host arrays, written in place, drawn at random."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.memories import files
from rltrain.memories.mapping import allocator
from rltrain.memories.priorities import Priorities
from rltrain.structures import Arrays, Transition


class Sample(NamedTuple):
    """B transitions; composite observations are dicts of arrays."""

    observations: Arrays  # (B, *O) raw
    next_observations: Arrays  # (B, *O) the true successors that targets bootstrap from
    returns: Any  # (B,) sums of the next k rewards, the first undiscounted
    discounts: Any  # (B,) gamma^k, 0 where the episode terminated
    outputs: dict[str, Any]  # each (B, ...), what acting wanted back: "actions", "action_masks" and "next_action_masks"
    weights: Any  # (B,) importance weights, or None: all alike
    rows: Any  # (B,) where they are, for `update_priorities`; or None


class Replay:
    """The last T timesteps of N copies, as a ring of T + 1 rows of arrays (T + 1, N, ...).

    A successor is the next row's observation. The row after the newest holds the newest successors; those that no row will hold
    (of truncated episodes) are kept apart, in slots. So images take half the memory of storing both, and drawing a batch costs
    one more look-up.

    n-step returns are made when a batch is drawn: the sum ends after `n_steps` rewards, where the episode terminated or was
    truncated, before a row that did not happen, or at the newest row, and bootstraps there with gamma^k after k rewards.
    """

    def __init__(
        self,
        size: int,
        num_envs: int,
        seed: int,
        *,
        discount_factor: float = 0.99,
        n_steps: int = 1,
        reward_scale: float = 1.0,
        reward_clip: float | None = None,
        priority_exponent: float | None = None,
        mapped: str = "auto",
        directory: str | None = None,
        key: str = "memory",
    ) -> None:
        self.timesteps, self.num_envs = max(1, size // num_envs), num_envs
        self.length = self.timesteps + 1
        self.n_steps = n_steps
        self.powers = (discount_factor ** np.arange(n_steps + 1)).astype(np.float32)
        self.reward_scale, self.reward_clip = reward_scale, reward_clip
        self.priorities = None if priority_exponent is None else Priorities(self.length * num_envs, priority_exponent)
        self.generator = np.random.default_rng(seed)
        self._allocator = (mapped, directory, key)
        self._new: Callable[..., np.ndarray] | None = None
        self._arrays: dict[str, np.ndarray] = {}  # each (T + 1, N, ...)
        self._flat: dict[str, np.ndarray] = {}  # the same as (T + 1) x N rows
        self._observations: list[str] = []  # their names
        self._outputs: list[str] = []  # those of what acting wanted back
        self._kept: dict[str, np.ndarray] = {}  # successors of truncated episodes, each (slots, ...)
        self._free: list[int] = []  # slots that hold none
        self.clear()

    def clear(self) -> None:
        """Forget all transitions."""
        self.position = 0  # where the next row goes, and the newest successors are
        self.filled = 0  # timesteps that are here
        self.count = 0  # transitions that are here, without those that did not happen
        self._slots = np.full((self.length, self.num_envs), -1, np.int64)  # of each row's kept successor; -1: none
        self._kept, self._free = {}, []
        self._any_invalid = False
        if self.priorities is not None:
            self.priorities.restore(np.zeros(0, np.int64), np.zeros(0), 1.0)

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, transition: Transition) -> None:
        """Write one row per copy over the oldest ones."""
        observations = spaces.named(transition.observations, "observations")
        if not self._arrays:
            self._allocate(observations, transition.outputs)
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
        self._any_invalid |= transition.valid is not None
        self.count += self.num_envs if transition.valid is None else int(valid.sum())
        self.position = following
        self.filled = min(self.filled + 1, self.timesteps)
        if np.count_nonzero(transition.truncated):
            self._keep_successors(t, arrays["truncated"][t] & ~arrays["terminated"][t])
        if self.priorities is not None:
            self.priorities.add(self._rows_of(t), valid)

    def interrupt(self) -> None:
        """Mark the newest row of every copy as truncated, unless its episode ended there: its next row is another episode's."""
        if not self.filled:
            return
        t = (self.position - 1) % self.length
        running = ~(self._arrays["terminated"][t] | self._arrays["truncated"][t]) & self._arrays["valid"][t]
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
        self._slots[t, copies] = slots
        for name in self._observations:
            self._kept[name][slots] = self._arrays[name][(t + 1) % self.length, copies]

    def _add_slots(self, least: int) -> None:
        held = len(next(iter(self._kept.values()))) if self._kept else 0
        more = max(least, held, 8)
        for name in self._observations:
            array = self._arrays[name]
            empty = np.zeros((more, *array.shape[2:]), array.dtype)
            self._kept[name] = np.concatenate((self._kept[name], empty)) if held else empty
        self._free += reversed(range(held, held + more))

    def _forget(self, t: int) -> None:
        """Free the row t, the oldest: the newest successors are going to be there."""
        self.count -= int(self._arrays["valid"][t].sum()) if self._any_invalid else self.num_envs
        slots = self._slots[t]
        if slots.max() >= 0:
            self._free += slots[slots >= 0].tolist()
            slots[:] = -1
        if self.priorities is not None:
            self.priorities.add(self._rows_of(t), np.zeros(self.num_envs, bool))

    def _rows_of(self, t: int) -> np.ndarray:
        return np.arange(t * self.num_envs, (t + 1) * self.num_envs)

    def _allocate(self, observations: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Make the arrays, of the first row's shapes and types; numbers of 64 bits are kept as 32, as networks read them."""
        shapes = {
            name: (np.shape(array), _kept_type(np.asarray(array).dtype)) for name, array in {**observations, **outputs}.items()
        }
        flags = dict.fromkeys(("terminated", "truncated", "valid"), ((self.num_envs,), np.dtype(bool)))
        shapes = {**shapes, "rewards": ((self.num_envs,), np.dtype(np.float32)), **flags}
        total = sum(self.length * int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
        self._new = self._new or allocator(total, *self._allocator)
        self._arrays = {name: self._new((self.length, *shape), dtype) for name, (shape, dtype) in shapes.items()}
        self._flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in self._arrays.items()}
        self._observations, self._outputs = list(observations), list(outputs)

    # -- reading -------------------------------------------------------------------------------------------------------

    def draw(self, batch_size: int, importance_exponent: float = 0.0) -> Sample:
        """Return transitions drawn uniformly, or by priority, with replacement; in O(batch), however many are here."""
        weights = None
        if self.priorities is None:
            rows = self._draw_rows(batch_size)
        else:
            rows, probabilities = self.priorities.sample(batch_size, self.generator)
            weights = (self.count * probabilities) ** -importance_exponent
            weights = (weights / weights.max()).astype(np.float32)
        last, returns, discounts = self._sum_rewards(rows)
        outputs = {name: self._flat[name].take(rows, 0) for name in self._outputs}
        slots = self._slots.reshape(-1).take(last)
        kept = np.flatnonzero(slots >= 0)
        following = (last + self.num_envs) % (self.length * self.num_envs)
        successors = {}
        for name in self._observations:
            successors[name] = self._flat[name].take(following, 0)
            if len(kept):
                successors[name][kept] = self._kept[name][slots[kept]]
        if "action_masks" in outputs:
            outputs["next_action_masks"] = self._flat["action_masks"].take(following, 0)
            outputs["next_action_masks"][kept] = True  # what is allowed there was never said
        observations = {name: self._flat[name].take(rows, 0) for name in self._observations}
        return Sample(
            spaces.unnamed(observations, "observations"), spaces.unnamed(successors, "observations"), returns, discounts,
            outputs, weights, rows,
        )  # fmt: skip

    def _draw_rows(self, count: int) -> np.ndarray:
        """Draw rows (B,) uniformly; those that did not happen are drawn anew, which leaves the others equally likely."""
        rows = self._nth(self.generator.integers(0, self.filled * self.num_envs, count))
        if self._any_invalid:
            wrong = np.flatnonzero(~self._flat["valid"].take(rows))
            while len(wrong):
                rows[wrong] = self._nth(self.generator.integers(0, self.filled * self.num_envs, len(wrong)))
                wrong = wrong[~self._flat["valid"].take(rows[wrong])]
        return rows

    def _nth(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of transitions counted from the oldest one."""
        oldest = (self.position - self.filled) % self.length * self.num_envs
        return (oldest + numbers) % (self.length * self.num_envs)

    def _sum_rewards(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the last row of each sum, the sum G = r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1) and gamma^k, each (B,)."""
        flat, total = self._flat, self.length * self.num_envs
        returns = self._rewards(rows)
        if self.n_steps == 1:
            return rows, returns, self.powers[1] * ~flat["terminated"].take(rows)
        last, steps = rows, np.ones(len(rows), np.int64)
        newest = (self.position - 1) % self.length
        going = np.ones(len(rows), bool)
        for k in range(1, self.n_steps):
            following = (last + self.num_envs) % total
            going &= ~(flat["terminated"].take(last) | flat["truncated"].take(last)) & (last // self.num_envs != newest)
            going &= flat["valid"].take(following)
            last = np.where(going, following, last)
            returns += self.powers[k] * going * self._rewards(last)
            steps += going
        return last, returns, self.powers.take(steps) * ~flat["terminated"].take(last)

    def _rewards(self, rows: np.ndarray) -> np.ndarray:
        """Return rewards (B,) as they are learned from."""
        rewards = self._flat["rewards"].take(rows)
        if self.reward_scale != 1:
            rewards *= np.float32(self.reward_scale)
        return rewards if self.reward_clip is None else np.clip(rewards, -self.reward_clip, self.reward_clip)

    def update_priorities(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn rows (B,) by the errors (B,) they had."""
        assert self.priorities is not None
        self.priorities.update(rows, errors)

    def newest(self, timesteps: int) -> tuple[Arrays, np.ndarray | None]:
        """Return the observations (K, *O) of the newest timesteps and weights (K,), 0 where the row did not happen, or None."""
        at = (self.position - timesteps + np.arange(timesteps)) % self.length
        found = {name: self._arrays[name][at].reshape(-1, *self._arrays[name].shape[2:]) for name in self._observations}
        weights = self._arrays["valid"][at].reshape(-1).astype(np.float32) if self._any_invalid else None
        return spaces.unnamed(found, "observations"), weights

    # -- keeping -------------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, np.ndarray]:
        """Return every timestep from the oldest on, each array (K, N, ...), with "next_observations": the true successors."""
        at = (self.position - self.filled + np.arange(self.filled)) % self.length
        found = {name: array[at] for name, array in self._arrays.items()}
        slots = self._slots[at]
        for name in self._observations:
            successors = self._arrays[name][(at + 1) % self.length]
            successors[slots >= 0] = self._kept[name][slots[slots >= 0]] if self._kept else 0
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
        self.interrupt()
        for t in range(max(0, timesteps - self.timesteps), timesteps):
            row = {name: array[t] for name, array in arrays.items()}
            observations, successors = spaces.unnamed(row, "observations"), spaces.unnamed(row, "next_observations")
            rewards, terminated, truncated, valid = (row.pop(name) for name in ("rewards", "terminated", "truncated", "valid"))
            self.record(
                Transition(
                    observations, None, row["actions"], successors, None, rewards, terminated, truncated,
                    None if valid.all() else valid, {}, row,
                )
            )  # fmt: skip
        self.interrupt()

    def snapshot(self) -> dict[str, Any]:
        """Return all transitions and where they are, and the generator that draws from them."""
        at = (self.position - self.filled + np.arange(self.filled)) % self.length
        slots = self._slots[at]
        rows = (at[:, None] * self.num_envs + np.arange(self.num_envs)).reshape(-1)
        return {
            "position": self.position,
            "arrays": {name: array[at] for name, array in self._arrays.items()} if self.filled else {},
            "observations": list(self._observations),
            "newest_successors": {name: self._arrays[name][self.position].copy() for name in self._observations},
            "kept_at": np.argwhere(slots >= 0),
            "kept": {name: array[slots[slots >= 0]] for name, array in self._kept.items()},
            "any_invalid": self._any_invalid,
            "priorities": None if self.priorities is None else self.priorities.read(rows),
            "largest_priority": None if self.priorities is None else self.priorities.largest,
            "generator": self.generator.bit_generator.state,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back where it was.

        Raises ValueError if it is of another number of copies, or more than fits.
        """
        self.clear()
        self.generator.bit_generator.state = snapshot["generator"]
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
        at = (self.position - filled + np.arange(filled)) % self.length
        for name, array in arrays.items():
            self._arrays[name][at] = array
        for name, array in snapshot["newest_successors"].items():
            self._arrays[name][self.position] = array
        if "action_masks" in self._arrays:
            self._arrays["action_masks"][self.position] = True
        self.count, self._any_invalid = int(arrays["valid"].sum()), bool(snapshot["any_invalid"])
        kept_at = np.array(snapshot["kept_at"])
        self._kept = {name: np.array(array) for name, array in snapshot["kept"].items()}
        self._slots[at[kept_at[:, 0]], kept_at[:, 1]] = np.arange(len(kept_at))
        if self.priorities is not None and snapshot["priorities"] is not None:
            rows = (at[:, None] * self.num_envs + np.arange(self.num_envs)).reshape(-1)
            self.priorities.restore(rows, snapshot["priorities"], float(snapshot["largest_priority"]))


def _kept_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype == np.float64 else dtype
