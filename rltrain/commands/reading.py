"""Reading policies from a checkpoint, also beside the run that wrote it, goes on and prunes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rltrain import assemble, checkpoints
from rltrain.agents.base import Agent
from rltrain.errors import CheckpointError, NonFiniteError
from rltrain.files import MissingFile

T = TypeVar("T")
PATIENCE = 100


@dataclass
class Held:
    """What an evaluation needs of a checkpoint, in memory: nothing is read from it later."""

    path: Path
    manifest: dict[str, Any]
    config: bytes | None
    policies: dict[str, Any]  # by agent


def beside_training(find: Callable[[], Path], read: Callable[[Path], T]) -> T:
    """Return what `read` makes of the checkpoint that `find` finds; where that was pruned meanwhile, of the one after it."""
    same = 0
    for _ in range(PATIENCE):
        path = find()
        try:
            return read(path)
        except MissingFile:
            same = same + 1 if find() == path else 0
            if same > 2:  # it isn't being replaced either
                raise
            time.sleep(0.01)
    return read(find())


def hold(path: Path) -> Held:
    """Verify a checkpoint and read what an evaluation needs of it."""
    agents = checkpoints.read_manifest(path).get("agents", {})
    names = {agent: f"agents/{agent}/policy" for agent in agents}
    manifest = checkpoints.verify(path, besides={f"{name}.safetensors" for name in names.values()})
    config = checkpoints.read_config(path, manifest)
    listed = {agent: name for agent, name in names.items() if f"{name}.safetensors" in manifest["files"]}
    return Held(path, manifest, config, {agent: checkpoints.read_part(path, name, manifest) for agent, name in listed.items()})


def hold_found(name: str, *, agent: str | None = None, key: str = "checkpoint") -> Held:
    """Hold the checkpoint of that name, RUN/best being that of `agent`."""
    return beside_training(lambda: assemble.find_checkpoint(name, agent=agent, key=key), hold)


def hold_each(name: str, agents: list[str], first: Held, *, key: str = "checkpoint") -> dict[str, Held]:
    """Return for each agent the checkpoint to take its policy from: `first`, but each agent's own where RUN/best is asked for."""
    if Path(name).name != "best":
        return dict.fromkeys(agents, first)
    own = {agent: assemble.find_checkpoint(name, agent=agent, key=key) for agent in agents}
    return {agent: first if path == first.path else hold_found(name, agent=agent, key=key) for agent, path in own.items()}


def load_policies(agents: Sequence[Agent], held: Mapping[str, Held], remedy: str = "") -> None:
    """Load the weights of every agent from what is held of a checkpoint under its name; nothing else.

    Raises CheckpointError if a checkpoint is of other agents or other networks, with a `remedy` where there is one.
    """
    for agent in agents:
        path = held[agent.name].path
        check_agents(path, held[agent.name].manifest, [agent], remedy)
        if agent.name not in held[agent.name].policies:
            raise CheckpointError(f"{path}: holds no policy of agent {agent.name!r}")
        policy = held[agent.name].policies[agent.name]
        check_finite(path, agent.name, policy)
        try:
            agent.restore({"policy": policy})
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path}: agents.{agent.name}: written by another architecture: {error}{remedy}") from None


def check_agents(path: Path, manifest: dict[str, Any], agents: Sequence[Agent], remedy: str = "") -> None:
    """Raise CheckpointError if a checkpoint has no such agents, or of other algorithms."""
    there = manifest.get("agents", {})
    for agent in agents:
        name = agent.kind
        if agent.name not in there:
            raise CheckpointError(f"{path}: has no agent {agent.name!r}; it has {', '.join(there)}{remedy}")
        if there[agent.name] != name:
            raise CheckpointError(f"{path}: agent {agent.name!r} was trained by {there[agent.name]}, not by {name}{remedy}")


def check_finite(path: Path, agent: str, policy: Any) -> None:
    """Raise CheckpointError if a policy holds NaN or infinity: right hashes don't say that it is one to act by."""
    try:
        checkpoints.check_finite(f"agents/{agent}/policy", checkpoints.learned(policy))
    except NonFiniteError as error:
        name = str(error).split(": ")[0]
        raise CheckpointError(f"{path}: {name} holds numbers that are not finite: agents.{agent} can't act by them") from None
