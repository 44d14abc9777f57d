"""JaxMARL's particle environments, MPE (Rutherford et al. 2023): several agents as JAX programs."""

import contextlib
import inspect
import io
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import installing
from rltrain.envs.functional import FunctionalConfig, JaxMARLConfig, check_kwargs
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, nearest
from rltrain.structures import Array

FAMILY = "MPE_"


class JaxMARLEnv(FunctionalEnv):
    """N copies of one of JaxMARL's MPE environments; `env.kwargs` are numbers and texts that its class takes.

    JaxMARL says only that an episode ended. In MPE that is always a time limit, so a truncation; in its other families it may be
    either, so they aren't offered.
    """

    config = JaxMARLConfig

    def make(self, cfg: FunctionalConfig) -> "_MPE":
        """Return the environment of `cfg.id`."""
        package = _import()
        offered = [name for name in package.registered_envs if name.startswith(FAMILY)]
        if cfg.id not in offered:
            raise ConfigError("env.id", cfg.id, f"no such environment of JaxMARL's MPE; {nearest(cfg.id, offered, limit=30)}")
        plain = package.make(cfg.id)
        kwargs = check_kwargs(cfg.kwargs, _defaults(type(plain)), cfg.id)
        if kwargs.get("max_steps", 1) < 1:
            raise ConfigError("env.kwargs.max_steps", kwargs["max_steps"], "must be at least 1")
        try:
            return _MPE(package.make(cfg.id, **kwargs) if kwargs else plain)
        except (AssertionError, TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError("env.kwargs", kwargs, f"{cfg.id} refuses them: {error}") from error

    def info(self) -> dict[str, Any]:
        """Say which versions are at work, and what the critic reads."""
        from importlib.metadata import version

        about = super().info()
        return {**about, "versions": {**about["versions"], "jaxmarl": version("jaxmarl")}}


def _import() -> Any:
    """Return `jaxmarl`."""
    try:
        with _silence():
            import jaxmarl
    except ModuleNotFoundError as error:
        raise ConfigError("env", "jaxmarl", f"{error.name} is not installed; {installing.command_for('jaxmarl')}") from None
    return jaxmarl


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what JaxMARL prints at its import, which also puts the process's own streams where others had put theirs."""
    kept, nowhere = sys.__stdout__, io.StringIO()
    sys.__stdout__ = nowhere  # type: ignore[misc, assignment]
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(sys.stderr):
            yield
    finally:
        sys.__stdout__ = kept  # type: ignore[misc]


def _defaults(kind: type) -> dict[str, Any]:
    """Return the parameters of an environment's class and of the class of all, those that are plain numbers or text."""
    found: dict[str, Any] = {}
    for cls in reversed(kind.__mro__):
        parameters = inspect.signature(vars(cls)["__init__"]).parameters if "__init__" in vars(cls) else {}
        found |= {name: p.default for name, p in parameters.items() if isinstance(p.default, bool | int | float | str)}
    return found


class _MPE:
    """One of JaxMARL's MPE environments without its automatic reset, which would hide the true successor."""

    members_leave = False

    def __init__(self, env: Any) -> None:
        import gymnasium

        self.env = env
        self.members = tuple(env.agents)
        self.action_space = gymnasium.spaces.Dict({name: _space(env.action_space(name)) for name in self.members})
        observations = jax.eval_shape(env.reset, jax.random.key(0))[0]  # JaxMARL's own spaces of them are wrong here and there
        self.observation_space = gymnasium.spaces.Dict(
            {name: gymnasium.spaces.Box(-np.inf, np.inf, observations[name].shape, np.float32) for name in self.members}
        )

    def reset(self, key: Array) -> tuple[Any, dict[str, Array]]:
        observations, state = self.env.reset(key)
        return state, observations

    def step(self, key: Array, state: Any, actions: dict[str, Array]) -> tuple[Any, Any, Any, Any, Any]:
        observations, state, rewards, dones, _ = self.env.step_env(key, state, actions)
        running = jnp.zeros_like(dones["__all__"])
        return (
            state,
            observations,
            {name: rewards[name] for name in self.members},
            dict.fromkeys(self.members, running),
            {name: dones[name] for name in self.members},
        )


def _space(space: Any) -> Any:
    """Return Gymnasium's space for JaxMARL's."""
    import gymnasium

    if type(space).__name__ == "Discrete":
        return gymnasium.spaces.Discrete(int(space.n))
    if type(space).__name__ == "Box":
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
        return gymnasium.spaces.Box(low, high, tuple(space.shape), np.float32)
    raise ConfigError("env.action_space", type(space).__name__, "JaxMARL's space is not known here")
