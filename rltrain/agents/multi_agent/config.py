"""Settings of a team, and which of its members share what they learn."""

import re
from dataclasses import dataclass
from typing import Any

from rltrain.checks import option
from rltrain.errors import ConfigError, nearest


@dataclass
class TeamConfig:
    """Who in a team shares parameters, and who has settings of its own."""

    parameter_sharing: str = option(
        "groups",
        "which members have one policy and one critic in common: none, all, or those of a group; where they share, a "
        "one-hot of the member is added to what the networks read",
        choices=["none", "all", "groups"],
        fixed=True,
    )
    groups: dict[str, Any] = option(
        {},
        "of parameter_sharing=groups: lists of members by group; empty: members whose names differ in a last number only and "
        "whose spaces are the same",
        fixed=True,
    )
    overrides: dict[str, Any] = option({}, "settings by name of a group, or of a member that shares with none", fixed=True)

    def check_team(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        if self.groups and self.parameter_sharing != "groups":
            raise ConfigError(
                f"{key}.groups",
                list(self.groups),
                f"has no effect with {key}.parameter_sharing={self.parameter_sharing}; use groups",
            )
        for name, members in self.groups.items():
            if not isinstance(members, list) or not members or not all(isinstance(member, str) for member in members):
                raise ConfigError(f"{key}.groups.{name}", members, "must be a list of members' names, not empty")
        for name, settings in self.overrides.items():
            if not isinstance(settings, dict):
                raise ConfigError(f"{key}.overrides.{name}", settings, "must be a mapping of settings")
            for fixed in ("rollout_length", "use_states", "parameter_sharing", "groups", "overrides"):
                if fixed in settings:
                    raise ConfigError(
                        f"{key}.overrides.{name}.{fixed}", settings[fixed], f"is the same for a whole team; set {key}.{fixed}"
                    )


def form_groups(cfg: TeamConfig, observations: dict[str, Any], actions: dict[str, Any], key: str) -> dict[str, tuple[str, ...]]:
    """Return the members of each group that shares parameters, given the spaces by member.

    Raises ConfigError if members of a group differ in their spaces, or `cfg.groups` doesn't name each member once.
    """
    members = list(actions)
    if cfg.parameter_sharing == "none":
        groups = {name: [name] for name in members}
    elif cfg.parameter_sharing == "all":
        groups = {"all": members}
    else:
        groups = cfg.groups or _alike(members, observations, actions)
    named = [name for group in groups.values() for name in group]
    for name in named:
        if name not in members or named.count(name) > 1:
            wrong = "stands in more than one place" if name in members else f"is no member; {nearest(name, members)}"
            raise ConfigError(f"{key}.groups", name, wrong)
    missing = [name for name in members if name not in named]
    if missing:
        raise ConfigError(f"{key}.groups", list(groups), f"{', '.join(missing)} stands in none; each member needs a group")
    for group in groups.values():
        for name in group[1:]:
            if (observations[name], actions[name]) != (observations[group[0]], actions[group[0]]):
                raise ConfigError(
                    f"{key}.parameter_sharing",
                    cfg.parameter_sharing,
                    f"{group[0]} and {name} differ in their spaces and can't share networks; use none, or groups of those alike",
                )
    for name in cfg.overrides:
        if name not in groups:
            raise ConfigError(
                f"{key}.overrides", name, f"is neither a group nor a member that shares with none; {nearest(name, groups)}"
            )
    return {name: tuple(group) for name, group in groups.items()}


def _alike(members: list[str], observations: dict[str, Any], actions: dict[str, Any]) -> dict[str, list[str]]:
    """Return groups of members that are alike: `adversary_0, adversary_1, agent_0` are `adversary` and `agent`."""
    groups: dict[str, list[str]] = {}
    for name in members:
        stem = re.sub(r"[_-]?\d+$", "", name) or name
        first = groups.get(stem, [name])[0]
        if (observations[name], actions[name]) != (observations[first], actions[first]):
            stem = name
        groups.setdefault(stem, []).append(name)
    return groups
