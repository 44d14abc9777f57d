"""Wrappers that a configuration names: `env.wrappers`, put around each copy in the order given, the first one innermost.

An entry is a name, or a mapping of `name` and keyword arguments. A name is a class of the library's own wrappers, or
`module:Name`, a class or a function that takes the environment first.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rltrain import installing, modules
from rltrain.errors import ConfigError, masked, nearest, said
from rltrain.signals import comes_from_signal

KEY = "env.wrappers"
RESETS = {"Autoreset"}  # of Gymnasium's, inside `step`


@dataclass(frozen=True)
class Library:
    """Where wrappers without a module are found, and what they go around."""

    title: str
    module: str  # of its wrappers
    load: Callable[[], ModuleType]
    choose: str  # the environments that they are for
    names: Callable[[ModuleType], list[str]]
    why_not: Callable[[Any], str]  # what is wrong with an environment, or nothing


class Entry(NamedTuple):
    """One wrapper of the list."""

    key: str  # as errors name it: env.wrappers[0]
    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in masked(self.arguments).items())
        return f"{self.name}({given})" if given else self.name


def check_entries(given: Sequence[Any], key: str) -> list[Any]:
    """Return the entries of a checked configuration in their long form: two spellings of one list are equal.

    Raises ConfigError for a mapping without a name.
    """
    entries = [dict(entry) if isinstance(entry, Mapping) else {"name": entry} for entry in given]
    for i, entry in enumerate(entries):
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise ConfigError(
                f"{key}[{i}]", given[i], "names no wrapper; write {name: ResizeObservation, shape: [84, 84]}, or the name alone"
            )
    return [{"name": entry.pop("name"), **entry} for entry in entries]


def as_entries(given: Sequence[Any], library: Library) -> list[Entry]:
    """Return the entries of `check_entries` with the keys that errors name; raises ConfigError where `find` does."""
    parts = [dict(entry) for entry in given]
    entries = [Entry(f"{KEY}[{i}]", part.pop("name"), part) for i, part in enumerate(parts)]
    for entry in entries:
        find(entry, library)
    return entries


def find(entry: Entry, library: Library) -> Callable[..., Any]:
    """Return an entry's class or function.

    Raises ConfigError for one that isn't there, that belongs to another library, or whose arguments don't fit.
    """
    found = modules.find_named(entry.name, entry.key) if ":" in entry.name else _of_library(entry, library)
    other = next((other for other in LIBRARIES if other is not library and _derives_from(found, other)), None)
    if other is not None and not _derives_from(found, library):
        raise ConfigError(entry.key, entry.name, f"is a wrapper of {other.title}'s, for {other.choose}; {_remedy(library)}")
    if isinstance(found, type) and any(
        cls.__name__ in RESETS and cls.__module__.startswith("gymnasium.") for cls in found.__mro__
    ):
        raise ConfigError(
            entry.key, entry.name, "resets a copy inside step, which hides true successors; leave it out: copies are reset anyway"
        )
    _check_arguments(entry, found)
    return found


def wrap(env: Any, entries: Sequence[Entry], library: Library) -> tuple[Any, dict[int, str]]:
    """Return the environment within its wrappers, and by the identity of each layer what its errors begin with.

    Raises ConfigError for a wrapper that can't be made, or that makes something else than an environment.
    """
    names = dict.fromkeys(map(id, _layers(env)), "") if entries else {}
    for entry in entries:
        found, inner = find(entry, library), env
        try:
            env = found(inner, **_as_wanted(found, entry.arguments))
        except BaseException as error:  # whatever its own code raises
            if comes_from_signal(error):
                raise
            raise ConfigError(entry.key, str(entry), _why_not_made(error, inner)) from error
        wrong = library.why_not(env)
        if wrong:
            raise ConfigError(entry.key, entry.name, f"{wrong}; a wrapper takes the environment and returns the one around it")
        names |= {id(layer): f"{entry.key}={entry.name}: " for layer in _layers(env) if id(layer) not in names}
    return env, names


def blame(error: BaseException, names: Mapping[int, str]) -> str:
    """Return what an error begins with: the wrapper whose code raised it, if it is one of the list."""
    found, trace = "", error.__traceback__
    while names and trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def in_arrays(observation: Any) -> Any:
    """Return what a wrapper answered with frames that are stacked when they are read (LazyFrames) as arrays."""
    kind = type(observation)
    if kind is np.ndarray:
        return observation
    if kind is dict:
        return {key: in_arrays(part) for key, part in observation.items()}
    if kind is tuple:
        return tuple(map(in_arrays, observation))
    return (
        np.asarray(observation) if hasattr(observation, "__array__") and not isinstance(observation, np.generic) else observation
    )


# -- finding ---------------------------------------------------------------------------------------------------------------


def _of_library(entry: Entry, library: Library) -> Callable[..., Any]:
    package = library.load()
    there = library.names(package)
    if entry.name in there:
        try:
            return getattr(package, entry.name)
        except ImportError as error:  # Gymnasium loads them when they are asked for
            raise ConfigError(entry.key, entry.name, f"needs a package that is not installed ({error}); install it") from None
    for other in LIBRARIES:
        with suppress(ImportError):
            if other is not library and hasattr(other.load(), entry.name):
                raise ConfigError(
                    entry.key, entry.name, f"is a wrapper of {other.title}'s, for {other.choose}; {_remedy(library)}"
                )
    if hasattr(package, entry.name):
        raise ConfigError(entry.key, entry.name, f"is for environments whose agents take turns; {_remedy(library)}")
    known = nearest(entry.name, [name for name in there if name not in RESETS])
    raise ConfigError(entry.key, entry.name, f"no such wrapper; {known}; or module:Name for one of another package")


def _remedy(library: Library) -> str:
    return f"here go classes of {library.module}, and module:Name around an environment of {library.title}'s"


def _derives_from(found: Any, library: Library) -> bool:
    root = library.module.partition(".")[0]
    bases = found.__mro__[1:] if isinstance(found, type) else ()
    return any(base.__module__.partition(".")[0] == root for base in bases)


# -- making ----------------------------------------------------------------------------------------------------------------


def _check_arguments(entry: Entry, found: Callable[..., Any]) -> None:
    """Raise ConfigError for an argument that isn't taken, or one that is wanted and not given."""
    parameters = _parameters(found)
    if parameters is None:
        return
    named = parameters[1:]
    takes = {p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in entry.arguments.keys() - takes:
            offered = nearest(name, takes) if takes else "it takes none but the environment"
            raise ConfigError(f"{entry.key}.{name}", entry.arguments[name], f"{entry.name} has no such argument; {offered}")
    wanted = [p.name for p in named if p.name in takes and p.default is p.empty and p.name not in entry.arguments]
    if wanted:
        example = f"{{name: {entry.name}, {', '.join(f'{name}: ...' for name in wanted)}}}"
        raise ConfigError(entry.key, entry.name, f"needs {' and '.join(wanted)}; write {example}")


def _parameters(found: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of a wrapper, the environment first, or None where they can't be known."""
    try:
        return list(inspect.signature(found).parameters.values()) or None
    except (TypeError, ValueError):
        return None


def _as_wanted(found: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments whose lists, all that YAML has, are tuples or arrays where the wrapper says that it takes these."""
    kinds = {p.name: str(p.annotation).lower() for p in _parameters(found) or ()}
    wanted: dict[str, Any] = {}
    for name, value in arguments.items():
        kind = kinds.get(name, "") if isinstance(value, list) else ""
        is_tuple = "list" not in kind and ("tuple" in kind or "sequence" in kind)
        wanted[name] = tuple(value) if is_tuple else np.array(value) if "ndarray" in kind else value
    return wanted


def _why_not_made(error: BaseException, inner: Any) -> str:
    import gymnasium

    if isinstance(error, gymnasium.error.DependencyNotInstalled | ImportError):
        extra = f"; {installing.command_for('atari')} brings OpenCV" if "cv2" in str(error) or "opencv" in str(error) else ""
        return f"needs a package that is not installed ({error}){extra}"
    space: Any = getattr(inner, "observation_space", None)
    shape = getattr(space, "shape", None)
    what = f"{type(space).__name__} {'' if shape is None else f'{space.dtype} {shape}'}".strip()
    around = f" around observations {what}" if isinstance(space, gymnasium.Space) else ""
    return f"can't be made{around} ({said(error)}); give it other arguments or another place in the list, or leave it out"


def _layers(env: Any) -> list[Any]:
    """Return the wrappers and the environment, the outermost first; those of other packages may call it by another name."""
    found = [env]
    while (inner := vars(found[-1]).get("env")) is not None and len(found) < 100:
        found.append(inner)
    return found


def _gymnasium_names(package: ModuleType) -> list[str]:
    return [name for name in package.__all__ if name[:1].isupper()]


def _pettingzoo_names(package: ModuleType) -> list[str]:
    return [name for name, value in vars(package).items() if isinstance(value, type) and issubclass(value, _parallel())]


def _why_not_gymnasium(env: Any) -> str:
    import gymnasium

    if not isinstance(env, gymnasium.Env):
        return f"made {_kind(env)}, which is no environment of Gymnasium's"
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gymnasium.Space):
            return f"left {name}={getattr(env, name, None)!r}, which is no space"
    return ""


def _why_not_pettingzoo(env: Any) -> str:
    if isinstance(env, _parallel()):
        return ""
    return f"made {_kind(env)}, which is no environment of PettingZoo's whose agents act at once (ParallelEnv)"


def _kind(env: Any) -> str:
    return "nothing (None)" if env is None else f"a {type(env).__name__}"


def _parallel() -> type:
    from pettingzoo import ParallelEnv

    return ParallelEnv


def _load_gymnasium() -> ModuleType:
    import gymnasium.wrappers

    return gymnasium.wrappers


def _load_pettingzoo() -> ModuleType:
    import pettingzoo.utils.wrappers

    return pettingzoo.utils.wrappers


GYMNASIUM = Library("Gymnasium", "gymnasium.wrappers", _load_gymnasium, "env=gymnasium", _gymnasium_names, _why_not_gymnasium)
PETTINGZOO = Library(
    "PettingZoo", "pettingzoo.utils.wrappers", _load_pettingzoo, "env=pettingzoo", _pettingzoo_names, _why_not_pettingzoo
)
LIBRARIES = (GYMNASIUM, PETTINGZOO)
