"""What a script hands to a trainer that is not what a trainer takes: said with what to write instead."""

from collections.abc import Sequence
from typing import Any

from rltrain.errors import ConfigError


def check_wrapped(agents: Sequence[Any], **envs: Any) -> None:
    """Raise ConfigError for environments and algorithms as their libraries make them."""
    for key, env in envs.items():
        if env is not None and not hasattr(env, "reset_done"):
            raise ConfigError(key, _kind(env), f"is no environment of rltrain; wrap it: {remedy(env)}")
    for agent in agents:
        if not hasattr(agent, "record_transition"):
            algorithm = hasattr(agent, "init_actor") and hasattr(agent, "update")
            how = "is a bare algorithm; wrap it: Agent(algorithm)" if algorithm else 'is no agent; rltrain.make_agent("ppo", env)'
            raise ConfigError("agents", _kind(agent), how if algorithm else f"{how} makes one")


def remedy(env: Any) -> str:
    """Return the call that makes such an environment, as far as it can be told from one that is made."""
    one = getattr(env, "envs", None) or [env]
    spec, copies = getattr(env, "spec", None) or getattr(one[0], "spec", None), getattr(env, "num_envs", 8)
    copies = copies if isinstance(copies, int) else 8
    if spec is not None and getattr(spec, "id", None):
        return f'rltrain.make_env("{spec.id}", num_envs={copies})'
    inner = getattr(one[0], "unwrapped", one[0])
    name = "make" if hasattr(inner, "num_envs") else type(inner).__name__
    return f"rltrain.make_env({name}, num_envs={copies})" + (", where make() returns one copy" if name == "make" else "")


def _kind(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__
