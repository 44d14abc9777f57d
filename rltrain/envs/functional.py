"""Functional environments: one copy as two pure functions. Their settings and what they must offer; no JAX here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rltrain.checks import option
from rltrain.errors import ConfigError, nearest
from rltrain.structures import Array, Arrays


@dataclass
class FunctionalConfig:
    """A functional environment by id."""

    id: str = option("CartPole-v1", "environment id", fixed=True)
    num_envs: int = option(8, "copies that are stepped together", low=1, high=1_048_576, fixed=True)
    kwargs: dict[str, Any] = option({}, "handed to the environment as they are")
    on_nonfinite: str = option(
        "error", "what to do about NaN or infinity in an observation or reward", choices=["error", "ignore"]
    )
    on_invalid: str = option(
        "error",
        "what to do about observations that a Discrete, MultiDiscrete or MultiBinary space can't have; Box bounds are "
        "not checked",
        choices=["error", "ignore"],
    )


@dataclass
class BraxConfig(FunctionalConfig):
    """A Brax environment by id."""

    id: str = option("halfcheetah", "environment id", fixed=True)


@dataclass
class TeamConfig(FunctionalConfig):
    """A functional environment with named members by id."""

    state: str = option(
        "auto",
        "what a centralised critic reads: the environment's own states, or all observations joined; auto: its own where "
        "it has some; none: nothing is spent on it",
        choices=["auto", "own", "joined", "none"],
        fixed=True,
    )


@dataclass
class JaxMARLConfig(TeamConfig):
    """A JaxMARL environment by id."""

    id: str = option("MPE_simple_spread_v3", "environment id", fixed=True)


class Functional(Protocol):
    """One copy of an environment, without a state of its own.

    Two things are optional. With a `state_space` and `states(state)`, (*S), only the value network reads these instead of the
    observation. With `action_masks(state)`, (M,) bool with the choices of a MultiDiscrete space side by side, only choices that
    are true are drawn; each part of an action needs one.
    """

    observation_space: Any
    action_space: Any

    def reset(self, key: Array) -> tuple[Any, Arrays]:
        """Return the state, any pytree, and the observation that an episode begins with."""

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, Arrays, Array, Array, Array]:
        """Return state, observation, reward, terminated, truncated after one step.

        State and observation are the true successor's, even if the episode ended.
        """


class FunctionalTeam(Protocol):
    """One copy of an environment with several named members that act at once, without a state of its own.

    Spaces are Dicts by member. A member that was flagged is gone until the next episode: what `step` says about it after that is
    passed over. With `members_leave = False` all are flagged in the same step, always, and nothing is spent on who is there.

    Members that come late need `present(state)`, a bool per member: until it is true for the first time in an episode, in a step
    that doesn't flag the member, what is said of it is passed over, too. One that was there and isn't any more, without a flag,
    is cut off (truncated).

    `state_space` and `states(state)`, (*S), are what a centralised critic reads; without them all observations joined.
    `action_masks(state)` gives masks by member, of those that have choices.
    """

    members: Sequence[str]
    observation_space: Any
    action_space: Any

    def reset(self, key: Array) -> tuple[Any, dict[str, Any]]:
        """Return the state, any pytree, and the observations by member that an episode begins with."""

    def step(
        self, key: Array, state: Any, actions: dict[str, Array]
    ) -> tuple[Any, dict[str, Any], dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return state and, by member, observations, rewards, terminated, truncated after one step.

        State and observations are the true successors, even if the episode ended.
        """


def check_kwargs(given: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return `given` in the types of `defaults`; a default of None takes anything.

    Raises ConfigError for a name that isn't among them or a value of another kind.
    """
    checked = {}
    for name, value in given.items():
        if name not in defaults:
            raise ConfigError(f"env.kwargs.{name}", value, f"{what} has no such parameter; {nearest(name, list(defaults))}")
        checked[name] = _as_kind(f"env.kwargs.{name}", value, defaults[name])
    return checked


def _as_kind(key: str, value: Any, default: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = number and value == int(value), "a whole number"
    elif isinstance(default, float):
        fits, wanted = number, "a finite number"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "text"
    elif hasattr(default, "__len__"):
        shape = np.shape(default)
        try:
            array = np.array(value, np.asarray(default).dtype)
        except (TypeError, ValueError):
            array = np.full((), np.nan)
        fits, wanted = array.shape == shape and bool(np.isfinite(array).all()), f"finite numbers in the shape {shape}"
        value = type(default)(array.tolist()) if fits and isinstance(default, tuple | list) else array if fits else value
    else:
        return value
    if not fits:
        raise ConfigError(key, value, f"must be {wanted}; the default is {default}")
    return type(default)(value) if isinstance(default, int | float | str) else value
