"""Many copies of a functional environment with named members: who is there, and what is said of those who aren't."""

from typing import Any

import jax.numpy as jnp

from rltrain import spaces
from rltrain.envs.jax_copies import Copies, PureCopies, choose, has_choices
from rltrain.errors import ConfigError
from rltrain.structures import Array, Arrays, Step


class PureTeams(PureCopies):
    """The same of an environment with named members: what is one's comes in a dict by name.

    A member acts from an episode's begin until it is flagged. Rows after that did not happen: zeros, `valid` False. The episode
    of a copy ends with its last member's; then every member's row is flagged.
    """

    def __init__(self, env: Any, state: str = "auto") -> None:
        super().__init__(env)
        self.members = tuple(env.members)
        self.leave = bool(getattr(env, "members_leave", True))
        if state == "own" and self.state_space is None:
            raise ConfigError("env.state", "own", "the environment has no states of its own; use joined or auto")
        self.state = {"auto": "joined" if self.state_space is None else "own"}.get(state, state)
        if self.state != "own":
            self.state_space = env.observation_space if self.state == "joined" else None

    def init(self, keys: Array) -> Copies:
        """Begin an episode in every copy; `keys` (N,) are their random streams."""
        copies = super().init(keys)
        everyone = {name: jnp.ones(len(keys), bool) for name in self.members}
        return copies._replace(there=everyone) if self.leave else copies

    def step(self, copies: Copies, actions: dict[str, Array]) -> tuple[Copies, Step]:
        """Step all copies; their `observations` are the true successors until `reset_done`."""
        after, step = super().step(copies, actions)
        there = copies.there
        if there is None:
            return after, step
        # ---- those that had left
        observations = {
            path: choose(there[path.split("/")[0]], rows, jnp.zeros_like(rows)) for path, rows in after.observations.items()
        }
        rewards = {name: jnp.where(there[name], step.rewards[name], 0.0) for name in self.members}
        terminated, truncated = (
            {name: flags[name] & there[name] for name in self.members} for flags in (step.terminated, step.truncated)
        )
        # ---- those that are left
        stay = {name: there[name] & ~(terminated[name] | truncated[name]) for name in self.members}
        over = ~jnp.stack(list(stay.values())).any(axis=0)
        terminated = {name: terminated[name] | (over & ~truncated[name]) for name in self.members}
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

    def mask_sizes(self) -> Any:
        """Return how many choices each member's mask is of."""
        return {name: sum(choices) for name, choices in self.choices.items()}

    def reset_done(self, copies: Copies) -> Copies:
        """Begin the next episode where one just ended; nothing is computed if none did."""
        after, there = super().reset_done(copies), copies.there
        return after if there is None else after._replace(there={name: rows | copies.done for name, rows in there.items()})

    def info(self) -> dict[str, Any]:
        """Say what the critic's state is."""
        return {"state": self.state, "members": list(self.members)}

    def _find_choices(self, space: Any) -> Any:
        found = {name: spaces.choices(own) for name, own in space.spaces.items()}
        return {name: choices for name, choices in found.items() if choices} or None
