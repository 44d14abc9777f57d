"""Functional environments in JAX: many copies as arrays, stepped from the host or as part of a larger program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.checks import build
from rltrain.envs.base import EnvWrapper
from rltrain.envs.finite import FiniteWatch
from rltrain.envs.functional import Functional, FunctionalConfig
from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.seeding import TRAINING_ENVIRONMENTS, environment_seeds
from rltrain.structures import Array, Arrays, Step


class Copies(NamedTuple):
    """N copies between two steps."""

    env: Any  # the environment's state, every leaf (N, ...)
    observations: Arrays  # (N, *O) to act on next
    keys: Array  # (N,) random streams
    count: Array  # () steps so far: the key of copy i at step t is that of its stream and t
    done: Array  # (N,) bool: ended with the last step and not yet reset


class PureCopies:
    """N copies of a functional environment as pure functions over `Copies`."""

    def __init__(self, env: Functional) -> None:
        self.env = env

    def init(self, keys: Array) -> Copies:
        """Begin an episode in every copy; `keys` (N,) are their random streams."""
        state, observations = jax.vmap(self.env.reset)(self._draw(keys, jnp.int32(0), 1))
        return Copies(state, self._cast(observations), keys, jnp.int32(0), jnp.zeros(len(keys), bool))

    def step(self, copies: Copies, actions: Array) -> tuple[Copies, Step]:
        """Step all copies; their `observations` are the true successors until `reset_done`."""
        keys = self._draw(copies.keys, copies.count, 0)
        state, observations, rewards, terminated, truncated = jax.vmap(self.env.step)(keys, copies.env, actions)
        observations, rewards = self._cast(observations), rewards.astype(jnp.float32)
        terminated, truncated = terminated.astype(bool), truncated.astype(bool) & ~terminated.astype(bool)
        step = Step(observations, None, rewards, terminated, truncated, None, {})
        return Copies(state, observations, copies.keys, copies.count + 1, terminated | truncated), step

    def reset_done(self, copies: Copies) -> Copies:
        """Begin the next episode where one just ended; nothing is computed if none did."""

        def reset() -> tuple[Any, Arrays]:
            fresh, observations = jax.vmap(self.env.reset)(self._draw(copies.keys, copies.count, 1))
            fresh = (fresh, self._cast(observations))
            return jax.tree.map(lambda new, old: _choose(copies.done, new, old), fresh, (copies.env, copies.observations))

        env, observations = jax.lax.cond(copies.done.any(), reset, lambda: (copies.env, copies.observations))
        return copies._replace(env=env, observations=observations, done=jnp.zeros_like(copies.done))

    def _draw(self, keys: Array, count: Array, purpose: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, 2 * count + purpose))(keys)

    def _cast(self, observations: Arrays) -> Arrays:
        leaves = spaces.leaves(self.env.observation_space)
        arrays = spaces.flatten(self.env.observation_space, observations)
        dtypes = {path: jax.dtypes.canonicalize_dtype(leaf.dtype) for path, leaf in leaves.items()}
        if not isinstance(arrays, dict):
            return arrays.astype(dtypes[""])
        return {path: array.astype(dtypes[path]) for path, array in arrays.items()}


def _is_key(array: Array) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _choose(rows: Array, chosen: Array, others: Array) -> Array:
    return jnp.where(rows.reshape(-1, *[1] * (others.ndim - 1)), chosen, others)


class FunctionalEnv(EnvWrapper):
    """N copies of a functional environment, stepped from the host. Observations are JAX's arrays, the rest NumPy's.

    `make(cfg)` returns the environment. A subclass says in `make` how to find it by id.
    """

    config: type[FunctionalConfig] = FunctionalConfig

    def __init__(
        self,
        cfg: FunctionalConfig | dict[str, Any] | str,
        *,
        seed: int | None = None,
        role: int = TRAINING_ENVIRONMENTS,
        first_copy: int = 0,
        make: Callable[[FunctionalConfig], Functional] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.cfg = build(self.config, {"id": cfg} if isinstance(cfg, str) else cfg, "env")
        if render_mode is not None:
            raise ConfigError("env.id", self.cfg.id, "can't be rendered; leave trainer.headless and render out")
        self.num_envs, self.name = self.cfg.num_envs, self.cfg.id
        env = make(self.cfg) if make else self.make(self.cfg)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.seeds = None if seed is None else environment_seeds(seed, role, self.num_envs, first_copy)
        self.pure = PureCopies(env)
        self.copies: Copies | None = None
        self._watch = FiniteWatch(f"env.id={self.name}", first_copy, self.cfg.on_nonfinite)
        self._timestep = 0
        self._init, self._step = jax.jit(self.pure.init), jax.jit(self.pure.step)
        self._reset_done = jax.jit(self.pure.reset_done)

    def make(self, cfg: FunctionalConfig) -> Functional:
        """Return the environment of `cfg.id`."""
        raise ConfigError("env.id", cfg.id, "no such environment")

    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy."""
        if seed is None and self.copies is not None:
            self.copies = self._reset_done(self.copies._replace(done=jnp.ones(self.num_envs, bool)))
        else:
            seeds = seed if seed is not None else self.seeds if self.seeds is not None else range(self.num_envs)
            keys = np.array([(0, int(s)) for s in seeds], np.uint32)
            self.copies = self._init(jax.random.wrap_key_data(jnp.asarray(keys), impl="threefry2x32"))
        for path, space in spaces.leaves(self.observation_space).items():
            array = self.copies.observations if path == "" else self.copies.observations[path]
            if array.shape != (self.num_envs, *space.shape):
                expected = f"{space.dtype} {(self.num_envs, *space.shape)}"
                at = f" {path!r}" if path else ""
                raise EnvironmentFailure(f"env.id={self.name}: reset: expected observations{at} {expected}, got {array.shape}")
        return self.copies.observations

    def step(self, actions: np.ndarray) -> Step:
        """Step all copies."""
        self.copies, step = self._step(self.copies, jnp.asarray(actions))
        rewards, terminated, truncated = jax.device_get((step.rewards, step.terminated, step.truncated))
        if self.cfg.on_nonfinite == "error":
            self._watch.guard(step._replace(rewards=rewards), None, None, self._timestep)
        self._timestep += 1
        return step._replace(rewards=rewards, terminated=terminated, truncated=truncated)

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        self.copies = self._reset_done(self.copies)
        return self.copies.observations

    def has_own_steps(self) -> bool:
        """Tell whether a subclass steps or resets in its own way, which a fused loop would pass over."""
        return any(getattr(type(self), name) is not getattr(FunctionalEnv, name) for name in ("step", "reset_done"))

    def snapshot(self) -> dict[str, Any] | None:
        """Return the exact state of all copies."""
        assert self.copies is not None
        return {"leaves": [np.array(jax.random.key_data(x) if _is_key(x) else x) for x in jax.tree.leaves(self.copies)]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put all copies back."""
        self.reset(range(self.num_envs))
        assert self.copies is not None
        leaves, structure = jax.tree.flatten(self.copies)
        new = [
            jax.random.wrap_key_data(jnp.asarray(there), impl=jax.random.key_impl(here)) if _is_key(here) else jnp.asarray(there)
            for here, there in zip(leaves, snapshot["leaves"], strict=True)
        ]
        self.copies = jax.tree.unflatten(structure, new)

    def info(self) -> dict[str, Any]:
        """Say which versions are at work."""
        return {"versions": {"jax": jax.__version__}}
