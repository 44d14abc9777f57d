"""Single copies of PettingZoo environments: found by id, made as Parallel ones, every episode one that can be played again."""

import os
import pkgutil
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, NoReturn

import numpy as np

from rltrain import installing, modules
from rltrain.envs import wrapping
from rltrain.envs.answers import fitting, kind, why_not_in, why_not_outcome
from rltrain.envs.gymnasium_copies import CopyError, as_copy_error
from rltrain.envs.snapshots import remember
from rltrain.errors import ConfigError, nearest, said
from rltrain.hangs import caller
from rltrain.seeding import EPISODES, seed32
from rltrain.signals import comes_from_signal

FAMILIES = {
    "mpe": "mpe2",
    "butterfly": "pettingzoo.butterfly",
    "sisl": "pettingzoo.sisl",
    "classic": "pettingzoo.classic",
    "atari": "pettingzoo.atari",
    "magent": "pettingzoo.magent",
}


def make_by_id(env_id: str, kwargs: dict[str, Any], render_mode: str | None) -> Any:
    """Return one environment in PettingZoo's Parallel form.

    Raises ConfigError for an id that isn't there, a package that is missing, kwargs that don't fit, and an environment whose
    agents take turns and which has no parallel form.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    make = _find(env_id)
    mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}  # not every environment takes it
    try:
        env = make(**mode, **kwargs)
    except ModuleNotFoundError as error:
        raise _missing(env_id, error) from None
    except TypeError as error:
        if kwargs:
            raise ConfigError("env.kwargs", list(kwargs), f"{env_id} does not take them: {error}") from None
        raise
    return as_parallel(env, env_id)


def as_parallel(env: Any, env_id: str) -> Any:
    """Return the environment itself, or PettingZoo's conversion of a turn-based one where that is valid."""
    from pettingzoo import AECEnv
    from pettingzoo.utils.conversions import aec_to_parallel

    if not isinstance(env, AECEnv):
        return _without_checks(env)
    if not env.metadata.get("is_parallelizable", False):
        raise ConfigError(
            "env.id",
            env_id,
            "its agents take turns, each seeing what the one before did (metadata is_parallelizable is not "
            "true), so there is no step of all at once; use an environment with a Parallel form",
        )
    return _without_checks(aec_to_parallel(env))


def _without_checks(env: Any) -> Any:
    """Return a converted environment without the wrappers that only check the order of calls and the range of actions.

    Both are right here, and in MPE the checks take a third of a step's time.
    """
    from pettingzoo.utils import wrappers
    from pettingzoo.utils.conversions import aec_to_parallel, aec_to_parallel_wrapper

    if type(env) is not aec_to_parallel_wrapper:
        return env
    inner = env.aec_env
    while type(inner) in (wrappers.OrderEnforcingWrapper, wrappers.AssertOutOfBoundsWrapper):
        inner = inner.env
    return env if inner is env.aec_env else aec_to_parallel(inner)


def _find(env_id: str) -> Callable[..., Any]:
    """Return what makes the environment: of `family/name_v0`, or of `module:attribute`."""
    module, _, attribute = env_id.partition(":")
    if not attribute:
        module, attribute = _module_of(env_id), ""
    try:
        package = modules.import_named(module, "env.id", env_id)
    except modules.Refused:
        raise
    except ModuleNotFoundError as error:
        if ":" in env_id and module.startswith(error.name or "?"):
            raise ConfigError("env.id", env_id, f"module {module!r} can't be imported ({error}); is it on PYTHONPATH?") from None
        raise _missing(env_id, error) from None
    except BaseException as error:  # whatever the module's own code raises
        if comes_from_signal(error):
            raise
        raise ConfigError("env.id", env_id, f"module {module!r} can't be imported ({said(error)})") from error
    names = [attribute] if attribute else ["parallel_env", "env"]
    for name in names:
        if callable(getattr(package, name, None)):
            return getattr(package, name)
    there = [name for name, value in vars(package).items() if callable(value) and not name.startswith("_")]
    raise ConfigError("env.id", env_id, f"{module} has no {' or '.join(names)}; {nearest(names[0], there)}")


def _module_of(env_id: str) -> str:
    """Return the module of `family/name_v0`; raises ConfigError with the nearest names if there is none."""
    family, _, name = env_id.partition("/")
    if family not in FAMILIES or not name:
        known = f"write family/name_v0 with a family of {', '.join(FAMILIES)}, or module:attribute for one of your own"
        raise ConfigError("env.id", env_id, f"no such environment; {known}")
    try:
        package = modules.import_named(FAMILIES[family], "env.id", env_id)
    except ModuleNotFoundError as error:
        raise _missing(env_id, error) from None
    there = [module.name for module in pkgutil.iter_modules(package.__path__) if re.search(r"_v\d+$", module.name)]
    if name not in there:
        raise ConfigError("env.id", env_id, f"no such environment; {nearest(name, there, limit=6)}")
    return f"{FAMILIES[family]}.{name}"


def _missing(env_id: str, error: ModuleNotFoundError) -> ConfigError:
    package = (error.name or "").split(".")[0]
    family = env_id.partition("/")[0]
    remedy = f"pip install 'pettingzoo[{family}]'" if family in FAMILIES and family != "mpe" else f"install {package}"
    if package in ("pettingzoo", "mpe2"):
        remedy = installing.command_for("pettingzoo")
    return ConfigError("env.id", env_id, f"its package {package} is not installed; {remedy}")


