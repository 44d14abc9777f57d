"""Rewards of one's own: a function makes what an agent learns from of what the environment paid.

What is reported stays the environment's. On the host the function gets NumPy arrays; where environment and algorithm are both
written in JAX it is compiled, in the stepped loop as in the fused one, so that both learn from the same bits.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rltrain import modules
from rltrain.errors import ConfigError, NonFiniteError, RunError, said
from rltrain.signals import comes_from_signal
from rltrain.structures import Array

DOC = (
    "a function of your own, `my_package:shape`, that makes of (rewards, timestep, timesteps) the rewards to learn from, before "
    "they are scaled or clipped; reported returns stay the environment's"
)
WANTED = "(rewards, timestep, timesteps), and infos if it wants them"


class WrongForm(TypeError):
    """A function returned something that isn't a number per reward."""


class RewardFunction:
    """Makes rewards (N,) of rewards (N,); `given` is `module:name` or the function itself.

    `compile` makes a compiled function of one, where the algorithm is written in JAX. Raises ConfigError for a function that
    isn't there or takes other arguments.
    """

    members: tuple[str, ...] = ()  # of a team: whose rows come one after the other

    def __init__(self, given: str | Callable[..., Any], key: str, compile: Callable[..., Any] | None = None) -> None:
        self.key, self.given = key, given
        self.name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
        self.function = modules.find_named(given, key) if isinstance(given, str) else given
        self.reads_infos = self._read_signature()
        self.compiled = None if compile is None or self.reads_infos else compile(self.traced)

    def _read_signature(self) -> bool:
        """Tell whether the function wants infos."""
        try:
            signature = inspect.signature(self.function)
        except ValueError:
            return False  # it doesn't say what it takes
        wants = "infos" in signature.parameters
        try:
            signature.bind(None, None, None, **({"infos": None} if wants else {}))
        except TypeError:
            raise ConfigError(self.key, self.name, f"takes {signature}; let it take {WANTED}") from None
        return wants

    def try_out(self, copies: int, *, on_device: bool) -> None:
        """Raise ConfigError if the function fails on rewards of 1, or can't be compiled where it has to be."""
        ones = np.ones(copies, np.float32)
        compiles = on_device and self.compiled is not None
        try:
            if compiles:
                self.compiled.eval_shape(ones, np.int32(0), np.int32(1))  # type: ignore[union-attr]
            elif not self.reads_infos:  # what is in them is the environment's to say
                with np.errstate(all="ignore"):
                    self._read(self.function(ones.copy(), 0, 1), ones)
        except WrongForm as error:
            raise ConfigError(self.key, self.name, str(error)) from None
        except Exception as error:
            if comes_from_signal(error):
                raise
            what, remedy = f"fails on {copies} rewards of 1: ", "mend it"
            if compiles:
                what = "can't be compiled, as a JAX environment needs it: "
                remedy = "write it in jax.numpy, without an `if` on what it is given, or use backend=torch"
            raise ConfigError(self.key, self.name, f"{what}{_first_line(error)}; {remedy}") from error

    def shape(self, rewards: Array, timestep: int, timesteps: int, infos: Mapping[str, Any], *, on_device: bool) -> np.ndarray:
        """Return what to learn from (N,) float32.

        Raises RunError if the function fails or returns something else, NonFiniteError if it makes NaN or infinity.
        """
        rewards = np.array(rewards, np.float32)
        try:
            if on_device and self.compiled is not None:
                made = np.asarray(self.compiled(rewards, np.int32(timestep), np.int32(timesteps)))
            else:
                wanted = {"infos": infos} if self.reads_infos else {}
                made = self._read(self.function(rewards.copy(), timestep, timesteps, **wanted), rewards)
        except Exception as error:
            if comes_from_signal(error):
                raise
            what = str(error) if isinstance(error, WrongForm) else f"fails: {said(error)}"
            raise RunError(f"{self.key}={self.name}: timestep {timestep}: {what}") from error
        wrong = ~np.isfinite(made) & np.isfinite(rewards)
        if wrong.any():
            row = int(np.argmax(wrong))
            copies = len(rewards) // max(1, len(self.members))
            self.refuse(rewards[row], row % copies, timestep, self.members[row // copies] if self.members else "")
        return made

    def traced(self, rewards: Array, timestep: Array, timesteps: Array) -> Array:
        """Return what to learn from (N,) float32, as part of a compiled program."""
        return self._read(self.function(rewards, timestep, timesteps), rewards)

    def _read(self, made: Any, rewards: Array) -> Array:
        """Return what the function returned as float32.

        Raises WrongForm for what isn't a number per reward.
        """
        made = made if hasattr(made, "astype") else np.asarray(made)
        if made.shape != rewards.shape or np.dtype(made.dtype).kind not in "biuf":
            raise WrongForm(f"returns {made.shape} {made.dtype} for {rewards.shape} rewards; return a number for each")
        return made.astype(np.float32)

    def refuse(self, reward: Any, copy: int, timestep: int, member: str = "") -> None:
        """Raise NonFiniteError for what was made of one reward."""
        where = f"timestep {timestep}: copy {copy}{member and f': {member}'}"
        raise NonFiniteError(f"{self.key}={self.name}: {where}: what it makes of the reward {reward:g} is not finite")


class TeamRewards:
    """The reward functions of a team, by group of members that share parameters; each gets its group's rows at once.

    Rewards come and go by member (N,); those of M members of a group are M x N rows, member by member.
    """

    def __init__(self, groups: Mapping[str, Any], functions: Mapping[str, RewardFunction | None]) -> None:
        self.pairs = [(groups[name], function) for name, function in functions.items() if function is not None]
        for group, function in self.pairs:
            function.members = group.members
        self.reads_infos = any(function.reads_infos for _, function in self.pairs)
        self.name = ", ".join(dict.fromkeys(function.name for _, function in self.pairs))

    def try_out(self, copies: int, *, on_device: bool) -> None:
        """Raise ConfigError for a function that can't be used."""
        for group, function in self.pairs:
            function.try_out(copies * len(group.members), on_device=on_device)

    def shape(
        self, rewards: dict[str, Array], timestep: int, timesteps: int, infos: Mapping[str, Any], *, on_device: bool
    ) -> dict[str, Array]:
        """Return what to learn from by member; `infos` are the whole team's."""
        found = dict(rewards)
        for group, function in self.pairs:
            found |= group.split(function.shape(group.rows(rewards), timestep, timesteps, infos, on_device=on_device))
        return found

    def traced(self, rewards: dict[str, Array], timestep: Array, timesteps: Array) -> dict[str, Array]:
        """Return what to learn from by member, as part of a compiled program."""
        found = dict(rewards)
        for group, function in self.pairs:
            found |= group.split(function.traced(group.rows(rewards), timestep, timesteps))
        return found

    def refuse(self, reward: Any, copy: int, timestep: int, member: str) -> None:
        """Raise NonFiniteError for what was made of one member's reward."""
        for group, function in self.pairs:
            if member in group.members:
                function.refuse(reward, copy, timestep, member)


def find_reward_function(
    given: str | Callable[..., Any] | None, key: str, compile: Callable[..., Any] | None = None
) -> RewardFunction | None:
    """Return the function that the setting `key.reward_function` names, or None if it names none."""
    return None if given is None else RewardFunction(given, f"{key}.reward_function", compile)


def find_team_rewards(groups: Mapping[str, Any], parts: Mapping[str, Any]) -> TeamRewards | None:
    """Return what makes rewards of a team's, given its groups and their algorithms, or None if no group has such."""
    team = TeamRewards(groups, {name: getattr(part, "reward_function", None) for name, part in parts.items()})
    return team if team.pairs else None


def _first_line(error: BaseException) -> str:
    return (said(error).splitlines() or [""])[0]
