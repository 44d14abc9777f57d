"""Brax's environments (Freeman et al. 2021): robots as JAX programs."""

import contextlib
import inspect
import io
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import installing
from rltrain.envs.functional import BraxConfig, FunctionalConfig, check_kwargs
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, nearest
from rltrain.structures import Array, Arrays

BACKENDS = ("generalized", "spring", "positional", "mjx")
COUNTS = {"episode_length": 1000, "action_repeat": 1, "n_frames": 1}  # Brax's own defaults but for n_frames, the environment's


class BraxEnv(FunctionalEnv):
    """N copies of a Brax environment.

    `env.kwargs` are what its class takes (`backend` and its rewards), and `episode_length`, `action_repeat`.
    """

    config = BraxConfig

    def make(self, cfg: FunctionalConfig) -> "_Brax":
        """Return the environment of `cfg.id`."""
        envs = _import()
        if cfg.id not in envs._envs:
            raise ConfigError("env.id", cfg.id, f"Brax has no such environment; {nearest(cfg.id, list(envs._envs), limit=30)}")
        kwargs = self._check(envs._envs[cfg.id], cfg)
        limits = {name: kwargs.pop(name, COUNTS[name]) for name in ("episode_length", "action_repeat")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Brax isn't developed any more: said in our docs, not at each start
            try:
                env = envs.get_environment(cfg.id, **kwargs)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise ConfigError("env.kwargs", kwargs, f"{cfg.id} refuses them: {error}") from error
        try:
            return _Brax(env, **limits)
        except (TypeError, AttributeError) as error:  # calls of what newer versions of JAX have no more
            raise ConfigError("env.id", cfg.id, f"doesn't run with jax {jax.__version__}: {error}") from error

    def _check(self, cls: type, cfg: FunctionalConfig) -> dict[str, Any]:
        """Return `env.kwargs` in their types; raises ConfigError for what doesn't fit."""
        parameters = inspect.signature(cls).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
        kwargs = check_kwargs(cfg.kwargs, {"backend": "generalized", **known, **COUNTS}, cfg.id)
        for name in COUNTS:
            if kwargs.get(name, 1) < 1:
                raise ConfigError(f"env.kwargs.{name}", kwargs[name], "must be at least 1")
        if kwargs.get("backend", "generalized") not in BACKENDS:
            backend = kwargs["backend"]
            raise ConfigError("env.kwargs.backend", backend, f"Brax has no such backend; {nearest(backend, BACKENDS)}")
        return kwargs

    def info(self) -> dict[str, Any]:
        """Say which versions are at work."""
        from importlib.metadata import version

        return {"versions": {"jax": jax.__version__, **{name: version(name) for name in ("brax", "mujoco", "mujoco-mjx")}}}


def _import() -> Any:
    """Return `brax.envs`, which prints at its import what a GPU could have had."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from brax import envs
    except ModuleNotFoundError as error:
        raise ConfigError("env", "brax", f"{error.name} is not installed; {installing.command_for('brax')}") from None
    return envs


class _Brax:
    """One Brax environment without Brax's wrappers, whose automatic reset would hide the true successor.

    As there, `episode_length` counts the simulator's steps, `action_repeat` of them a step of ours. An episode that ends within
    the repeats stays as it ended; Brax's would go on and forget that it did.
    """

    def __init__(self, env: Any, episode_length: int, action_repeat: int) -> None:
        import gymnasium

        self.env, self.episode_length, self.action_repeat = env, episode_length, action_repeat
        self.action_space = gymnasium.spaces.Box(-1, 1, (env.action_size,), np.float32)
        state = jax.eval_shape(env.reset, jax.random.key(0))
        jax.eval_shape(env.step, state, jax.ShapeDtypeStruct(self.action_space.shape, np.float32))  # tells early if it can't run
        self.observation_space = _space(state.obs)

    def reset(self, key: Array) -> tuple[Any, Arrays]:
        state = self.env.reset(key)
        return (state, jnp.int32(0)), state.obs

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, Arrays, Array, Array, Array]:
        del key  # Brax draws random numbers at resets only
        inner, steps = state
        if self.action_repeat == 1:
            inner = self.env.step(inner, action)
            reward = inner.reward
        else:
            inner, rewards = jax.lax.scan(lambda inner, _: self._repeat(inner, action), inner, None, self.action_repeat)
            reward = rewards.sum()
        steps = steps + self.action_repeat
        return (inner, steps), inner.obs, reward, inner.done > 0, steps >= self.episode_length

    def _repeat(self, state: Any, action: Array) -> tuple[Any, Array]:
        over, after = state.done > 0, self.env.step(state, action)
        return jax.tree.map(lambda old, new: jnp.where(over, old, new), state, after), jnp.where(over, 0.0, after.reward)


def _space(shapes: Any) -> Any:
    """Return the space of observations of these shapes."""
    import gymnasium

    if isinstance(shapes, dict):
        return gymnasium.spaces.Dict({name: _space(shape) for name, shape in shapes.items()})
    return gymnasium.spaces.Box(-np.inf, np.inf, shapes.shape, np.float32)
