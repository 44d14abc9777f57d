"""gymnax environments (Lange 2022): classic control, MinAtar and more, as JAX programs."""

import dataclasses
from typing import Any

import jax
import numpy as np

from rltrain.envs.functional import FunctionalConfig
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, nearest
from rltrain.structures import Array, Arrays


class GymnaxEnv(FunctionalEnv):
    """N copies of a gymnax environment; `env.kwargs` are fields of its parameters."""

    def make(self, cfg: FunctionalConfig) -> "_Gymnax":
        """Return the environment of `cfg.id`."""
        try:
            import gymnax
        except ModuleNotFoundError as error:
            raise ConfigError("env", "gymnax", f"{error.name} is not installed; pip install 'rltrain[gymnax]'") from None
        if cfg.id not in gymnax.registered_envs:
            options = nearest(cfg.id, gymnax.registered_envs, limit=30)
            raise ConfigError("env.id", cfg.id, f"gymnax has no such environment; {options}")
        env, params = gymnax.make(cfg.id)
        known = [field.name for field in dataclasses.fields(params)]
        for name, value in cfg.kwargs.items():
            if name not in known:
                raise ConfigError(f"env.kwargs.{name}", value, f"{cfg.id} has no such parameter; {nearest(name, known)}")
        return _Gymnax(env, params.replace(**cfg.kwargs))

    def info(self) -> dict[str, Any]:
        """Say which versions are at work."""
        from importlib.metadata import version

        return {"versions": {"jax": jax.__version__, "gymnax": version("gymnax")}}


class _Gymnax:
    """One gymnax environment with its parameters: without gymnax's own reset, which would hide the true successor."""

    def __init__(self, env: Any, params: Any) -> None:
        self.env, self.params = env, params
        self.observation_space = _space(env.observation_space(params))
        self.action_space = _space(env.action_space(params))

    def reset(self, key: Array) -> tuple[Any, Arrays]:
        observation, state = self.env.reset_env(key, self.params)
        return state, observation

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, Arrays, Array, Array, Array]:
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        return state, observation, reward, terminated, self.env.is_truncated(state, self.params)


def _space(space: Any) -> Any:
    """Return Gymnasium's space for gymnax's."""
    import gymnasium

    kind = type(space).__name__
    if kind == "Discrete":
        return gymnasium.spaces.Discrete(int(space.n))
    if kind == "Box":
        shape = tuple(space.shape)
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), shape) for bound in (space.low, space.high))
        return gymnasium.spaces.Box(low, high, shape, np.float32)
    if kind == "Dict":
        return gymnasium.spaces.Dict({key: _space(part) for key, part in space.spaces.items()})
    if kind == "Tuple":
        return gymnasium.spaces.Tuple([_space(part) for part in space.spaces])
    raise ConfigError("env.observation_space", kind, "gymnax's space is not known here")
