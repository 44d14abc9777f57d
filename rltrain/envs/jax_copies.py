"""Many copies of a functional environment as arrays and pure functions over them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.envs.jax_checks import CheckedEnv
from rltrain.errors import ConfigError
from rltrain.structures import Array, Arrays, Step, ended


class Copies(NamedTuple):
    """N copies between two steps."""

    env: Any  # the environment's state, every leaf (N, ...)
    observations: Arrays  # (N, *O) to act on next
    keys: Array  # (N,) random streams
    count: Array  # () steps so far: the key of copy i at step t is that of its stream and t
    done: Array  # (N,) bool: ended with the last step and not yet reset
    there: dict[str, Array] | None = None  # (N,) bool by member: acts in the next step; None: every member does
    awaited: dict[str, Array] | None = None  # (N,) bool by member: has not come yet in this episode; None: nobody comes late


class PureCopies:
    """N copies of a functional environment as pure functions over `Copies`."""

    members: tuple[str, ...] = ()

    def __init__(self, checked: CheckedEnv) -> None:
        env, self.env = checked.env, checked
        self.state_space = getattr(env, "state_space", None)
        self.choices: Any = self._find_choices(env.action_space) if hasattr(env, "action_masks") else None
        if self.state_space is not None and not hasattr(env, "states"):
            raise ConfigError("env.state_space", self.state_space, "the environment has no states(state) to go with it")
        if self.state_space is not None and list(spaces.leaves(self.state_space)) != [""]:
            raise ConfigError("env.state_space", self.state_space, "states must be one array, not a Dict or Tuple")
        if self.choices is None and hasattr(env, "action_masks"):
            raise ConfigError("env.action_space", env.action_space, "only Discrete and MultiDiscrete actions can be masked")

    def init(self, keys: Array) -> Copies:
        """Begin an episode in every copy; `keys` (N,) are their random streams."""
        state, observations = jax.vmap(self.env.reset)(self._draw(keys, jnp.int32(0), 1))
        return Copies(_typed(state), self._cast(observations), keys, jnp.int32(0), jnp.zeros(len(keys), bool))

    def step(self, copies: Copies, actions: Array) -> tuple[Copies, Step]:
        """Step all copies; their `observations` are the true successors until `reset_done`."""
        keys = self._draw(copies.keys, copies.count, 0)
        state, observations, *rest = jax.vmap(self.env.step)(keys, copies.env, actions)
        rewards, terminated, truncated = (
            spaces.map_arrays(lambda array: array.astype(dtype), arrays)  # noqa: B023
            for arrays, dtype in zip(rest, (jnp.float32, bool, bool), strict=True)
        )
        observations, truncated = self._cast(observations), spaces.map_arrays(lambda cut, end: cut & ~end, truncated, terminated)
        copies = copies._replace(
            env=_typed(state), observations=observations, count=copies.count + 1, done=ended(terminated, truncated)
        )
        return copies, Step(observations, self.states(copies), rewards, terminated, truncated, None, {})

    def states(self, copies: Copies) -> Arrays:
        """Return the privileged states (N, *S) that go with `observations`, or None: there are none."""
        if self.state_space is None:
            return None
        return jax.vmap(self.env.states)(copies.env).astype(jax.dtypes.canonicalize_dtype(self.state_space.dtype))

    def action_masks(self, copies: Copies) -> Arrays:
        """Return which choices are allowed next, (N, M) bool with those of all parts side by side, or None: all are."""
        if self.choices is None:
            return None
        return spaces.map_arrays(lambda mask: mask.astype(bool), jax.vmap(self.env.action_masks)(copies.env))

    def shown(self, copies: Copies, valid: Arrays) -> dict[str, Array] | None:
        """Return whose observations after a step are the environment's (N,) bool, by member, or None: all are."""
        return None if copies.there is None else {name: rows | valid[name] for name, rows in copies.there.items()}

    def is_playable(self, masks: Arrays) -> Array:
        """Tell which copies (N,) have a choice left in every part of an action."""
        return has_choices(masks, self.choices)

    def info(self) -> dict[str, Any]:
        """Say what was chosen where the config left a choice."""
        return {}

    def _find_choices(self, space: Any) -> Any:
        return spaces.choices(space)

    def reset_done(self, copies: Copies) -> Copies:
        """Begin the next episode where one just ended; nothing is computed if none did."""

        def reset() -> tuple[Any, Arrays]:
            fresh, observations = jax.vmap(self.env.reset)(self._draw(copies.keys, copies.count, 1))
            fresh = (_typed(fresh), self._cast(observations))
            return jax.tree.map(lambda new, old: choose(copies.done, new, old), fresh, (copies.env, copies.observations))

        env, observations = jax.lax.cond(copies.done.any(), reset, lambda: (copies.env, copies.observations))
        return copies._replace(env=env, observations=observations, done=jnp.zeros_like(copies.done))

    def cut(self, copies: Copies, scope: slice) -> Copies:
        """Return the copies in `scope`."""
        return jax.tree.map(lambda array: array[scope] if array.ndim else array, copies)

    def join(self, parts: Sequence[Copies]) -> Copies:
        """Return all copies of parts that were cut apart and have made the same number of steps."""
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays) if arrays[0].ndim else arrays[0], *parts)

    def _draw(self, keys: Array, count: Array, purpose: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, 2 * count + purpose))(keys)

    def _cast(self, observations: Arrays) -> Arrays:
        leaves = spaces.leaves(self.env.env.observation_space)
        arrays = spaces.flatten(self.env.env.observation_space, observations)
        dtypes = {path: jax.dtypes.canonicalize_dtype(leaf.dtype) for path, leaf in leaves.items()}
        if not isinstance(arrays, dict):
            return arrays.astype(dtypes[""])
        return {path: array.astype(dtypes[path]) for path, array in arrays.items()}


def has_choices(mask: Array, choices: Sequence[int]) -> Array:
    """Tell which copies (N,) have a choice left in every part of an action, of a mask (N, M)."""
    parts = jnp.split(mask, np.cumsum(choices[:-1]), axis=1)
    return jnp.stack([part.any(axis=1) for part in parts]).all(axis=0)


def choose(rows: Array, chosen: Array, others: Array) -> Array:
    """Return `chosen` in the rows (N,) that are true, else `others`."""
    return jnp.where(rows.reshape(-1, *[1] * (others.ndim - 1)), chosen, others)


def is_key(array: Array) -> bool:
    """Tell whether an array is one of random streams."""
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _typed(state: Any) -> Any:
    """Return the state with every leaf strongly typed: else the first step's program would not fit the second step."""
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else jnp.asarray(leaf, leaf.dtype), state)
