"""A team of named agents as one algorithm: each group of members that shares parameters is an algorithm for one agent.

What belongs to M members of a group comes in dicts by name, (N, ...) each, and goes on as M x N rows, member by member, so that a
group acts in one forward pass and learns from one batch. The algorithm of a group doesn't know that its rows are of several
members, but by a one-hot that the members are given where they share.
"""

from dataclasses import asdict, fields
from typing import Any, ClassVar

import numpy as np

from rltrain import spaces
from rltrain.agents.base import Actor, HasRecipe
from rltrain.agents.multi_agent.config import TeamConfig, form_groups
from rltrain.agents.multi_agent.groups import Group
from rltrain.agents.multi_agent.pure import PureTeam
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.rewards import find_team_rewards
from rltrain.seeding import AGENT_ACTOR, seed64
from rltrain.structures import Array, Arrays, Progress, Transition

STRIDE = 2**16  # between the streams of groups: there can't be more agents


class MultiAgent(HasRecipe):
    """Acts and learns for all members of a team, as an Algorithm; a subclass names the algorithm of each group, `part`."""

    config: ClassVar[type]
    part: ClassVar[Any]
    reads_infos = False
    plays_teams = True

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        state_space: Any = None,
        num_envs: int,
        cfg: Any = None,
        seed: int = 0,
        index: int = 0,
        backend: Any = None,
        key: str | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.num_envs = num_envs
        self.schedule = self.cfg.schedule()
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        own, actions = (dict(getattr(space, "spaces", {})) for space in (observation_space, action_space))
        if not actions or own.keys() != actions.keys():
            raise ConfigError(
                self.key,
                type(self).__name__,
                "plays environments with named agents, such as env=pettingzoo; this one has one agent: use ppo",
            )
        self.members = tuple(actions)
        self.central = self.cfg.use_states
        if self.central and state_space is None:
            raise ConfigError(f"{self.key}.use_states", True, "the environment gives no states; use ippo, or env.state=auto")
        self.groups: dict[str, Group] = {}
        self.parts: dict[str, Any] = {}  # each an Algorithm
        for number, (name, members) in enumerate(form_groups(self.cfg, own, actions, self.key).items()):
            one = members[0]
            group = self.groups[name] = Group(members, list(spaces.leaves(own[one])))
            part = self.part(
                group.space(own[one]),
                actions[one],
                state_space=group.space(state_space) if self.central else None,
                num_envs=num_envs * len(members),
                cfg=self._settings(name),
                seed=seed,
                index=index + STRIDE * number,
                backend=backend,
                key=self.key if name not in self.cfg.overrides else f"{self.key}.overrides.{name}",
            )
            backend = part.backend
            self.parts[name] = backend.own(part)
        self.backend = backend
        self.reward_function = find_team_rewards(self.groups, self.parts)
        pures = {name: part.pure for name, part in self.parts.items() if hasattr(part, "pure")}
        if pures:
            self.pure = PureTeam(self.groups, pures, self.schedule, num_envs, central=self.central)
            self.pure.reward_function = self.reward_function

    def _settings(self, group: str) -> dict[str, Any]:
        """Return the settings of one group's algorithm."""
        team = {f.name for f in fields(TeamConfig)}
        return _merge({k: v for k, v in asdict(self.cfg).items() if k not in team}, self.cfg.overrides.get(group, {}))

    @property
    def remembers(self) -> bool:
        """Whether a group's acting carries something from timestep to timestep."""
        return any(part.remembers for part in self.parts.values())

    @property
    def images(self) -> dict[str, Any]:
        """The images in members' observations that networks read as such, by group and path."""
        return {f"{name}/{path}": image for name, part in self.parts.items() for path, image in part.images.items()}

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return what the groups' acting carries: of training, if `seed` is the team's `actor_seed`."""
        trains = seed == self.actor_seed
        actors = {}
        for i, (name, group) in enumerate(self.groups.items()):
            part = self.parts[name]
            own = part.actor_seed if trains else seed64(seed, AGENT_ACTOR, i)
            actors[name] = part.init_actor(num_envs * len(group.members), own)
        return actors

    def act(
        self,
        actor: Actor,
        observations: Arrays,
        states: Arrays = None,
        action_masks: dict[str, Array] | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Actor, dict[str, Array], dict[str, Array]]:
        """Return actions by member (N, *A); exploring, also what `record` wants back."""
        after: dict[str, Actor] = {}
        actions: dict[str, Array] = {}
        outputs: dict[str, Array] = {}
        for name, group in self.groups.items():
            masked = action_masks is not None and group.members[0] in action_masks
            rows = spaces.map_arrays(self.backend.asarray, group.observations(observations))
            masks = self.backend.asarray(group.rows(action_masks)) if masked else None  # type: ignore[arg-type]
            after[name], chosen, wanted = self.parts[name].act(actor[name], rows, None, masks, explore=explore, progress=progress)
            actions |= group.split(chosen)
            outputs |= {f"{name}/{key}": value for key, value in wanted.items()}
        return after, {name: actions[name] for name in self.members}, outputs

    def reset_actor(self, actor: Actor, done: Arrays) -> Actor:
        """Forget what belongs to episodes that ended; `done` is (N,) bool, of copies or by member."""
        return {name: self.parts[name].reset_actor(actor[name], group.flags(done)) for name, group in self.groups.items()}

    def renew_actor(self, actor: Actor) -> Actor:
        """Return the actor for a loop that counts timesteps from 0 again."""
        return {name: part.renew_actor(actor[name]) for name, part in self.parts.items()}

    def actor_snapshot(self, actor: Actor) -> dict[str, Any]:
        """Return the actor as arrays and plain data."""
        return {name: part.actor_snapshot(actor[name]) for name, part in self.parts.items()}

    def restore_actor(self, snapshot: dict[str, Any]) -> Actor:
        """Return the actor that `snapshot` was taken of."""
        return {name: part.restore_actor(snapshot[name]) for name, part in self.parts.items()}

    # -- learning ------------------------------------------------------------------------------------------------------

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies: each group's rows with its algorithm."""
        for name, group in self.groups.items():
            rows = group.read(name, transition, central=self.central)
            self.parts[name].record(rows._replace(actions=group.rows(transition.actions), infos={}))

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        for name, group in self.groups.items():
            states = group.states(next_states) if self.central else None
            self.parts[name].interrupt(group.observations(next_observations), states)

    def discard(self) -> None:
        """Drop what was recorded since the last update."""
        for part in self.parts.values():
            part.discard()

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn in every group; return metrics, means over groups, and of several groups each one's."""
        return self._report({name: part.update(progress) for name, part in self.parts.items()})

    def _report(self, by_group: dict[str, dict[str, float]]) -> dict[str, float]:
        tags = dict.fromkeys(tag for metrics in by_group.values() for tag in metrics)
        means = {tag: float(np.mean([metrics[tag] for metrics in by_group.values() if tag in metrics])) for tag in tags}
        if len(by_group) == 1:
            return means
        return means | {f"groups/{name}/{tag}": value for name, metrics in by_group.items() for tag, value in metrics.items()}

    # -- in the fused loop ---------------------------------------------------------------------------------------------

    @property
    def why_not_lent(self) -> str:
        """What keeps a fused loop from having the team; nothing if nothing does."""
        return next((why for part in self.parts.values() if (why := part.why_not_lent)), "")

    def lend(self, actor: Actor, observations: Arrays, states: Arrays) -> tuple[Any, Any, Any, Any]:
        """Return (state, memory or None, key, what the actor carries), each by group; see the groups' own `lend`."""
        each = {
            name: self.parts[name].lend(
                actor[name], group.observations(observations), group.states(states) if self.central else None
            )
            for name, group in self.groups.items()
        }
        state, memory, key, carry = ({name: own[i] for name, own in each.items()} for i in range(4))
        return state, None if any(own is None for own in memory.values()) else memory, key, carry

    def take_back(self, actor: Actor, state: Any, memory: Any, key: Any, carry: Any, timestep: int) -> Actor:
        """Go on from what a fused loop gives back at `timestep`; return the actor."""
        return {
            name: part.take_back(actor[name], state[name], memory[name], key[name], carry[name], timestep)
            for name, part in self.parts.items()
        }

    def note_learned(self, metrics: Any, present: Any, finite: Any, k: int) -> dict[str, float]:
        """Return the metrics of the fused loop's update number `k` of a chunk."""
        return self._report(
            {name: part.note_learned(metrics[name], present[name], finite[name], k) for name, part in self.parts.items()}
        )

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every learned number is finite."""
        return all(part.is_finite() for part in self.parts.values())

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data, by group."""
        snapshots = {name: part.snapshot() for name, part in self.parts.items()}
        return {key: {"groups": {name: each[key] for name, each in snapshots.items()}} for key in ("policy", "training")}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that.

        Raises ValueError if it is of other groups.
        """
        saved = list(snapshot["policy"]["groups"])
        if saved != list(self.parts):
            raise ValueError(f"its groups are {', '.join(saved)}; here they are {', '.join(self.parts)}")
        for name, part in self.parts.items():
            part.restore({key: tree["groups"][name] for key, tree in snapshot.items()})

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update: of all groups."""
        each = [part.describe() for part in self.parts.values()]
        return {key: sum(about[key] for about in each) for key in each[0]}


def _merge(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return settings with others put in, section by section."""
    merged = dict(settings)
    for name, value in others.items():
        inside = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if inside else value
    return merged