class Copy:
    """One copy, each of whose episodes has a seed of its own.

    With it and the actions so far an episode can be played again, which stands for a snapshot: these environments hold objects
    that are no plain data.
    """

    def __init__(self, make: Callable[[], Any], index: int, label: str = "", wrappers: Sequence[wrapping.Entry] = ()) -> None:
        """With a label, a dump of stacks shows it, the phase put in for {}. `wrappers` go around what `make` returns."""
        self.index = index  # among the copies of this wrapper
        self.label = label
        self._calls: dict[str, Callable[..., Any]] = {}  # by phase
        self._names: dict[int, str] = {}  # of the wrappers
        self.env, self._names = self._try("make", lambda: wrapping.wrap(make(), wrappers, wrapping.PETTINGZOO))
        self.made = remember(self.env)
        self.seed = self.episode = 0
        self.played: list[dict[str, Any]] = []  # the actions of the running episode
        self.failed = False
        self._forms: dict[str, tuple[Callable[[Any], bool], Any]] = {}  # by agent

    def begin(self, seed: int, episode: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode: the first one of a seed from the seed itself, later ones from seeds derived from it."""
        self.seed, self.episode, self.played = seed, episode, []
        answer = self._try("reset", self.env.reset, seed=seed32(seed, EPISODES, episode) if episode else seed)
        return self._check("reset", ("observations", "infos"), answer)

    def step(self, actions: dict[str, Any]) -> Any:
        """Step; `actions` of the agents that are there."""
        self.played.append(actions)
        answer = self._try("step", self.env.step, actions)
        return self._check("step", ("observations", "rewards", "terminated", "truncated", "infos"), answer)

    def state(self, space: Any) -> np.ndarray:
        """Return the environment's own global state, of that space."""
        state = np.asarray(self._try("state", self.env.state))
        if (state.shape, state.dtype) != (space.shape, space.dtype):
            self._refuse("state", f"expected {space.dtype} {space.shape}, got {kind(state)}")
        return state

    def own_state_space(self) -> Any:
        """Return the space of the environment's own `state()`, or None if it has none; resets the environment."""
        from gymnasium.spaces import Box

        self._try("reset", self.env.reset, seed=0)
        state = self._try("state", _state_if_any, self.env)
        if state is None:
            return None
        space = getattr(self.env, "state_space", None)
        if space is not None and getattr(space, "shape", None) == state.shape and space.dtype == state.dtype:
            return space
        low, high = (-np.inf, np.inf) if state.dtype.kind == "f" else (np.iinfo(state.dtype).min, np.iinfo(state.dtype).max)
        return Box(low, high, state.shape, state.dtype.type)

    def render(self) -> Any:
        """Return what it draws."""
        return self._try("render", self.env.render)

    def close(self) -> None:
        """Close it; an error in close never hides the first."""
        with suppress(CopyError) if self.failed else nullcontext():
            self._try("close", self.env.close)

    def _check(self, phase: str, names: tuple[str, ...], answer: Any) -> Any:
        """Return the answer; raises CopyError unless it is dicts by agent of what each agent's spaces say."""
        if (
            not isinstance(answer, tuple | list)
            or len(answer) != len(names)
            or not all(isinstance(part, dict) for part in answer)
        ):
            given = ", ".join(map(kind, answer)) if isinstance(answer, tuple | list) else kind(answer)
            self._refuse(phase, f"expected ({', '.join(names)}), dicts by agent, got ({given})")
        if self._names:
            answer = ({agent: wrapping.in_arrays(observation) for agent, observation in answer[0].items()}, *answer[1:])
        for agent, observation in answer[0].items():
            fits, space = self._form(phase, agent)
            wrong = "" if fits(observation) else why_not_in(space, observation)
            if wrong:
                self._refuse(phase, f"{agent}: {wrong}")
        if phase == "step":
            rewards, terminated, truncated = answer[1:4]
            for agent in rewards.keys() | terminated.keys() | truncated.keys():
                wrong = why_not_outcome(rewards.get(agent, 0.0), terminated.get(agent, True), truncated.get(agent, False))
                if wrong:
                    self._refuse(phase, f"{agent}: {wrong}")
        return answer

    def _form(self, phase: str, agent: str) -> tuple[Callable[[Any], bool], Any]:
        """Return a quick check of an agent's observations, and their space."""
        if agent not in self._forms:
            if agent not in self.env.possible_agents:
                self._refuse(phase, f"observations of {agent!r}, whom possible_agents does not name")
            space = self._try(phase, self.env.observation_space, agent)
            self._forms[agent] = fitting(space), space
        return self._forms[agent]

    def _refuse(self, phase: str, wrong: str) -> NoReturn:
        self.failed = True
        raise CopyError((self.index, phase, wrong, ""))

    def _try(self, phase: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.label:
            if phase not in self._calls:
                self._calls[phase] = caller(self.label.format(phase))
            function = partial(self._calls[phase], function)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self.failed = True
            raise as_copy_error(self.index, phase, error, self._names) from None


def _state_if_any(env: Any) -> np.ndarray | None:
    try:
        return np.asarray(env.state())
    except (NotImplementedError, AttributeError, TypeError):  # in some environments `state` is no method
        return None


def cast(space: Any, actions: Any) -> np.ndarray:
    """Return a member's actions (N, *A) in the dtype that its space says."""
    return np.array(actions, space.dtype).reshape(-1, *(space.shape or ()))
