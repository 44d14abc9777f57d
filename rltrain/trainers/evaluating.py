"""How a trainer evaluates its agents: which copies and episodes count, and which agents were never better."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rltrain.errors import ConfigError
from rltrain.evaluation import EpisodeCounter, TeamCounter, episode_quota
from rltrain.seeding import EVALUATION_ACTOR, EVALUATION_ENVIRONMENTS, seed32, seed64
from rltrain.structures import Step
from rltrain.trainers.bookkeeping import Best
from rltrain.trainers.scopes import cut

if TYPE_CHECKING:
    from rltrain.envs.base import EnvWrapper
    from rltrain.trainers.base import Trainer

Counter = EpisodeCounter | TeamCounter


def evaluate(trainer: "Trainer", episodes: int | None) -> dict[str, dict[str, Any]]:
    """Play `episodes` per agent, or as many turns as the trainer trains; return {name: {"returns", "lengths", "successes"}}.

    A signal cuts it short.
    """
    if episodes is None and not trainer.timesteps:
        raise ConfigError("episodes", None, "say how long to evaluate: a number of episodes, or trainer.timesteps")
    counters = begin(trainer, episodes)
    turn = 0
    while turn < trainer.timesteps if episodes is None else not all(counter.is_full for counter in counters):
        make_turn(trainer, counters, turn)
        turn += 1
        if trainer.run.stop_signal is not None:
            break
    trainer.last_evaluation = results(trainer, counters)
    return trainer.last_evaluation


def begin(trainer: "Trainer", episodes: int | None) -> list[Counter]:
    """Begin an evaluation of `episodes` per agent, null: of all that are played; return what counts them, one per agent."""
    env, seeds = _find_env(trainer)
    counters = []
    for index, (agent, scope) in enumerate(zip(trainer.agents, trainer.scopes, strict=True), trainer.first_agent):
        copies = scope.stop - scope.start
        seed = 0 if env.seeds is None else env.seeds[scope.start]
        agent.begin_evaluation(copies, seed64(seed, EVALUATION_ACTOR, index))
        quota = np.full(copies, np.iinfo(np.int64).max) if episodes is None else episode_quota(episodes, copies)
        counters.append(TeamCounter(quota, agent.members) if agent.members else EpisodeCounter(quota))
    trainer._playing = (env, env.reset(seed=seeds))
    return counters


def make_turn(trainer: "Trainer", counters: list[Counter], turn: int) -> Step:
    """Make one timestep of an evaluation."""
    step = trainer._interact(turn, learn=False)
    for counter, scope in zip(counters, trainer.scopes, strict=True):
        counter.record(cut(step, scope, trainer.scopes[-1].stop) if len(counters) > 1 else step)
    return step


def results(trainer: "Trainer", counters: list[Counter]) -> dict[str, dict[str, Any]]:
    """Return what has been counted, by agent."""
    return {agent.name: counter.results() for agent, counter in zip(trainer.agents, counters, strict=True)}


def _find_env(trainer: "Trainer") -> tuple["EnvWrapper", list[int] | None]:
    """Return the environment to evaluate on and the seeds to begin with."""
    if trainer.evaluation_env is not None:
        return trainer.evaluation_env, trainer.evaluation_env.seeds
    env = trainer.env
    trainer._say_once("evaluation resets the training environment: no evaluation_env was given")
    if trainer.observations is not None:
        trainer._for_each_agent("interrupt", trainer.observations, env.state())
    trainer.observations = None  # training starts new episodes afterwards
    # a borrowed training environment plays starts of the evaluation's role, so that training doesn't see its own again
    return env, None if env.seeds is None else [seed32(seed, EVALUATION_ENVIRONMENTS) for seed in env.seeds]


def evaluate_for_best(trainer: "Trainer") -> list[str] | None:
    """Evaluate as often as training asks for it; return the agents that were never better, or None if a signal cut it short."""
    trainer.clock.stop()
    results = trainer.find_eval()(trainer.run.evaluation.episodes)
    trainer.clock.start()
    return None if trainer.run.stop_signal is not None else note_best(trainer.best, results, trainer.timestep)


def note_best(best: dict[str, Best], results: dict[str, dict[str, Any]], timestep: int) -> list[str]:
    """Put the agents that were never better into `best`; return their names."""
    scores = {name: float(np.mean(result["returns"])) for name, result in results.items()}
    improved = [name for name, score in scores.items() if name not in best or score > best[name].score]
    best |= {name: Best(scores[name], timestep) for name in improved}
    return improved
