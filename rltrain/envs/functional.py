"""Functional environments: one copy as two pure functions. Their settings and what they must offer; no JAX here."""

from dataclasses import dataclass
from typing import Any, Protocol

from rltrain.checks import option
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
