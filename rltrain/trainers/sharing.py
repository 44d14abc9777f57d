"""Memories that several off-policy agents share: each records its own copies, all draw from what all recorded."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rltrain.agents.base import Agent
from rltrain.errors import ConfigError, nearest, shown

SETTINGS = ("memory_size", "memory_mapped", "memory_directory")  # of a memory, which its owner decides


def share_memories(agents: Sequence[Agent]) -> None:
    """Give each agent whose `memory_of` names another that one's memory.

    Raises ConfigError if that one isn't there, learns from something else, or has none of its own.
    """
    for owner, *borrowers in groups(agents):
        for agent in borrowers:
            _adopt_settings(agent, owner)
            _check_rewards(agent, owner)
            _check_sequences(agent, owner)
        owner.algorithm.memory.share([agent.algorithm.memory for agent in borrowers])


def groups(agents: Sequence[Agent]) -> list[list[Agent]]:
    """Return the agents that share a memory, the one whose it is first; none for those that have their own."""
    found: dict[str, list[Agent]] = {}
    for place, agent in enumerate(agents):
        name = memory_of(agent)
        if name is not None:
            found.setdefault(name, [_find_owner(agents, place, name)]).append(agent)
    return list(found.values())


def shares_memory(agent: Agent) -> bool:
    """Tell whether the agent's memory is another's too."""
    return bool(getattr(getattr(agent.algorithm, "memory", None), "is_shared", False))


def memory_of(agent: Agent) -> str | None:
    """Return the name of the agent whose memory this one shares, or None; one that names itself has its own."""
    name = getattr(settings(agent), "memory_of", None)
    return None if name == agent.name else name


def settings(agent: Agent) -> Any:
    """Return the algorithm's settings, or None."""
    return getattr(getattr(agent.algorithm, "pure", agent.algorithm), "cfg", None)


def _find_owner(agents: Sequence[Agent], place: int, name: str) -> Agent:
    agent, key = agents[place], f"agents.{agents[place].name}.memory_of"
    others = {other.name: other for other in agents if other is not agent}
    if name not in others:
        there = nearest(name, others) if others else "there is one agent; leave it out"
        raise ConfigError(key, name, f"no other agent of that name; {there}")
    owner = others[name]
    if owner not in agents[:place] and hasattr(settings(owner), "memory_of"):
        raise ConfigError(key, name, f"{name} is listed after {agent.name}; give agents.{name}.memory_of={agent.name}")
    if memory_of(owner) is not None:
        raise ConfigError(key, name, f"{name} shares the memory of {memory_of(owner)}; name that one")
    memory, theirs = getattr(agent.algorithm, "memory", None), getattr(owner.algorithm, "memory", None)
    if not hasattr(theirs, "share") or type(theirs) is not type(memory):
        why = "no memory that can be shared" if agent.backend.name == owner.backend.name else "another backend"
        raise ConfigError(key, name, f"{name} ({owner.kind}) has {why}; name an off-policy agent, such as dqn or sac")
    return owner


def _check_rewards(agent: Agent, owner: Agent) -> None:
    """Raise ConfigError if two agents would store rewards of two kinds, or one by `infos`, which don't travel to the other."""
    own, theirs = (getattr(one, "reward_function", None) for one in (agent, owner))
    key, name = f"agents.{agent.name}.reward_function", getattr(own, "name", None)
    if getattr(own, "given", None) != getattr(theirs, "given", None):
        what = f"{owner.name}, whose memory it shares, has {shown(getattr(theirs, 'name', None))}"
        raise ConfigError(key, name, f"{what}; a memory holds rewards of one kind: give both the same, or leave memory_of out")
    if getattr(own, "reads_infos", False):
        raise ConfigError(key, name, "takes infos, which agents that share a memory don't exchange; leave out infos or memory_of")


def _check_sequences(agent: Agent, owner: Agent) -> None:
    """Raise ConfigError if one would draw sequences and another single transitions, or a state that another one remembered."""
    own, theirs = settings(agent), settings(owner)
    if bool(own.window) != bool(theirs.window):
        what = f"{owner.name}, whose memory it shares, has {theirs.network.cell}"
        key = f"agents.{agent.name}.network.cell"
        raise ConfigError(key, own.network.cell, f"{what}; give both a cell, or neither, or leave memory_of out")
    for one, cfg in ((owner, theirs), (agent, own)):
        if cfg.window and cfg.stored_state:
            reason = "another agent draws from that memory too, whose network remembers something else; set it to false for both"
            raise ConfigError(f"agents.{one.name}.stored_state", True, reason)


def _adopt_settings(agent: Agent, owner: Agent) -> None:
    """Let the owner's settings of the memory be the agent's.

    Raises ConfigError for one that was given and is another.
    """
    own, theirs = settings(agent), settings(owner)
    defaults = {field.name: field.default for field in fields(own)}
    for name in SETTINGS:
        value, wanted = getattr(own, name), getattr(theirs, name)
        if value not in (defaults[name], wanted):
            key, remedy = f"agents.{agent.name}.{name}", f"set agents.{owner.name}.{name}"
            raise ConfigError(key, value, f"has no effect, the memory is that of {owner.name}; {remedy}")
        setattr(own, name, wanted)
