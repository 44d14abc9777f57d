"""What wrappers of the training environment have gathered goes to whoever plays by it: evaluations, checkpoints, new runs.

An agent's policy holds it, pooled over the agent's copies, as `agent.environment`. An evaluation plays with it frozen; a training
environment that goes on from it without its exact state has each copy begin with its share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rltrain.structures import Arrays

if TYPE_CHECKING:
    from rltrain.envs.base import EnvWrapper
    from rltrain.trainers.base import Trainer


def refresh(trainer: "Trainer") -> None:
    """Bring what the copies have gathered to their agents, where the training environment knows better than they."""
    own = trainer.env is trainer.evaluation_env or trainer.env_is_elsewhere()
    agents = [agent for agent in trainer.agents if not getattr(agent, "environment_given", True)]
    if own or trainer.timestep == 0 or not agents:
        return
    states = trainer.env.policy_states(trainer.scopes)
    for agent, state in zip(trainer.agents, states, strict=True):
        if state and agent in agents:
            agent.environment = state


def hand_out(trainer: "Trainer") -> None:
    """Let the training copies go on from what came with restored policies."""
    states = [agent.environment if getattr(agent, "environment_given", False) else None for agent in trainer.agents]
    if any(states):
        trainer.env.put_policy_states(states, trainer.scopes, frozen=False)
    keep_own(trainer)


def keep_own(trainer: "Trainer") -> None:
    """Let the training copies keep what they have: with their exact state."""
    for agent in trainer.agents:
        if hasattr(agent, "environment_given"):
            agent.environment_given = False


def begin_episodes(trainer: "Trainer") -> Arrays:
    """Start an episode in every training copy, with training's own statistics."""
    give_back(trainer)
    hand_out(trainer)
    return trainer.env.reset()


def lend(trainer: "Trainer", env: "EnvWrapper") -> None:
    """Give the environment of an evaluation what its agents act by, frozen."""
    give_back(trainer)
    refresh(trainer)
    states = [getattr(agent, "environment", None) for agent in trainer.agents]
    if any(states):
        trainer._lent = env.keep_policy_states() if trainer.evaluation_env is None else None
        env.put_policy_states(states, trainer.scopes, frozen=True)


def give_back(trainer: "Trainer") -> None:
    """Give a training environment that an evaluation borrowed its own state back."""
    kept, trainer._lent = trainer._lent, None
    if kept is not None:
        trainer.env.give_policy_states_back(kept)


@contextmanager
def at_home(trainer: "Trainer") -> Iterator[None]:
    """Have the training environment hold its own state meanwhile, also where an evaluation by steps has borrowed it."""
    if trainer._lent is None:
        yield
        return
    frozen: Any = trainer.env.keep_policy_states()
    give_back(trainer)
    try:
        yield
    finally:
        trainer._lent = trainer.env.keep_policy_states()
        trainer.env.give_policy_states_back(frozen)
