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
from rltrain.structures import Array, Arrays, Step, ended


class Copies(NamedTuple):
    """N copies between two steps."""

    env: Any  # the environment's state, every leaf (N, ...)
    observations: Arrays  # (N, *O) to act on next
    keys: Array  # (N,) random streams
    count: Array  # () steps so far: the key of copy i at step t is that of its stream and t
    done: Array  # (N,) bool: ended with the last step and not yet reset
    there: dict[str, Array] | None = None  # (N,) bool by member: acts in the next step; None: every member does


class PureCopies:
    """N copies of a functional environment as pure functions over `Copies`."""

    members: tuple[str, ...] = ()

    def __init__(self, env: Functional) -> None:
        self.env = env
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
        return jax.vmap(self.env.states)(copies.env).astype(jax.dtypes.canonicalize_dtype(self.state_space.dtype))  # type: ignore[attr-defined]

    def action_masks(self, copies: Copies) -> Arrays:
        """Return which choices are allowed next, (N, M) bool with those of all parts side by side, or None: all are."""
        if self.choices is None:
            return None
        return spaces.map_arrays(lambda mask: mask.astype(bool), jax.vmap(self.env.action_masks)(copies.env))  # type: ignore[attr-defined]

    def is_playable(self, masks: Arrays) -> Array:
        """Tell which copies (N,) have a choice left in every part of an action."""
        return _has_choices(masks, self.choices)

    def mask_sizes(self) -> Any:
        """Return how many choices a mask is of."""
        return sum(self.choices or ())

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
            return jax.tree.map(lambda new, old: _choose(copies.done, new, old), fresh, (copies.env, copies.observations))

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
        leaves = spaces.leaves(self.env.observation_space)
        arrays = spaces.flatten(self.env.observation_space, observations)
        dtypes = {path: jax.dtypes.canonicalize_dtype(leaf.dtype) for path, leaf in leaves.items()}
        if not isinstance(arrays, dict):
            return arrays.astype(dtypes[""])
        return {path: array.astype(dtypes[path]) for path, array in arrays.items()}


def _has_choices(mask: Array, choices: Sequence[int]) -> Array:
    parts = jnp.split(mask, np.cumsum(choices[:-1]), axis=1)
    return jnp.stack([part.any(axis=1) for part in parts]).all(axis=0)


class PureTeams(PureCopies):
    """The same of an environment with named members: what is one's comes in a dict by name.

    A member acts from an episode's begin until it is flagged. Rows after that did not happen: zeros, `valid` False. The episode
    of a copy ends with its last member's; then every member's row is flagged.
    """

    def __init__(self, env: Any, state: str = "auto") -> None:
        super().__init__(env)
        self.members = tuple(env.members)
        self.leave = bool(getattr(env, "members_leave", True))
        if state == "own" and self.state_space is None:
            raise ConfigError("env.state", "own", "the environment has no states of its own; use joined or auto")
        self.state = {"auto": "joined" if self.state_space is None else "own"}.get(state, state)
        if self.state != "own":
            self.state_space = env.observation_space if self.state == "joined" else None

    def init(self, keys: Array) -> Copies:
        """Begin an episode in every copy; `keys` (N,) are their random streams."""
        copies = super().init(keys)
        everyone = {name: jnp.ones(len(keys), bool) for name in self.members}
        return copies._replace(there=everyone) if self.leave else copies

    def step(self, copies: Copies, actions: dict[str, Array]) -> tuple[Copies, Step]:
        """Step all copies; their `observations` are the true successors until `reset_done`."""
        after, step = super().step(copies, actions)
        there = copies.there
        if there is None:
            return after, step
        # ---- those that had left
        observations = {
            path: _choose(there[path.split("/")[0]], rows, jnp.zeros_like(rows)) for path, rows in after.observations.items()
        }
        rewards = {name: jnp.where(there[name], step.rewards[name], 0.0) for name in self.members}
        terminated, truncated = (
            {name: flags[name] & there[name] for name in self.members} for flags in (step.terminated, step.truncated)
        )
        # ---- those that are left
        stay = {name: there[name] & ~(terminated[name] | truncated[name]) for name in self.members}
        over = ~jnp.stack(list(stay.values())).any(axis=0)
        terminated = {name: terminated[name] | (over & ~truncated[name]) for name in self.members}
        after = after._replace(observations=observations, done=over, there=stay)
        return after, Step(observations, self.states(after), rewards, terminated, truncated, there, {})

    def states(self, copies: Copies) -> Arrays:
        """Return the states (N, *S) that go with `observations`: the environment's own, or the observations of all members."""
        return copies.observations if self.state == "joined" else super().states(copies)

    def action_masks(self, copies: Copies) -> Arrays:
        """Return which choices are allowed next, by member (N, M) bool, or None: all are."""
        masks, there = super().action_masks(copies), copies.there
        if masks is None or there is None:
            return masks
        return {name: mask | ~there[name][:, None] for name, mask in masks.items()}

    def is_playable(self, masks: Arrays) -> Array:
        """Tell which copies (N,) leave every member a choice in every part of an action."""
        return jnp.stack([_has_choices(mask, self.choices[name]) for name, mask in masks.items()]).all(axis=0)

    def mask_sizes(self) -> Any:
        """Return how many choices each member's mask is of."""
        return {name: sum(choices) for name, choices in self.choices.items()}

    def reset_done(self, copies: Copies) -> Copies:
        """Begin the next episode where one just ended; nothing is computed if none did."""
        after, there = super().reset_done(copies), copies.there
        return after if there is None else after._replace(there={name: rows | copies.done for name, rows in there.items()})

    def info(self) -> dict[str, Any]:
        """Say what the critic's state is."""
        return {"state": self.state, "members": list(self.members)}

    def _find_choices(self, space: Any) -> Any:
        found = {name: spaces.choices(own) for name, own in space.spaces.items()}
        return {name: choices for name, choices in found.items() if choices} or None


