"""A team of named agents as one algorithm: each group of members that shares parameters is an algorithm for one agent.

What belongs to M members of a group comes in dicts by name, (N, ...) each, and goes on as M x N rows, member by member, so that a
group acts in one forward pass and learns from one batch. The algorithm of a group doesn't know that its rows are of several
members, but by a one-hot that the members are given where they share.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from rltrain import spaces
from rltrain.agents.base import Actor, Algorithm, Made
from rltrain.agents.multi_agent.config import TeamConfig, form_groups
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.seeding import AGENT_ACTOR, seed64
from rltrain.structures import Array, Arrays, Progress, Transition, UpdateSchedule

STRIDE = 2**16  # between the streams of groups: there can't be more agents
MEMBER, OWN = "member", "own"


@dataclass
class Group:
    """Members that share parameters, and how their arrays become rows."""

    members: tuple[str, ...]
    paths: list[str]  # of the leaves of one member's observation; [""] for an array
    _numbers: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def shares(self) -> bool:
        """Whether there are several members, so that rows say whose they are."""
        return len(self.members) > 1

    def space(self, space: Any) -> Any:
        """Return the space of rows for one member's space, or the team's states."""
        from gymnasium.spaces import Dict, Discrete

        return Dict({OWN: space, MEMBER: Discrete(len(self.members))}) if self.shares else space

    def observations(self, arrays: dict[str, Array]) -> Arrays:
        """Return the observations of all members as rows."""
        found = {
            path: self.rows({name: arrays[f"{name}/{path}" if path else name] for name in self.members}) for path in self.paths
        }
        return self._label(found.get("", found))

    def states(self, states: Arrays) -> Arrays:
        """Return the states, which are those of every member, as rows."""
        return self._label(spaces.map_arrays(lambda array: join([array] * len(self.members)), states))

    def rows(self, by_member: dict[str, Array]) -> Array:
        """Return what belongs to each member (N, ...) as rows (M x N, ...)."""
        return join([by_member[name] for name in self.members])

    def split(self, rows: Array) -> dict[str, Array]:
        """Return rows (M x N, ...) by member."""
        copies = len(rows) // len(self.members)
        return {name: rows[i * copies : (i + 1) * copies] for i, name in enumerate(self.members)}

    def _label(self, rows: Arrays) -> Arrays:
        if not self.shares:
            return rows
        found = spaces.named(rows, OWN)
        count = len(next(iter(found.values())))
        if count not in self._numbers:
            self._numbers[count] = np.repeat(np.arange(len(self.members)), count // len(self.members))
        return {**found, MEMBER: self._numbers[count]}


class MultiAgent(Made):
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
        self.schedule = UpdateSchedule(every=self.cfg.rollout_length)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        own, actions = (dict(getattr(space, "spaces", {})) for space in (observation_space, action_space))
        if not actions or own.keys() != actions.keys():
            raise ConfigError(
                self.key, type(self).__name__,
                "plays environments with named agents, such as env=pettingzoo; this one has one agent: use ppo",
            )  # fmt: skip
        self.members = tuple(actions)
        self.central = self.cfg.use_states
        if self.central and state_space is None:
            raise ConfigError(f"{self.key}.use_states", True, "the environment gives no states; use ippo, or env.state=auto")
        self.groups: dict[str, Group] = {}
        self.parts: dict[str, Algorithm] = {}
        for number, (name, members) in enumerate(form_groups(self.cfg, own, actions, self.key).items()):
            one = members[0]
            group = self.groups[name] = Group(members, list(spaces.leaves(own[one])))
            part = self.part(
                group.space(own[one]), actions[one], state_space=group.space(state_space) if self.central else None,
                num_envs=num_envs * len(members), cfg=self._settings(name), seed=seed, index=index + STRIDE * number,
                backend=backend, key=self.key if name not in self.cfg.overrides else f"{self.key}.overrides.{name}",
            )  # fmt: skip
            backend = part.backend
            self.parts[name] = backend.own(part)
        self.backend = backend

    def _settings(self, group: str) -> dict[str, Any]:
        """Return the settings of one group's algorithm."""
        team = {f.name for f in fields(TeamConfig)}
        return _merge({k: v for k, v in asdict(self.cfg).items() if k not in team}, self.cfg.overrides.get(group, {}))

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return what the groups' acting carries."""
        return {
            name: self.parts[name].init_actor(num_envs * len(group.members), seed if not i else seed64(seed, AGENT_ACTOR, i))
            for i, (name, group) in enumerate(self.groups.items())
        }

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

    def reset_actor(self, actor: Actor, done: Array) -> Actor:
        """Forget what belongs to episodes that ended; `done` is (N,) bool, of copies."""
        return {
            name: self.parts[name].reset_actor(actor[name], join([done] * len(group.members)))
            for name, group in self.groups.items()
        }

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
            outputs = {key: transition.outputs[f"{name}/{key}"] for key in self._outputs(name, transition.outputs)}
            self.parts[name].record(
                Transition(
                    observations=group.observations(transition.observations),
                    states=group.states(transition.states) if self.central else None,
                    actions=group.rows(transition.actions),
                    next_observations=group.observations(transition.next_observations),
                    next_states=group.states(transition.next_states) if self.central else None,
                    rewards=group.rows(transition.rewards),
                    terminated=group.rows(transition.terminated),
                    truncated=group.rows(transition.truncated),
                    valid=None if transition.valid is None else group.rows(transition.valid),
                    infos={},
                    outputs=outputs,
                )
            )

    def _outputs(self, group: str, outputs: dict[str, Array]) -> list[str]:
        return [key.removeprefix(f"{group}/") for key in outputs if key.startswith(f"{group}/")]

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
        found = {name: part.update(progress) for name, part in self.parts.items()}
        tags = dict.fromkeys(tag for metrics in found.values() for tag in metrics)
        means = {tag: float(np.mean([metrics[tag] for metrics in found.values() if tag in metrics])) for tag in tags}
        if len(found) == 1:
            return means
        return means | {f"groups/{name}/{tag}": value for name, metrics in found.items() for tag, value in metrics.items()}

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every learned number is finite."""
        return all(part.is_finite() for part in self.parts.values())

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data, by group."""
        found = {name: part.snapshot() for name, part in self.parts.items()}
        return {key: {"groups": {name: each[key] for name, each in found.items()}} for key in ("policy", "training")}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that.

        Raises ValueError if it is of other groups.
        """
        there = list(snapshot["policy"]["groups"])
        if there != list(self.parts):
            raise ValueError(f"its groups are {', '.join(there)}; here they are {', '.join(self.parts)}")
        for name, part in self.parts.items():
            part.restore({key: tree["groups"][name] for key, tree in snapshot.items()})

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update: of all groups."""
        each = [part.describe() for part in self.parts.values()]
        return {key: sum(about[key] for about in each) for key in each[0]}


def join(arrays: list[Array]) -> Array:
    """Return arrays one after the other: NumPy's, or those of a device."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if isinstance(arrays[0], np.ndarray) else arrays[0].__array_namespace__().concat(arrays)


def _merge(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return settings with others put in, section by section."""
    found = dict(settings)
    for name, value in others.items():
        inside = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merge(found[name], value) if inside else value
    return found
