"""How agents travel to workers: as what they are made of and a snapshot, never as live modules or compiled programs."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rltrain.agents.base import Agent, Recipe
from rltrain.errors import ConfigError
from rltrain.trainers.sharing import shares_memory


@dataclass
class AgentRecipe:
    """Makes an agent like one that lives in another process."""

    kind: type[Agent]
    name: str
    backend: Any  # sets the threads in the process that unpickles it
    algorithm: Recipe
    snapshot: dict[str, Any]
    keeps_memory: bool
    replica: tuple[Any, int, Any] | None = None  # of a memory that it shares

    @classmethod
    def of(cls, agent: Agent) -> "AgentRecipe":
        """Return the recipe of an agent.

        Raises ConfigError if its algorithm doesn't say how it was made.
        """
        if agent.recipe is None:
            raise ConfigError(
                f"agents.{agent.name}",
                agent.kind,
                "doesn't say how it was made, so no worker can make one alike; derive it from rltrain.agents.base.HasRecipe or "
                "use trainer=sequential",
            )
        keeps_memory, agent.keeps_memory = agent.keeps_memory, True  # it travels, whether checkpoints hold it or not
        snapshot = agent.snapshot()
        agent.keeps_memory = keeps_memory
        return cls(type(agent), agent.name, agent.backend, agent.recipe, snapshot, keeps_memory, _replica(agent))

    def make(self) -> Agent:
        """Return the agent, in the state of the snapshot."""
        kind, args, kwargs = self.algorithm
        agent = self.kind(kind(*args, **kwargs), name=self.name)
        if self.replica is not None:
            agent.algorithm.memory.replicate(*self.replica)
        type(self.backend)(self.backend.cfg)  # again: a backend that the algorithm made for itself has threads of its own
        agent.restore(self.snapshot)
        agent.keeps_memory = self.keeps_memory
        return agent


def _replica(agent: Agent) -> tuple[Any, int, Any] | None:
    """Return what makes a memory like one that agents share, with what is there unless the agent's snapshot holds it."""
    if not shares_memory(agent):
        return None
    memory = agent.algorithm.memory
    return memory.ring.recipe, memory.part, memory.ring.snapshot() if memory.is_borrowed else None


def pickled(job: Any, parts: Mapping[str, tuple[str, Any]]) -> bytes:
    """Return the job as it travels to a worker.

    Raises ConfigError naming which of `parts`, by key each with a name of its own, can't travel.
    """
    try:
        return pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
    except Exception:
        for key, (name, part) in parts.items():
            try:
                pickle.dumps(part)
            except Exception as error:
                what = f"can't be sent to a worker process: {type(error).__name__}: {error}"
                remedy = "use classes and functions at the top of a module, no lambdas or open files, or trainer=sequential"
                raise ConfigError(key, name, f"{what}; {remedy}") from error
        raise
