"""Replay memories in JAX: on the device, or on the host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.memories.replay import files
from rltrain.memories.replay.host import ACTED, Replay, Sample, Window
from rltrain.memories.replay.ring import CARRY, Ring
from rltrain.memories.rollout.jax import Rollout
from rltrain.structures import Array, Arrays, Transition


class Transitions(NamedTuple):
    """The last T timesteps of N copies on the device. Composite observations are dicts of arrays."""

    observations: Arrays  # (T, N, *O)
    next_observations: Arrays  # (T, N, *O), the true successors
    rewards: Array  # (T, N)
    terminated: Array  # (T, N) bool
    truncated: Array  # (T, N) bool
    outputs: dict[str, Array]  # each (T, N, ...)
    position: Array  # () where the next row goes
    filled: Array  # () timesteps that are here
    recorded: Array  # () timesteps that ever were


class ReplayOnDevice:
    """A replay memory as pure functions over `Transitions`, for environments on the device: written in place, drawn from there.

    Each row holds its successor too, as compiled code wants one shape, whatever was truncated: twice the memory of `Replay`,
    which is where host environments' transitions are. n-step returns are made when a batch is drawn, as there.
    """

    def __init__(
        self,
        size: int,
        num_envs: int,
        *,
        discount_factor: float,
        n_steps: int,
        reward_scale: float,
        reward_clip: float | None,
        window: Window | None = None,
    ) -> None:
        self.window = window
        self.timesteps, self.num_envs, self.n_steps = max(1, size // num_envs), num_envs, n_steps
        self.powers = (discount_factor ** np.arange(n_steps + 1)).astype(np.float32)
        self.reward_scale, self.reward_clip = reward_scale, reward_clip

    def empty(self, row: Rollout) -> Transitions:
        """Return a memory for rows (N, ...) of these shapes and types, without any."""

        def zeros(arrays: Any) -> Any:
            return jax.tree.map(
                lambda array: jnp.zeros((self.timesteps, *array.shape), dtypes.canonicalize_dtype(array.dtype)), arrays
            )

        return Transitions(
            zeros(row.observations),
            zeros(row.next_observations),
            zeros(row.rewards),
            zeros(row.terminated),
            zeros(row.truncated),
            zeros(row.outputs),
            jnp.int32(0),
            jnp.int32(0),
            jnp.int32(0),
        )

    def record(self, memory: Transitions, row: Rollout) -> Transitions:
        """Return the memory with a row (N, ...) over the oldest one."""
        new = {name: getattr(row, name) for name in Transitions._fields[:6]}
        old = {name: getattr(memory, name) for name in new}
        written = jax.tree.map(lambda rows, row: rows.at[memory.position].set(row), old, new)
        return memory._replace(
            **written,
            position=(memory.position + 1) % self.timesteps,
            filled=jnp.minimum(memory.filled + 1, self.timesteps),
            recorded=memory.recorded + 1,
        )

    def interrupt(self, memory: Transitions) -> Transitions:
        """Mark the newest row of every copy as truncated, unless its episode ended there: its next row is another episode's."""
        newest = (memory.position - 1) % self.timesteps
        running = ~(memory.terminated[newest] | memory.truncated[newest]) & (memory.filled > 0)
        return memory._replace(truncated=memory.truncated.at[newest].set(memory.truncated[newest] | running))

    def draw_rows(self, memory: Transitions, key: Array, count: int) -> Array:
        """Return where transitions are, or where windows begin, drawn uniformly with replacement, (count,)."""
        timesteps = memory.filled if self.window is None else memory.filled - self.window.timesteps + 1
        numbers = jax.random.randint(key, (count,), 0, timesteps * self.num_envs)
        oldest = (memory.position - memory.filled) % self.timesteps * self.num_envs
        return (oldest + numbers) % (self.timesteps * self.num_envs)

    def read(self, memory: Transitions, rows: Array) -> Sample:
        """Return the transitions that are there (B,), or the windows that begin there."""
        if self.window is not None:
            return self._read_windows(memory, rows, self.window)
        last, returns, discounts = self._sum_rewards(memory, rows)
        outputs = {name: _take(array, rows) for name, array in memory.outputs.items()}
        if "action_masks" in outputs:
            outputs["next_action_masks"] = self._next_masks(memory, last)
        observations = spaces.map_arrays(lambda array: _take(array, rows), memory.observations)
        successors = spaces.map_arrays(lambda array: _take(array, last), memory.next_observations)
        return Sample(observations, successors, returns, discounts, outputs, None, None)

    def _read_windows(self, memory: Transitions, first: Array, window: Window) -> Sample:
        """Return the windows that begin in these rows (S,)."""
        total = self.timesteps * self.num_envs
        rows = (first[:, None] + jnp.arange(window.timesteps) * self.num_envs) % total
        learned = rows[:, window.burn_in : window.burn_in + window.length]
        shape = learned.shape
        take = lambda array, rows: _take(array, rows.reshape(-1)).reshape(*rows.shape, *array.shape[2:])  # noqa: E731
        last, returns, discounts = self._sum_rewards(memory, learned.reshape(-1))
        whole, names = memory.outputs, [name for name in memory.outputs if name not in CARRY]
        outputs = {name: take(whole[name], rows if name in ACTED else learned) for name in names}
        if "action_masks" in outputs:
            outputs["next_action_masks"] = self._next_masks(memory, last).reshape(*shape, -1)
        last = last.reshape(shape)
        return Sample(
            spaces.map_arrays(lambda array: take(array, rows), memory.observations),
            spaces.map_arrays(lambda array: take(array, last), memory.next_observations),
            returns.reshape(shape),
            discounts.reshape(shape),
            outputs,
            None,
            None,
            tuple(take(whole[name], first) for name in CARRY if name in whole) or None,
            window.place(last, first[:, None], self.num_envs, total),
            take(whole["actions"], last),
        )

    def _next_masks(self, memory: Transitions, last: Array) -> Array:
        """Return what is allowed after these rows (B, M); where an episode was cut off, or is now, that was never said."""
        unknown = _take(memory.truncated, last) | (last // self.num_envs == (memory.position - 1) % self.timesteps)
        return _take(memory.outputs["action_masks"], self._following(last)) | unknown[:, None]

    def _following(self, rows: Array) -> Array:
        return (rows + self.num_envs) % (self.timesteps * self.num_envs)

    def _sum_rewards(self, memory: Transitions, rows: Array) -> tuple[Array, Array, Array]:
        """Return the last row of each sum, the sum G = r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1) and gamma^k, each (B,)."""
        last, steps = rows, jnp.ones(len(rows), jnp.int32)
        returns = self._rewards(memory, rows)
        newest = (memory.position - 1) % self.timesteps
        going = jnp.ones(len(rows), bool)
        for k in range(1, self.n_steps):
            going &= ~(_take(memory.terminated, last) | _take(memory.truncated, last)) & (last // self.num_envs != newest)
            last = jnp.where(going, self._following(last), last)
            returns += self.powers[k] * going * self._rewards(memory, last)
            steps += going
        return last, returns, jnp.asarray(self.powers)[steps] * ~_take(memory.terminated, last)

    def _rewards(self, memory: Transitions, rows: Array) -> Array:
        """Return rewards (B,) as they are learned from."""
        rewards = _take(memory.rewards, rows)
        if self.reward_scale != 1:
            rewards = rewards * np.float32(self.reward_scale)
        return rewards if self.reward_clip is None else jnp.clip(rewards, -self.reward_clip, self.reward_clip)

    def newest(self, memory: Transitions, timesteps: int) -> Arrays:
        """Return the observations (K x N, *O) of the newest timesteps, the newest ones last."""
        at = (memory.position - timesteps + jnp.arange(timesteps)) % self.timesteps
        return spaces.map_arrays(lambda array: array[at].reshape(-1, *array.shape[2:]), memory.observations)

    def snapshot(self, memory: Transitions) -> dict[str, Any]:
        """Return all transitions and where they are."""
        position, filled, recorded = (int(number) for number in memory[6:])
        at = (position - filled + np.arange(filled)) % self.timesteps
        arrays = {
            "next_observations": spaces.named(memory.next_observations, "observations"),
            "observations": spaces.named(memory.observations, "observations"),
            "outputs": memory.outputs,
            "rest": {"rewards": memory.rewards, "terminated": memory.terminated, "truncated": memory.truncated},
        }
        kept = {name: {part: np.asarray(array)[at] for part, array in parts.items()} for name, parts in arrays.items()}
        return {"on_device": True, "position": position, "recorded": recorded, "arrays": kept}

    def restore(self, snapshot: dict[str, Any]) -> Transitions:
        """Return the memory that `snapshot` was taken of.

        Raises ValueError if it is of another number of copies, or more than fits.
        """
        arrays, position = snapshot["arrays"], int(snapshot["position"])
        filled, copies = arrays["rest"]["rewards"].shape
        if copies != self.num_envs or filled > self.timesteps or position >= self.timesteps:
            raise ValueError(f"the memory there doesn't fit {self.timesteps} timesteps of {self.num_envs} copies")
        at = (position - filled + np.arange(filled)) % self.timesteps

        def put(array: np.ndarray) -> Array:
            whole = np.zeros((self.timesteps, *array.shape[1:]), array.dtype)
            whole[at] = array
            return jnp.asarray(whole)

        parts = {name: {part: put(array) for part, array in parts.items()} for name, parts in arrays.items()}
        observations, successors = (spaces.unnamed(parts[n], "observations") for n in ("observations", "next_observations"))
        return Transitions(
            observations,
            successors,
            **parts["rest"],
            outputs=parts["outputs"],
            position=jnp.int32(position),
            filled=jnp.int32(filled),
            recorded=jnp.int32(snapshot["recorded"]),
        )


class ReplayMemory:
    """A replay memory that is where the environment is: the first row decides, by whether it is of NumPy arrays.

    On the host it is `host`, which priorities need and what is kept in a file; on the device it is `rows`.
    """

    may_be_left_out = True  # of a checkpoint

    def __init__(self, host: Replay, on_device: ReplayOnDevice, why_not_on_device: str) -> None:
        self.host, self.on_device, self._why_not_on_device = host, on_device, why_not_on_device
        self.rows: Transitions | None = None
        self.env_steps = 0  # since the last update, on the host
        self.unfolded = 0  # timesteps on the host that the observations' statistics don't know yet
        self._record, self._interrupt = (jax.jit(f, donate_argnums=0) for f in (on_device.record, on_device.interrupt))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded."""
        return self.rows is None and self.host.filled == 0

    @property
    def count(self) -> int:
        """Transitions that are here, without those that did not happen."""
        return self.host.count if self.rows is None else int(self.rows.filled) * self.on_device.num_envs

    @property
    def why_not_lent(self) -> str:
        """What keeps a fused loop from having it; nothing if nothing does."""
        return self._why_not_on_device or ("the memory is on the host" if self.host.filled else "")

    @property
    def num_envs(self) -> int:
        """Copies in a timestep, of all who record."""
        return self.host.num_envs

    @property
    def is_shared(self) -> bool:
        """Whether several agents record here."""
        return self.host.is_shared

    @property
    def is_borrowed(self) -> bool:
        """Whether it is another agent's, which keeps it."""
        return self.host.is_borrowed

    @property
    def capacity(self) -> int:
        """Rows that this one keeps when it is full."""
        return self.host.capacity

    def share(self, others: Sequence["ReplayMemory"]) -> None:
        """Record into one memory on the host with others and draw from it; see `Replay.share`."""
        self.host.share([memory.host for memory in others])
        for memory in (self, *others):
            memory._stay_on_host()

    def replicate(self, recipe: Any, part: int, transitions: dict[str, Any] | None) -> None:
        """Draw from a memory on the host like that of `recipe`; see `Replay.replicate`."""
        self.host.replicate(recipe, part, transitions)
        self._stay_on_host()

    def _stay_on_host(self) -> None:
        self._why_not_on_device = f"{self.host.owner} shares its memory, which is on the host"

    @property
    def ring(self) -> Ring:
        """Where transitions on the host are."""
        return self.host.ring

    @property
    def part(self) -> int:
        """This one's number among those who record there."""
        return self.host.part

    def record(self, transition: Transition) -> None:
        """Write one row per copy over the oldest ones."""
        first = next(iter(spaces.named(transition.observations, "observations").values()))
        if self.rows is None and (isinstance(first, np.ndarray) or self.why_not_lent or transition.valid is not None):
            self.host.record(transition)
            self.env_steps += self.on_device.num_envs if transition.valid is None else int(np.sum(transition.valid))
            self.unfolded += 1
            return
        row = Rollout(
            transition.observations,
            None,
            transition.next_observations,
            None,
            transition.rewards,
            transition.terminated,
            transition.truncated,
            None,
            transition.outputs,
        )
        self.rows = self._record(self.on_device.empty(row) if self.rows is None else self.rows, row)

    def interrupt(self) -> None:
        """Mark the newest row of every copy as truncated, unless its episode ended there: its next row is another episode's."""
        if self.rows is None:
            self.host.interrupt()
        else:
            self.rows = self._interrupt(self.rows)

    def take_counts(self) -> tuple[int, int]:
        """Return env steps since the last update and timesteps that the statistics don't know yet; count anew."""
        counts = self.env_steps, self.unfolded
        self.env_steps = self.unfolded = 0
        return counts

    def lend(self, observations: Arrays, states: Arrays) -> Transitions | None:
        """Return what is on the device, or None if nothing was recorded."""
        return self.rows

    def take_back(self, rows: Transitions, timestep: int) -> None:
        """Take what a fused loop gives back."""
        self.rows = rows

    def clear(self) -> None:
        """Forget all transitions."""
        self.host.clear()
        self.rows, self.env_steps, self.unfolded = None, 0, 0

    def export(self, path: str | Path) -> None:
        """Write every transition to a .npz or .parquet file, with its true successor."""
        if self.rows is None:
            return self.host.export(path)
        parts = self.on_device.snapshot(self.rows)["arrays"]
        found = {**parts["observations"], **parts["rest"], **parts["outputs"], "valid": np.ones_like(parts["rest"]["truncated"])}
        successors = {f"next_{name}": array for name, array in parts["next_observations"].items()}
        files.write(Path(path), {**found, **successors})

    def load(self, path: str | Path) -> None:
        """Record the transitions of a file that `export` wrote, as episodes of their own; the newest, if not all fit.

        Raises ConfigError if it holds something else, or transitions of another number of copies, or this is on the device.
        """
        if self.rows is not None:
            raise ConfigError("path", path, "this memory is on the device already; load before training")
        self.host.load(path)

    def snapshot(self) -> dict[str, Any]:
        """Return all transitions and where they are."""
        if self.rows is not None:
            return self.on_device.snapshot(self.rows)
        return {"on_device": False, "env_steps": self.env_steps, "unfolded": self.unfolded, "host": self.host.snapshot()}

    def restore(self, snapshot: dict[str, Any] | None) -> None:
        """Put everything back where it was, or nothing.

        Raises ValueError if it is of another number of copies, more than fits, or where it can't be now.
        """
        self.rows, self.env_steps, self.unfolded = None, 0, 0
        if snapshot is None or snapshot["on_device"]:
            self.host.restore(None)
        if snapshot is None:
            return
        if not snapshot["on_device"]:
            self.host.restore(snapshot["host"])
            self.env_steps, self.unfolded = int(snapshot["env_steps"]), int(snapshot["unfolded"])
        elif self._why_not_on_device:
            raise ValueError(f"the memory there was on the device, but {self._why_not_on_device}")
        else:
            self.rows = self.on_device.restore(snapshot)


def _take(array: Array, rows: Array) -> Array:
    return array.reshape(-1, *array.shape[2:]).at[rows].get(mode="promise_in_bounds")
