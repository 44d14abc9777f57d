"""Memories in JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.memories.replay import Sample
from rltrain.memories.staged import StagedRollout
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

    def lend(self) -> Rollout | None:
        """Return an unfinished rollout with zeros for the rows to come, or None if there is none."""
        if not self.position:
            return None
        position, self.position = self.position, self.length
        everything = np.arange(self.length * self.num_envs)[-self.num_envs :]
        zeros = {key: np.zeros((self.num_envs, *array.shape[2:]), array.dtype) for key, array in self._arrays.items()}
        self._successors.append({"rows": everything, **{key: zeros[key] for key in self._successor_keys()}})
        rollout = self.read()
        self.position = position
        return rollout

    def take_back(self, rollout: Rollout | None, position: int) -> None:
        """Stage the first `position` rows of a rollout that a fused loop gives back."""
        self.clear()
        self.position = position
        if rollout is None:
            return
        self._arrays = {
            **spaces.named(rollout.observations, "observations"),
            **({} if rollout.states is None else spaces.named(rollout.states, "states")),
            "rewards": rollout.rewards, "terminated": rollout.terminated, "truncated": rollout.truncated,
            "valid": np.ones((self.length, self.num_envs), bool), **rollout.outputs,
        }  # fmt: skip
        self._arrays = {key: np.array(array) for key, array in self._arrays.items()}
        for t in range(position):
            next_states = None if rollout.next_states is None else _row(rollout.next_states, t)
            self._keep_successors(t, rollout.truncated[t], _row(rollout.next_observations, t), next_states)

    def _successor_keys(self) -> list[str]:
        return [key for key in self._arrays if key.split("/")[0] in ("observations", "states")]


def _row(arrays: Arrays, t: int) -> Arrays:
    return spaces.map_arrays(lambda array: array[t], arrays)


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
        self, size: int, num_envs: int, *, discount_factor: float, n_steps: int, reward_scale: float, reward_clip: float | None
    ) -> None:
        self.timesteps, self.num_envs, self.n_steps = max(1, size // num_envs), num_envs, n_steps
        self.powers = (discount_factor ** np.arange(n_steps + 1)).astype(np.float32)
        self.reward_scale, self.reward_clip = reward_scale, reward_clip

    def empty(self, row: Rollout) -> Transitions:
        """Return a memory for rows (N, ...) of these shapes and types, without any."""

        def zeros(arrays: Any) -> Any:
            return jax.tree.map(lambda array: jnp.zeros((self.timesteps, *array.shape), array.dtype), arrays)

        return Transitions(
            zeros(row.observations), zeros(row.next_observations), zeros(row.rewards), zeros(row.terminated),
            zeros(row.truncated), zeros(row.outputs), jnp.int32(0), jnp.int32(0), jnp.int32(0),
        )  # fmt: skip

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

    def draw(self, memory: Transitions, key: Array, count: int) -> Sample:
        """Return transitions drawn uniformly with replacement."""
        numbers = jax.random.randint(key, (count,), 0, memory.filled * self.num_envs)
        oldest = (memory.position - memory.filled) % self.timesteps * self.num_envs
        rows = (oldest + numbers) % (self.timesteps * self.num_envs)
        last, returns, discounts = self._sum_rewards(memory, rows)
        outputs = {name: _take(array, rows) for name, array in memory.outputs.items()}
        if "action_masks" in outputs:  # what is allowed where an episode was cut off, or is now, was never said
            unknown = _take(memory.truncated, last) | (last // self.num_envs == (memory.position - 1) % self.timesteps)
            following = _take(memory.outputs["action_masks"], self._following(last))
            outputs["next_action_masks"] = following | unknown[:, None]
        observations = spaces.map_arrays(lambda array: _take(array, rows), memory.observations)
        successors = spaces.map_arrays(lambda array: _take(array, last), memory.next_observations)
        return Sample(observations, successors, returns, discounts, outputs, None, rows)

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
            observations, successors, **parts["rest"], outputs=parts["outputs"],
            position=jnp.int32(position), filled=jnp.int32(filled), recorded=jnp.int32(snapshot["recorded"]),
        )  # fmt: skip


def _take(array: Array, rows: Array) -> Array:
    return array.reshape(-1, *array.shape[2:]).at[rows].get(mode="promise_in_bounds")
