"""Gymnasium environments by id, or by the module and name of what makes one."""

from typing import Any

from rltrain import installing, modules
from rltrain.errors import ConfigError, nearest, said
from rltrain.signals import comes_from_signal

registered: dict[str, set[str]] = {}  # the ids that came with the import of a module


def register(spec: Any) -> None:
    """Make an id known in this process, if it isn't: a plugin or a script may have registered it in another one."""
    from gymnasium.envs.registration import registry

    if spec is not None:
        registry.setdefault(spec.id, spec)


def find_spec(env_id: str) -> Any:
    """Return Gymnasium's spec of an id; `module:` imports the module first, whose class or function of that name will do too.

    Raises ConfigError if there is none: the nearest match, or the extra to install.
    """
    import gymnasium
    from gymnasium.envs.registration import registry

    module, _, name = env_id.rpartition(":")
    if module:
        before = set(registry)
        try:
            package = modules.import_named(module, "env.id", env_id)
            registered.setdefault(module, set()).update(set(registry) - before)
        except BaseException as error:  # whatever the module's own code raises
            if isinstance(error, modules.Refused) or comes_from_signal(error):
                raise
            raise ConfigError(
                "env.id", env_id, f"module {module!r} can't be imported ({said(error)}); is it on PYTHONPATH?"
            ) from error
        if name not in registry and hasattr(package, name):
            return _spec_of(env_id, module, name, getattr(package, name))
    elif name.startswith("ALE/"):
        try:
            import ale_py
        except ImportError as error:
            remedy = f"its package ale_py is not installed ({error}); {installing.command_for('atari')}"
            raise ConfigError("env.id", env_id, remedy) from None
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner in front of each run's first line
    try:
        return gymnasium.spec(name)
    except gymnasium.error.DeprecatedEnv as error:
        raise ConfigError("env.id", env_id, str(error)) from None
    except gymnasium.error.Error:
        if module:
            raise ConfigError("env.id", env_id, _what_else(module, package, name)) from None
        raise ConfigError("env.id", env_id, f"no such environment; {nearest(name, registry, limit=6)}") from None


def _spec_of(env_id: str, module: str, name: str, make: Any) -> Any:
    """Return a spec of what makes one copy: a module's class or function; of a vector environment's class, all of them."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    if isinstance(make, type) and issubclass(make, gymnasium.vector.VectorEnv):
        return EnvSpec(id=name, vector_entry_point=f"{module}:{name}")
    if not callable(make):
        raise ConfigError("env.id", env_id, f"{name} is neither a class nor a function that makes an environment")
    if isinstance(make, type) and not issubclass(make, gymnasium.Env):
        is_team = any(base.__module__.startswith("pettingzoo") for base in make.__mro__)
        team = f"; PettingZoo's are for env=pettingzoo env.id={env_id}" if is_team else ""
        raise ConfigError("env.id", env_id, f"{name} is a class that doesn't derive from gymnasium.Env{team}")
    return EnvSpec(id=name, entry_point=f"{module}:{name}")


def _what_else(module: str, package: Any, name: str) -> str:
    """Say that a module has no environment of that name, and which it has: ids that it registers, classes."""
    import gymnasium
    from gymnasium.envs.registration import registry

    kinds = (gymnasium.Env, gymnasium.vector.VectorEnv)
    classes = {key: value for key, value in vars(package).items() if isinstance(value, type) and value not in kinds}
    own = {key for key, value in classes.items() if issubclass(value, kinds)} | registered.get(module, set())
    for spec in registry.values():
        entry = spec.entry_point or spec.vector_entry_point
        where = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
        own |= {spec.id} if f"{where}.".startswith(f"{module}.") else set()
    there = nearest(name, own, limit=6) if own else "it registers no id and has no class that derives from gymnasium.Env"
    return f"{module} has no {name}, neither a registered id nor a class or function; {there}"


def make_by_id(env_id: str, kwargs: dict[str, Any], render_mode: str | None, spec: Any = None) -> Any:
    """Return one environment; raises ConfigError for a package that is missing or kwargs that don't fit."""
    import gymnasium

    register(spec)
    found = find_spec(env_id)  # also imports `module:` in a process that has not done so
    if found.entry_point is None and found.id not in gymnasium.registry:
        raise ConfigError(
            "env.id", env_id, "is a vector environment; set env.vectorization=native, or name the class of one copy"
        )
    mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}  # not every environment takes it
    try:
        return gymnasium.make(as_gymnasium(env_id, found), disable_env_checker=True, **mode, **kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        extras = {"box2d": "box2d", "mujoco": "mujoco", "classic_control": "classic", "toy_text": "classic"}
        entry = str(found.entry_point)
        extra = next((extra for folder, extra in extras.items() if folder in entry), None)
        remedy = installing.command_for(extra) if extra else str(error)
        raise ConfigError("env.id", env_id, f"its package is not installed; {remedy}") from None
    except TypeError as error:
        if kwargs:
            reason = str(error).split(" was raised from the environment creator")[0]  # what follows repeats them, secrets too
            raise ConfigError("env.kwargs", kwargs, f"{env_id} does not take them: {reason}") from None
        raise


def can_be_drawn(env_id: str) -> bool:
    """Tell whether an environment may give pictures, as far as its class says."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    entry = find_spec(env_id).entry_point
    made = load_env_creator(entry) if isinstance(entry, str) else entry
    modes = getattr(made, "metadata", {}).get("render_modes", [])
    return not isinstance(made, type) or "rgb_array" in modes or made.render is not gymnasium.Env.render  # type: ignore[attr-defined]


def as_gymnasium(env_id: str, spec: Any) -> Any:
    """Return what Gymnasium makes an environment of: the id where it is registered, else the spec."""
    from gymnasium.envs.registration import registry

    return env_id.rpartition(":")[2] if registry.get(spec.id) is spec else spec
