"""What a checkpoint holds of a trainer, and how a trainer goes on from one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from rltrain.agents.base import Agent
from rltrain.confidential import left_out
from rltrain.errors import CheckpointError
from rltrain.generators import kept
from rltrain.seeding import RESUMED_ENVIRONMENTS, seed32
from rltrain.spaces import map_arrays
from rltrain.trainers import lending
from rltrain.trainers.bookkeeping import Best

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer


def manifest(agents: Sequence[Agent], *, exact: bool) -> dict[str, Any]:
    """Return what a checkpoint's manifest says of the agents; `exact`: going on from it is equal to never having stopped."""
    return {
        "env_steps": sum(agent.statistics.env_steps for agent in agents),
        "agents": {agent.name: agent.kind for agent in agents},
        "exact_resume": exact,
    }


def take_snapshot(trainer: "Trainer", *, with_environment: bool) -> tuple[dict[str, Any], bool]:
    """Return everything as parts by name, and whether going on from them is exact."""
    env, comes_back = take_environment(trainer) if with_environment else (None, False)
    states, drawn = trainer.env.state(), trainer.generators.snapshot()
    parts: dict[str, Any] = {
        "trainer": {
            "timestep": trainer.timestep,
            "horizon": trainer.horizon,
            "observations": None if trainer.observations is None else map_arrays(np.asarray, trainer.observations),
            "states": None if states is None else map_arrays(np.asarray, states),
            "env": env,
            "scopes": [scope.stop - scope.start for scope in trainer.scopes],
            "training_seconds": trainer.clock.read(),
            "best": {name: asdict(best) for name, best in trainer.best.items()},
            "pending": trainer._pending,
            "planned_at": trainer._planned_at if trainer._pending else None,
            **({} if drawn is None else {"generators": drawn}),
        }
    }
    for agent in trainer.agents:
        snapshot = agent.snapshot()
        parts[f"agents/{agent.name}/policy"] = snapshot["policy"]
        parts[f"agents/{agent.name}/training"] = snapshot["training"]
    held = left_out(env)
    if held:
        what = f"checkpoints leave out {', '.join(held)} of the environment, which holds text that a resolver gave"
        trainer._say_once(f"{what} (exact_resume is false)")
    return parts, comes_back and not held and not any(lacks_memory(parts, agent.name) for agent in trainer.agents)


def take_environment(trainer: "Trainer") -> tuple[dict[str, Any] | None, bool]:
    """Return the environment's snapshot and whether going on from it is exact; say once if it draws from a process's generators.

    Those of this process are left as they are, whatever a snapshot does to find out whether it is exact.
    """
    watch, env = trainer.generators, trainer.env
    here = watch.look()
    if watch.owned and here:
        env.draws_from = tuple(here)
    with kept(), lending.at_home(trainer):
        snapshot = env.snapshot()
        lending.refresh(trainer)
    comes_back = snapshot is not None and (watch.owned or not here)
    names = sorted({*here, *env.draws_from})
    if names:
        what = f"{', '.join(names)}: {env.name} (or an agent or callback) draws from generators that its whole process shares"
        kept_too = "checkpoints keep their states" if comes_back else "exact_resume is false"
        trainer._say_once(f"{what}; {kept_too}; self.np_random, which reset(seed=...) seeds, is an environment's own")
    return snapshot, comes_back


def put_generators(trainer: "Trainer", kept: Mapping[str, Any]) -> None:
    """Restore the process's generators where they are ours and of the same kind of process."""
    states = kept.get("generators")
    fits = trainer.generators.owned and isinstance(states, list) == trainer.runs_in_workers()
    trainer.generators.restore(states if fits else None)
    if states and not fits:
        trainer._say_once(
            "the environment draws from its process's own generators, whose states can't go on in these processes: "
            "this resume isn't exact"
        )


def lacks_memory(parts: Mapping[str, Any], agent: str) -> bool:
    """Tell whether the agent of that name learns from a memory that these parts don't hold."""
    algorithm = parts[f"agents/{agent}/training"]["algorithm"]
    return isinstance(algorithm, Mapping) and algorithm.get("memory", True) is None


def put_snapshot(trainer: "Trainer", parts: Mapping[str, Any]) -> None:
    """Put agents, environment and what the trainer keeps back from the parts of `take_snapshot`."""
    lending.give_back(trainer)
    put_agents(trainer, parts)
    for agent in trainer.agents:
        if lacks_memory(parts, agent.name):
            trainer._say_once(
                f"agents.{agent.name}: the checkpoint has no memory, which fills anew before learning goes on (exact_resume is "
                "false); checkpoints.memory=true keeps it"
            )
    put_progress(trainer, parts["trainer"])
    put_environment(trainer, parts["trainer"])
    put_generators(trainer, parts["trainer"])


def put_agents(trainer: "Trainer", parts: Mapping[str, Any]) -> None:
    """Restore every agent.

    Raises CheckpointError if the parts are of other agents or scopes.
    """
    there, scopes = list(parts["trainer"]["scopes"]), [scope.stop - scope.start for scope in trainer.scopes]
    if there != scopes:
        raise CheckpointError(f"agents_scope: the checkpoint was written with {there} copies per agent, not {scopes}")
    there = list(dict.fromkeys(part.split("/")[1] for part in parts if part.startswith("agents/")))
    if there != [agent.name for agent in trainer.agents]:
        names = ", ".join(agent.name for agent in trainer.agents)
        raise CheckpointError(f"agents: the checkpoint is of {', '.join(there)}, in this order; here are {names}")
    for agent in trainer.agents:
        snapshot = {key: parts[f"agents/{agent.name}/{key}"] for key in ("policy", "training")}
        try:
            agent.restore(snapshot)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"agents.{agent.name}: the checkpoint does not fit this agent: {error}") from error


def put_progress(trainer: "Trainer", kept: Mapping[str, Any]) -> None:
    """Restore what the trainer itself counts and remembers."""
    trainer.timestep = int(kept["timestep"])
    trainer.clock.seconds = float(kept["training_seconds"])
    trainer.best = {name: Best(**best) for name, best in kept["best"].items()}
    trainer._pending, trainer._planned_at = bool(kept["pending"]), kept["planned_at"] or 0


def put_environment(trainer: "Trainer", kept: Mapping[str, Any]) -> None:
    """Restore the environment; one without exact state starts new episodes, said once."""
    if kept["env"] is not None:
        trainer.env.restore(kept["env"])
        lending.keep_own(trainer)
        trainer.observations = None if kept["observations"] is None else trainer.env.reset_done()
        return
    lending.hand_out(trainer)
    seeds = trainer.env.seeds or [0] * trainer.env.num_envs
    trainer.observations = trainer.env.reset([seed32(seed, RESUMED_ENVIRONMENTS, trainer.timestep) for seed in seeds])
    trainer._for_each_agent("interrupt", kept["observations"], kept["states"])
    trainer._say_once("the environment's state can't be saved exactly: new episodes start here (exact_resume is false)")
