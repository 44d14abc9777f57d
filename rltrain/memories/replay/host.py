"""The part of a replay memory that both backends share: transitions in host arrays, drawn at random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.memories.replay.priorities import Priorities
from rltrain.memories.replay.ring import CARRY, Ring
from rltrain.structures import Arrays, Transition

ACTED = ("starts", "actions_before")  # outputs of all rows that networks remember


class Window(NamedTuple):
    """What is drawn for networks that remember: timesteps of a copy, one after the other."""

    burn_in: int  # first of them, which aren't learned from
    length: int  # those learned from
    timesteps: int  # all of them: with those that n-step returns reach

    def place(self, last: Any, first: Any, copies: int, total: int) -> Any:
        """Return which timesteps after burn-in the rows `last` are, of windows that begin in the rows `first`."""
        return (last - first) % total // copies - self.burn_in


class Sample(NamedTuple):
    """B transitions; composite observations are dicts of arrays.

    For networks that remember, S windows of T timesteps, of which L are learned from. Shapes are then (S, T, ...) of
    `observations` and of what acting carried, (S, L, ...) of all else.
    """

    observations: Arrays  # (B, *O) raw
    next_observations: Arrays  # (B, *O) the true successors that targets bootstrap from
    returns: Any  # (B,) sums of the next k rewards, the first undiscounted
    discounts: Any  # (B,) gamma^k, 0 where the episode terminated
    outputs: dict[str, Any]  # each (B, ...), what acting wanted back: "actions", "action_masks" and "next_action_masks"
    weights: Any  # (B,) importance weights, or None: all alike
    rows: Any  # (B,) where they are, of windows where these begin, (S,), for `update_priorities`; or None
    # ---- of windows
    carry: Any = None  # what acting remembered before them, arrays (S, layers, H); None: it isn't kept
    last: Any = None  # (S, L) the last rows of the sums, in timesteps after burn-in
    last_actions: Any = None  # (S, L, ...) what was done there
    happened: Any = None  # (S, L) float32: 0 where the row didn't happen; None: all did


class Replay:
    """Draws from the last T timesteps of N copies, which are in a `Ring`: its own, or one that several agents share.

    What is there is raw; how it is learned from belongs to who draws, as the generator and the priorities do.

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
        window: Window | None = None,
    ) -> None:
        self.n_steps, self.window = n_steps, window
        self.powers = (discount_factor ** np.arange(n_steps + 1)).astype(np.float32)
        self.reward_scale, self.reward_clip = reward_scale, reward_clip
        self.priority_exponent = priority_exponent
        self.generator = np.random.default_rng(seed)
        self._allocation: dict[str, Any] = {"mapped": mapped, "directory": directory}
        self.priorities: Priorities | None = None
        self._draw_from(Ring(size, [(key, num_envs)], **self._allocation), 0)

    def _draw_from(self, ring: Ring, part: int) -> None:
        self.ring, self.part = ring, part
        if self.priority_exponent is not None:
            lag = 0 if self.window is None else self.window.timesteps - 1
            self.priorities = Priorities(ring.length * ring.num_envs, self.priority_exponent, lag)
            ring.priorities.append(self.priorities)

    def share(self, others: Sequence[Self]) -> None:
        """Record into one ring with others and draw from it: this one's copies first, then theirs in order.

        It is as large as this one was. Raises ConfigError if transitions are there already.
        """
        together = [self, *others]
        parts = [part for memory in together for part in memory.ring.parts]
        if all(memory.ring is self.ring and memory.part == i for i, memory in enumerate(together)):
            return
        for memory in together:
            key = memory.ring.parts[memory.part][0]
            if memory.filled or memory.is_shared:
                raise ConfigError(f"{key}.memory_of", parts[0][0], "a memory is in use already; share it before training")
        ring = Ring(self.ring.size, parts, **self._allocation)
        for i, memory in enumerate(together):
            memory._draw_from(ring, i)

    def replicate(self, recipe: Any, part: int, transitions: dict[str, Any] | None) -> None:
        """Draw from a ring like that of `recipe`, for a process in which the others' rows are written to `ring` as well."""
        self._draw_from(Ring.of(recipe), part)
        if transitions is not None:
            self.ring.restore(transitions)

    # -- the ring ------------------------------------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether several record into the ring."""
        return len(self.ring.parts) > 1

    @property
    def is_borrowed(self) -> bool:
        """Whether the ring is another one's, which keeps it."""
        return self.part > 0

    @property
    def owner(self) -> str:
        """The key of who keeps the ring."""
        return self.ring.parts[0][0]

    @property
    def capacity(self) -> int:
        """Rows that this one keeps when it is full."""
        return 0 if self.is_borrowed else self.ring.length * self.ring.num_envs

    @property
    def num_envs(self) -> int:
        """Copies in a timestep, of all who record."""
        return self.ring.num_envs

    @property
    def timesteps(self) -> int:
        """Timesteps that fit."""
        return self.ring.timesteps

    @property
    def filled(self) -> int:
        """Timesteps that are here."""
        return self.ring.filled

    @property
    def count(self) -> int:
        """Transitions that are here, without those that did not happen."""
        return self.ring.count

    def clear(self) -> None:
        """Forget all transitions."""
        self.ring.clear()

    def record(self, transition: Transition) -> None:
        """Write one row per copy over the oldest ones, when all who share the ring have recorded theirs."""
        self.ring.record(transition, self.part)

    def interrupt(self) -> None:
        """Mark the newest row of every copy as truncated, unless its episode ended there: its next row is another episode's."""
        self.ring.interrupt(self.part)

    def newest(self, timesteps: int) -> tuple[Arrays, np.ndarray | None]:
        """Return the observations (K, *O) of the newest timesteps and weights (K,), 0 where the row did not happen, or None."""
        return self.ring.newest(timesteps)

    # -- reading -------------------------------------------------------------------------------------------------------

    def draw(self, batch_size: int, importance_exponent: float = 0.0) -> Sample:
        """Return transitions, or windows, drawn uniformly or by priority with replacement; in O(batch), however many are here."""
        ring, weights = self.ring, None
        if self.priorities is None:
            rows = self._draw_rows(batch_size) if self.window is None else self._draw_firsts(batch_size)
        else:
            rows, probabilities = self.priorities.sample(batch_size, self.generator)
            count = self.count if self.window is None else self._count_windows()
            weights = (count * probabilities) ** -importance_exponent
            weights = (weights / weights.max()).astype(np.float32)
        if self.window is not None:
            return self._read_windows(rows, weights)
        last, returns, discounts = self._sum_rewards(rows)
        flat = ring.flat
        outputs = {name: flat[name].take(rows, 0) for name in ring.outputs}
        following, successors, kept = ring.successors(last)
        if "action_masks" in outputs:
            outputs["next_action_masks"] = flat["action_masks"].take(following, 0)
            outputs["next_action_masks"][kept] = True  # what is allowed there was never said
        observations = {name: flat[name].take(rows, 0) for name in ring.observations}
        return Sample(
            spaces.unnamed(observations, "observations"),
            spaces.unnamed(successors, "observations"),
            returns,
            discounts,
            outputs,
            weights,
            rows,
        )

    def _count_windows(self) -> int:
        assert self.window is not None
        return (self.filled - self.window.timesteps + 1) * self.num_envs

    def _draw_firsts(self, count: int) -> np.ndarray:
        """Draw the rows in which windows begin, (S,), uniformly."""
        return self._nth(self.generator.integers(0, self._count_windows(), count))

    def _read_windows(self, first: np.ndarray, weights: np.ndarray | None) -> Sample:
        """Return the windows that begin in these rows (S,)."""
        window, ring, flat = self.window, self.ring, self.ring.flat
        assert window is not None
        total = ring.length * ring.num_envs
        rows = (first[:, None] + np.arange(window.timesteps) * ring.num_envs) % total
        learned = rows[:, window.burn_in : window.burn_in + window.length]
        shape = learned.shape
        last, returns, discounts = self._sum_rewards(learned.reshape(-1))
        following, successors, kept = ring.successors(last)
        outputs = {name: flat[name].take(rows if name in ACTED else learned, 0) for name in ring.outputs if name not in CARRY}
        if "action_masks" in outputs:
            masks = flat["action_masks"].take(following, 0)
            masks[kept] = True
            outputs["next_action_masks"] = masks.reshape(*shape, -1)
        observations = {name: flat[name].take(rows, 0) for name in ring.observations}
        carry = tuple(flat[name].take(first, 0) for name in CARRY if name in flat)
        return Sample(
            spaces.unnamed(observations, "observations"),
            spaces.unnamed({name: array.reshape(*shape, *array.shape[1:]) for name, array in successors.items()}, "observations"),
            returns.reshape(shape),
            discounts.reshape(shape),
            outputs,
            None if weights is None else np.repeat(weights[:, None], window.length, 1),
            first,
            carry or None,
            window.place(last.reshape(shape), first[:, None], ring.num_envs, total),
            flat["actions"].take(last, 0).reshape(*shape, *flat["actions"].shape[1:]),
            flat["valid"].take(learned).astype(np.float32) if ring.any_invalid else None,
        )

    def _draw_rows(self, count: int) -> np.ndarray:
        """Draw rows (B,) uniformly; those that did not happen are drawn anew, which leaves the others equally likely."""
        rows = self._nth(self.generator.integers(0, self.filled * self.num_envs, count))
        if self.ring.any_invalid:
            wrong = np.flatnonzero(~self.ring.flat["valid"].take(rows))
            while len(wrong):
                rows[wrong] = self._nth(self.generator.integers(0, self.filled * self.num_envs, len(wrong)))
                wrong = wrong[~self.ring.flat["valid"].take(rows[wrong])]
        return rows

    def _nth(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of transitions counted from the oldest one."""
        ring = self.ring
        oldest = (ring.position - ring.filled) % ring.length * ring.num_envs
        return (oldest + numbers) % (ring.length * ring.num_envs)

    def _sum_rewards(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the last row of each sum, the sum G = r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1) and gamma^k, each (B,)."""
        ring, flat = self.ring, self.ring.flat
        total = ring.length * ring.num_envs
        returns = self._rewards(rows)
        if self.n_steps == 1:
            return rows, returns, self.powers[1] * ~flat["terminated"].take(rows)
        last, steps = rows, np.ones(len(rows), np.int64)
        newest = (ring.position - 1) % ring.length
        going = np.ones(len(rows), bool)
        for k in range(1, self.n_steps):
            following = (last + ring.num_envs) % total
            going &= ~(flat["terminated"].take(last) | flat["truncated"].take(last)) & (last // ring.num_envs != newest)
            going &= flat["valid"].take(following)
            last = np.where(going, following, last)
            returns += self.powers[k] * going * self._rewards(last)
            steps += going
        return last, returns, self.powers.take(steps) * ~flat["terminated"].take(last)

    def _rewards(self, rows: np.ndarray) -> np.ndarray:
        """Return rewards (B,) as they are learned from."""
        rewards = self.ring.flat["rewards"].take(rows)
        if self.reward_scale != 1:
            rewards *= np.float32(self.reward_scale)
        return rewards if self.reward_clip is None else np.clip(rewards, -self.reward_clip, self.reward_clip)

    def update_priorities(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn rows (B,), or of windows that begin there, by the errors (B,) they had."""
        assert self.priorities is not None
        self.priorities.update(rows, errors)

    # -- keeping -------------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, np.ndarray]:
        """Return every timestep from the oldest on, each array (K, N, ...), with "next_observations": the true successors."""
        return self.ring.read()

    def export(self, path: str | Path) -> None:
        """Write every transition to a .npz or .parquet file, with its true successor."""
        self.ring.export(path)

    def load(self, path: str | Path) -> None:
        """Record the transitions of a file that `export` wrote, as episodes of their own; the newest, if not all fit.

        Raises ConfigError if it holds something else, or transitions of another number of copies.
        """
        self.ring.load(path)

    def snapshot(self) -> dict[str, Any]:
        """Return all transitions and where they are, unless they are another's to keep; priorities and the generator."""
        ring, priorities = self.ring, self.priorities
        return {
            **({"position": ring.position, "filled": ring.filled} if self.is_borrowed else ring.snapshot()),
            "priorities": None if priorities is None else priorities.read(ring.rows()),
            "largest_priority": None if priorities is None else priorities.largest,
            "generator": self.generator.bit_generator.state,
        }

    def restore(self, snapshot: dict[str, Any] | None) -> None:
        """Put everything back where it was, or nothing; a ring of another's is put back by that one, before.

        Raises ValueError if it is of another number of copies, or more than fits.
        """
        if not self.is_borrowed:
            self.clear()
        if snapshot is None:
            return
        if self.is_borrowed != ("arrays" not in snapshot):
            raise ValueError("the memory there is another agent's" if self.is_borrowed else "the memory there is its own")
        self.generator.bit_generator.state = snapshot["generator"]
        if not self.is_borrowed:
            self.ring.restore(snapshot)
        elif (self.ring.position, self.ring.filled) != (int(snapshot["position"]), int(snapshot["filled"])):
            return  # what the priorities belong to isn't there
        if self.priorities is not None and snapshot["priorities"] is not None:
            priorities = np.array(snapshot["priorities"])
            if lag := self.priorities.lag * self.num_envs:  # with another n_steps other windows are whole
                whole = np.arange(len(priorities)) < len(priorities) - lag
                largest = float(snapshot["largest_priority"]) ** self.priorities.exponent
                priorities = np.where(whole, np.where(priorities > 0, priorities, largest), 0.0)
            self.priorities.restore(self.ring.rows(), priorities, float(snapshot["largest_priority"]))
