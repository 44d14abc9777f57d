"""`init_from=CHECKPOINT`: a new run begins with weights that are there; all of them, or those whose names and shapes fit."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rltrain import checkpoints
from rltrain.agents.base import Agent
from rltrain.commands.reading import Held, check_finite, hold_each, hold_found, load_policies
from rltrain.errors import CheckpointError

KEY, LINES = "init_from", 12
REMEDY = "; init_from_partial=true takes what fits"
PARAMETERS = "parameters"
VALUES = ("value", "shared")  # networks whose outputs mean what `value_moments` say


def begin_from(name: str, agents: Sequence[Agent], *, partial: bool) -> list[str]:
    """Give the agents the weights of a checkpoint; return what to say of it.

    Raises CheckpointError if they don't fit: any of them or, if `partial`, all.
    """
    first = hold_found(name, key=KEY)
    names = [agent.name for agent in agents]
    if not partial:
        load_policies(agents, hold_each(name, names, first), REMEDY)
        return []
    lines: list[str] = []
    for agent in agents:
        held, source = _find_policy(name, agent, first)
        check_finite(held.path, source, held.policies[source])
        there = checkpoints.learned(held.policies[source])
        merged, taken, left = merge(agent.algorithm.snapshot()["policy"], there)
        if not any(PARAMETERS in path.split("/") for path in taken):
            raise CheckpointError(f"{held.path}: nothing of agent {source!r} fits agents.{agent.name}: {left[0]}")
        agent.restore({"policy": merged})
        lines += _describe(agent.name, held.path, source, taken, left)
    return lines


def _find_policy(name: str, agent: Agent, first: Held) -> tuple[Held, str]:
    """Return what is held of a checkpoint, and the name there of the agent to take from: the same, or the only one."""
    there = list(first.policies)
    source = agent.name if agent.name in there else there[0] if len(there) == 1 else None
    if source is None:
        raise CheckpointError(f"{first.path}: has no agent {agent.name!r} to take from; it has {', '.join(there)}")
    return hold_each(name, [source], first, key=KEY)[source], source


def merge(here: Mapping[str, Any], there: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return a policy with what fits of another one put in, the paths of what was taken, and of what wasn't with the reason.

    Parameters go by name and shape; the moments of observations and states all or none; those of values only with all of the
    network that predicts them.
    """
    merged = copy.deepcopy(dict(here))
    taken: list[str] = []
    left: list[str] = []
    for path, own, other in _sections(merged, there, ""):
        wrong = _misfits(own, other)
        name = path.rpartition("/")[2]
        if name == "value_moments" and any(
            f"{path.removesuffix(name)}{PARAMETERS}/{net}" in line for line in left for net in VALUES
        ):
            wrong = {"": "belongs to values that were not taken"}
        if name != PARAMETERS:
            if wrong:
                left.append(f"{path}: {next(iter(wrong.values()))}")
            else:
                own.update({key: np.array(other[key]) for key in own})
                taken.append(path)
            continue
        for key in own:
            if key in wrong:
                left.append(f"{path}/{key}: {wrong[key]}")
            else:
                own[key] = np.array(other[key])
                taken.append(f"{path}/{key}")
    return merged, taken, left


def _sections(here: Any, there: Any, path: str) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
    """Yield path and both sides of every innermost dict of arrays, parameters first."""
    there = there if isinstance(there, Mapping) else {}
    if here and not any(isinstance(value, Mapping) for value in here.values()):
        yield path, here, there
        return
    for key in sorted(here, key=lambda key: key != PARAMETERS):
        if isinstance(here[key], Mapping):
            yield from _sections(here[key], there.get(key, {}), f"{path}/{key}" if path else key)


def _misfits(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, str]:
    """Return why arrays of `here` can't be taken from `there`, by name."""
    wrong = {}
    for name, array in here.items():
        if name not in there:
            wrong[name] = "not there"
        elif np.shape(there[name]) != np.shape(array):
            wrong[name] = f"{np.shape(there[name])} there, {np.shape(array)} here"
    return wrong


def _describe(agent: str, path: Path, source: str, taken: Sequence[str], left: Sequence[str]) -> list[str]:
    """Say what was taken and what not, in a few lines."""

    def listed(what: str, items: Sequence[str], most: int) -> list[str]:
        lines = [f"  {what} {item.replace(f'{PARAMETERS}/', '')}" for item in items[:most]]
        return [*lines, f"  and {len(items) - most} more {what}"] if len(items) > most else lines

    head = f"init_from: agents.{agent} takes {len(taken)} parameters and moments of {source} in {path}; {len(left)} don't fit"
    return [head, *listed("taken", taken, LINES // 2), *listed("not taken", left, LINES // 2)]