def _is_key(array: Array) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _typed(state: Any) -> Any:
    """Return the state with every leaf strongly typed: else the first step's program would not fit the second step."""
    return jax.tree.map(lambda leaf: leaf if _is_key(leaf) else jnp.asarray(leaf, leaf.dtype), state)


def _choose(rows: Array, chosen: Array, others: Array) -> Array:
    return jnp.where(rows.reshape(-1, *[1] * (others.ndim - 1)), chosen, others)


class FunctionalEnv(EnvWrapper):
    """N copies of a functional environment, stepped from the host. Observations are JAX's arrays, the rest NumPy's.

    `make(cfg)` returns the environment; one with `members` is a team's. A subclass says in `make` how to find it by id.
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
        named = hasattr(env, "members")
        self.pure = PureTeams(env, getattr(self.cfg, "state", "auto")) if named else PureCopies(env)
        self.members, self.num_agents = self.pure.members, max(1, len(self.pure.members))
        self.state_space = self.pure.state_space
        self.copies: Copies | None = None
        self._watch = FiniteWatch(f"env.id={self.name}", first_copy, self.cfg.on_nonfinite, remedy="ignore")
        self._first_copy, self._timestep = first_copy, 0
        self._init, self._step = jax.jit(self.pure.init), jax.jit(self.pure.step)
        self._reset_done = jax.jit(self.pure.reset_done)
        self._states, self._masks = jax.jit(self.pure.states), jax.jit(self._find_masks)

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
        self._check_shapes()
        return self.copies.observations

    def step(self, actions: Arrays) -> Step:
        """Step all copies."""
        self.copies, step = self._step(self.copies, spaces.map_arrays(jnp.asarray, actions))
        on_host = ("rewards", "terminated", "truncated", "valid")
        step = step._replace(**dict(zip(on_host, jax.device_get([getattr(step, name) for name in on_host]), strict=True)))
        if self.cfg.on_nonfinite == "error":
            self._watch.guard(step, None, step.next_states, self._timestep)
        self._timestep += 1
        return step

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        self.copies = self._reset_done(self.copies)
        return self.copies.observations

    def state(self) -> Arrays:
        """Return the privileged states (N, *S) that go with the observations to act on next, or None."""
        return None if self.state_space is None or self.copies is None else self._states(self.copies)

    def action_masks(self) -> Arrays:
        """Return which choices are allowed next, (N, M) bool, or None: all are."""
        if self.pure.choices is None:
            return None
        masks, playable = self._masks(self.copies)
        playable = jax.device_get(playable)
        if not playable.all():
            copy = self._first_copy + int(np.argmin(playable))
            raise EnvironmentFailure(f"env.id={self.name}: copy {copy}: action_masks allows no action")
        return masks

    def _find_masks(self, copies: Copies) -> tuple[Arrays, Array]:
        masks = self.pure.action_masks(copies)
        return masks, self.pure.is_playable(masks)

    def has_own_steps(self) -> bool:
        """Tell whether a subclass steps or resets in its own way, which a fused loop would pass over."""
        own = ("step", "reset_done", "state", "action_masks")
        return any(getattr(type(self), name) is not getattr(FunctionalEnv, name) for name in own)

    def _check_shapes(self) -> None:
        """Raise EnvironmentFailure unless observations, states and masks of all copies are as the spaces say."""
        assert self.copies is not None
        shapes = _compare(self.copies.observations, self.observation_space, "observations")
        if self.state_space is not None:
            shapes |= _compare(jax.eval_shape(self.pure.states, self.copies), self.state_space, "states")
        if self.pure.choices is not None:
            masks = spaces.named(jax.eval_shape(self.pure.action_masks, self.copies), "action_masks")
            sizes = spaces.named(self.pure.mask_sizes(), "action_masks")
            shapes |= {name: (mask.shape, (sizes[name],)) for name, mask in masks.items()}
        for name, (got, shape) in shapes.items():
            if got != (self.num_envs, *shape):
                expected = f"{(self.num_envs, *shape)}"
                raise EnvironmentFailure(f"env.id={self.name}: reset: expected {name} {expected}, got {got}")

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
        """Say which versions are at work, and what the critic of a team reads."""
        return {**self.pure.info(), "versions": {"jax": jax.__version__}}


def _compare(arrays: Arrays, space: Any, name: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shape of each array (N, ...) and the one that its space says, by full name."""
    wanted = {f"{name}/{path}".rstrip("/"): leaf.shape for path, leaf in spaces.leaves(space).items()}
    return {key: (array.shape, wanted[key]) for key, array in spaces.named(arrays, name).items()}
