"""Many copies of a functional environment with named members: who is there, and what is said of those who aren't."""

from typing import Any

import jax
import jax.numpy as jnp

from rltrain import spaces
from rltrain.envs.jax_checks import CheckedEnv
from rltrain.envs.jax_copies import Copies, PureCopies, choose, has_choices
from rltrain.errors import ConfigError
from rltrain.structures import Array, Arrays, Step


class PureTeams(PureCopies):
    """The same of an environment with named members: what is one's comes in a dict by name.

    A member acts from an episode's begin, or from when the environment's `present` says that it is there, until it is flagged.
    Other rows did not happen: zeros, `valid` False. An episode of a copy ends when nobody is there; then every member's row is
    flagged.
    """

    def __init__(self, checked: CheckedEnv, state: str = "auto") -> None:
        super().__init__(checked)
        env: Any = checked.env
        self.members = tuple(env.members)
        self.come_late = hasattr(env, "present")
        self.leave = self.come_late or bool(getattr(env, "members_leave", True))
        if state == "own" and self.state_space is None:
            raise ConfigError("env.state", "own", "the environment has no states of its own; use joined or auto")
        self.state = {"auto": "joined" if self.state_space is None else "own"}.get(state, state)
        if self.state != "own":
            self.state_space = env.observation_space if self.state == "joined" else None

    def init(self, keys: Array) -> Copies:
        """Begin an episode in every copy; `keys` (N,) are their random streams."""
        copies = super().init(keys)
        if not self.leave:
            return copies
        nobody = {name: jnp.zeros(len(keys), bool) for name in self.members}
        copies = copies._replace(there=nobody, awaited=nobody if self.come_late else None)
        return self._begin(copies, jnp.ones(len(keys), bool))

    def step(self, copies: Copies, actions: dict[str, Array]) -> tuple[Copies, Step]:
        """Step all copies; their `observations` are the true successors until `reset_done`."""
        after, step = super().step(copies, actions)
        there = copies.there
        if there is None:
            return after, step
        # ---- those that were not there
        rewards = {name: jnp.where(there[name], step.rewards[name], 0.0) for name in self.members}
        terminated, truncated = (
            {name: flags[name] & there[name] for name in self.members} for flags in (step.terminated, step.truncated)
        )
        # ---- those that are there next
        come, awaited = None, copies.awaited
        if awaited is not None:
            present = self._present(after)
            truncated = {name: truncated[name] | (there[name] & ~present[name] & ~terminated[name]) for name in self.members}
            out = {name: step.terminated[name] | step.truncated[name] for name in self.members}  # at a time limit nobody comes
            come = {name: awaited[name] & present[name] & ~out[name] for name in self.members}
            after = after._replace(awaited={name: awaited[name] & ~come[name] for name in self.members})
        stay = {name: there[name] & ~(terminated[name] | truncated[name]) for name in self.members}
        stay = stay if come is None else {name: stay[name] | come[name] for name in self.members}
        over = ~jnp.stack(list(stay.values())).any(axis=0)
        terminated = {name: terminated[name] | (over & ~truncated[name]) for name in self.members}
        observations = _hide(after.observations, {name: there[name] | stay[name] for name in self.members})
        after = after._replace(observations=observations, done=over, there=stay)
        return after, Step(observations, self.states(after), rewards, terminated, truncated, there, {})

    def states(self, copies: Copies) -> Arrays:
        """Return the states (N, *S) that go with `observations`: the environment's own, or the observations of all members."""
        return copies.observations if self.state == "joined" else super().states(copies)

    def action_masks(self, copies: Copies) -> Arrays:
        """Return which choices are allowed next, by member (N, M) bool, or None: all are."""
        masks, there = super().action_masks(copies), copies.there
        if masks is None or there is None:
            return masks
        return {name: mask | ~there[name][:, None] for name, mask in masks.items()}

    def is_playable(self, masks: Arrays) -> Array:
        """Tell which copies (N,) leave every member a choice in every part of an action."""
        return jnp.stack([has_choices(mask, self.choices[name]) for name, mask in masks.items()]).all(axis=0)

    def reset_done(self, copies: Copies) -> Copies:
        """Begin the next episode where one just ended; nothing is computed if none did."""
        after = super().reset_done(copies)
        return after if after.there is None else self._begin(after, copies.done)

    def _begin(self, copies: Copies, begun: Array) -> Copies:
        """Return the copies with who is there where an episode has `begun`, (N,) bool."""
        assert copies.there is not None
        if copies.awaited is None:
            return copies._replace(there={name: rows | begun for name, rows in copies.there.items()})
        present = self._present(copies)
        there = {name: jnp.where(begun, present[name], rows) for name, rows in copies.there.items()}
        awaited = {name: jnp.where(begun, ~present[name], rows) for name, rows in copies.awaited.items()}
        shown = {name: rows | ~begun for name, rows in there.items()}
        return copies._replace(there=there, awaited=awaited, observations=_hide(copies.observations, shown))

    def _present(self, copies: Copies) -> dict[str, Array]:
        """Return whom the environment has there (N,) bool, by member."""
        found = jax.vmap(self.env.present)(copies.env)
        return {name: found[name].astype(bool) for name in self.members}

    def info(self) -> dict[str, Any]:
        """Say what the critic's state is."""
        return {"state": self.state, "members": list(self.members)}

    def _find_choices(self, space: Any) -> Any:
        found = {name: spaces.choices(own) for name, own in space.spaces.items()}
        return {name: choices for name, choices in found.items() if choices} or None


def _hide(observations: Arrays, shown: dict[str, Array]) -> Arrays:
    """Return observations with zeros where a member isn't `shown` (N,) bool."""
    return {path: choose(shown[path.split("/")[0]], rows, jnp.zeros_like(rows)) for path, rows in observations.items()}
