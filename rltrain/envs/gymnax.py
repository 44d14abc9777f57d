"""gymnax environments (Lange 2022): classic control, MinAtar and more, as JAX programs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import installing
from rltrain.envs.functional import FunctionalConfig, check_kwargs
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, nearest
from rltrain.structures import Array, Arrays

LIMIT = "max_steps_in_episode"


class GymnaxEnv(FunctionalEnv):
    """N copies of a gymnax environment; `env.kwargs` are fields of its parameters."""

    def make(self, cfg: FunctionalConfig) -> "_Gymnax":
        """Return the environment of `cfg.id`."""
        try:
            import gymnax
        except ModuleNotFoundError as error:
            raise ConfigError("env", "gymnax", f"{error.name} is not installed; {installing.command_for('gymnax')}") from None
        if cfg.id not in gymnax.registered_envs:
            options = nearest(cfg.id, gymnax.registered_envs, limit=30)
            raise ConfigError("env.id", cfg.id, f"gymnax has no such environment; {options}")
        env, params = _construct(gymnax.make, cfg.id)
        defaults = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
        given = check_kwargs(cfg.kwargs, defaults, cfg.id)
        if given.get(LIMIT, 1) < 1:
            raise ConfigError(f"env.kwargs.{LIMIT}", given[LIMIT], "must be at least 1")
        return _Gymnax(env, params.replace(**jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, given)))

    def info(self) -> dict[str, Any]:
        """Say which versions are at work."""
        from importlib.metadata import version

        return {"versions": {"jax": jax.__version__, "gymnax": version("gymnax")}}


def _construct(make: Callable[[str], Any], id: str) -> Any:
    """Return environment and default parameters; one of gymnax's fetches its data when it is made."""
    try:
        return make(id)
    except OSError as error:
        raise ConfigError("env.id", id, f"its data can't be had: {error}") from error


class _Gymnax:
    """One gymnax environment with its parameters: without gymnax's own reset, which would hide the true successor."""

    def __init__(self, env: Any, params: Any) -> None:
        self.env, self.params = env, params
        self.observation_space = _space(env.observation_space(params))
        self.action_space = _space(env.action_space(params))

    def reset(self, key: Array) -> tuple[Any, Arrays]:
        observation, state = self.env.reset_env(key, self.params)
        return state, self._typed(observation)

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, Arrays, Array, Array, Array]:
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        return state, self._typed(observation), reward, terminated, self.env.is_truncated(state, self.params)

    def _typed(self, observation: Arrays) -> Arrays:
        """Return an observation in its space's dtype: Catch-bsuite says whole numbers and gives floats."""
        space = self.observation_space
        return observation.astype(jax.dtypes.canonicalize_dtype(space.dtype)) if space.shape is not None else observation


def _space(space: Any) -> Any:
    """Return Gymnasium's space for gymnax's."""
    import gymnasium

    kind = type(space).__name__
    if kind == "Discrete":
        return gymnasium.spaces.Discrete(int(space.n))
    if kind == "Box":
        shape, dtype = tuple(space.shape), np.dtype(space.dtype)
        low, high = (np.broadcast_to(np.asarray(bound, dtype), shape) for bound in (space.low, space.high))
        return gymnasium.spaces.Box(low, high, shape, dtype.type)
    if kind == "Dict":
        return gymnasium.spaces.Dict({key: _space(part) for key, part in space.spaces.items()})
    if kind == "Tuple":
        return gymnasium.spaces.Tuple([_space(part) for part in space.spaces])
    raise ConfigError("env.observation_space", kind, "gymnax's space is not known here")
