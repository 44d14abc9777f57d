"""Functional environments in JAX, stepped from the host or, by a fused loop, as part of a larger program."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.checks import build
from rltrain.envs.base import EnvWrapper
from rltrain.envs.finite import FiniteWatch
from rltrain.envs.functional import Functional, FunctionalConfig
from rltrain.envs.jax_checks import CheckedEnv
from rltrain.envs.jax_copies import Copies, PureCopies, is_key
from rltrain.envs.jax_ranges import Outside, find_outside, refuse
from rltrain.envs.jax_teams import PureTeams
from rltrain.envs.ranges import RangeWatch
from rltrain.errors import ConfigError, EnvironmentFailure, RltrainError, said
from rltrain.seeding import TRAINING_ENVIRONMENTS, environment_seeds
from rltrain.signals import comes_from_signal
from rltrain.structures import Array, Arrays, Step


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
        env = self._make(make or self.make)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.seeds = None if seed is None else environment_seeds(seed, role, self.num_envs, first_copy)
        named, checked = hasattr(env, "members"), CheckedEnv(env, self.name)
        self.pure = PureTeams(checked, getattr(self.cfg, "state", "auto")) if named else PureCopies(checked)
        checked.trace()
        self.members, self.num_agents = self.pure.members, max(1, len(self.pure.members))
        self.state_space = self.pure.state_space
        self.copies: Copies | None = None
        self._watch = FiniteWatch(f"env.id={self.name}", first_copy, self.cfg.on_nonfinite, remedy="ignore")
        own = None if getattr(self.pure, "state", "own") == "joined" else self.state_space
        self.ranges = RangeWatch(f"env.id={self.name}", first_copy, self.cfg.on_invalid, self.observation_space, own)
        self._first_copy, self._timestep = first_copy, 0
        self._init, self._step = jax.jit(self.pure.init), jax.jit(self.pure.step)
        self._reset_done = jax.jit(self.pure.reset_done)
        self._states, self._masks = jax.jit(self.pure.states), jax.jit(self._find_masks)

    def _make(self, make: Callable[[Any], Functional]) -> Functional:
        try:
            return make(self.cfg)
        except (RltrainError, ModuleNotFoundError):
            raise
        except BaseException as error:  # whatever the environment's own code raises
            if comes_from_signal(error):
                raise
            reason = (said(error).splitlines() or [""])[0]
            raise EnvironmentFailure(f"env.id={self.name}: make: {reason}") from error

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
        if self.cfg.on_nonfinite == "error":
            self._watch.check_reset(self.copies.observations, self.state(), self._timestep)
        self._check_ranges(self.copies.there)
        return self.copies.observations

    def step(self, actions: Arrays) -> Step:
        """Step all copies."""
        self.copies, step = self._step(self.copies, spaces.map_arrays(jnp.asarray, actions))
        on_host = ("rewards", "terminated", "truncated", "valid")
        step = step._replace(**dict(zip(on_host, jax.device_get([getattr(step, name) for name in on_host]), strict=True)))
        if self.cfg.on_nonfinite == "error":
            self._watch.guard(step, None, step.next_states, self._timestep)
        self._check_ranges(self.pure.shown(self.copies, step.valid))
        self._timestep += 1
        return step

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        self.copies = self._reset_done(self.copies)
        self._check_ranges(self.copies.there)
        return self.copies.observations

    def _check_ranges(self, shown: dict[str, Array] | None) -> None:
        """Raise EnvironmentFailure for values outside their space, where members are `shown` (N,) bool."""
        if self.ranges.limits:
            assert self.copies is not None
            observations, states, shown = jax.device_get(
                (self.copies.observations, self.state() if self.ranges.has_states else None, shown)
            )
            self.ranges.check(observations, states, self._timestep, shown)

    def find_outside(self, after: Copies, valid: Arrays, begun: Copies) -> Outside | None:
        """Return, as part of a program, what is outside its space `after` a step or where an episode has `begun` then."""
        return find_outside(self.ranges, self.pure, after, valid, begun)

    def refuse_outside(self, outside: Outside, timestep: int) -> NoReturn:
        """Raise EnvironmentFailure for what was found outside at a timestep."""
        refuse(self.ranges, outside, timestep)

    def end_episodes(self, copies: Array) -> bool:
        """End the episodes of `copies` (N,) bool where they are."""
        assert self.copies is not None
        self.copies = self.copies._replace(done=self.copies.done | jnp.asarray(copies))
        return True

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

    def snapshot(self) -> dict[str, Any] | None:
        """Return the exact state of all copies."""
        assert self.copies is not None
        return {"leaves": [np.array(jax.random.key_data(x) if is_key(x) else x) for x in jax.tree.leaves(self.copies)]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put all copies back."""
        self.reset(range(self.num_envs))
        assert self.copies is not None
        leaves, structure = jax.tree.flatten(self.copies)
        new = [
            jax.random.wrap_key_data(jnp.asarray(there), impl=jax.random.key_impl(here)) if is_key(here) else jnp.asarray(there)
            for here, there in zip(leaves, snapshot["leaves"], strict=True)
        ]
        self.copies = jax.tree.unflatten(structure, new)

    def info(self) -> dict[str, Any]:
        """Say which versions are at work, and what the critic of a team reads."""
        return {**self.pure.info(), "versions": {"jax": jax.__version__}}
