"""How a trainer evaluates its agents: which copies and episodes count, where they are cut, and which agents were never better."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rltrain.errors import ConfigError
from rltrain.evaluation import MAX_EPISODE_STEPS, EpisodeCounter, TeamCounter, episode_quota
from rltrain.screen import EvaluationProgress
from rltrain.seeding import EVALUATION_ACTOR, EVALUATION_ENVIRONMENTS, PROCESS_GENERATORS, seed32, seed64
from rltrain.structures import Step, mean
from rltrain.trainers import lending
from rltrain.trainers.bookkeeping import Best
from rltrain.trainers.cutting import CutEpisodes
from rltrain.trainers.filming import Filming, first_episodes
from rltrain.trainers.scopes import cut
from rltrain.video import video_format

if TYPE_CHECKING:
    from rltrain.envs.base import EnvWrapper
    from rltrain.trainers.base import Trainer

Counter = EpisodeCounter | TeamCounter
FIRST_LOOK, LOOK = 3.0, 0.2  # seconds after which a person is shown how an evaluation stands, and how often from then on


def evaluate(trainer: "Trainer", episodes: int | None) -> dict[str, dict[str, Any]]:
    """Play `episodes` per agent, or as many turns as the trainer trains; return {name: {"returns", "lengths", "successes"}}.

    A signal cuts it short.
    """
    if episodes is None and not trainer.timesteps:
        raise ConfigError("episodes", None, "say how long to evaluate: a number of episodes, or trainer.timesteps")
    next_look = time.monotonic() + FIRST_LOOK
    with trainer.generators.evaluating(stream(trainer)), _shown(trainer):
        counters = begin(trainer, episodes)
        turn = 0
        filming = trainer.filming
        while turn < trainer.timesteps if episodes is None else not all(counter.is_full for counter in counters):
            make_turn(trainer, counters, turn)
            trainer._unshared.turn(trainer, turn)
            turn += 1
            if trainer.run.stop_signal is not None or (filming is not None and filming.is_over):
                break
            if episodes is not None and time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK
                trainer.run.show_evaluation(progress(trainer, counters))
        if trainer.run.stop_signal is None:
            trainer._unshared.end(trainer)
        lending.give_back(trainer)
        if filming is not None:
            filming.develop(trainer, counters)
    trainer.last_evaluation = results(trainer, counters)
    return trainer.last_evaluation


@contextmanager
def _shown(trainer: "Trainer") -> Iterator[None]:
    try:
        yield
    finally:
        trainer.run.show_evaluation(None)


def stream(trainer: "Trainer") -> int:
    """Return the seed of what an environment that draws from its process's own generators gets in an evaluation."""
    seeds = (trainer.evaluation_env or trainer.env).seeds
    return seed64(seeds[0] if seeds else 0, PROCESS_GENERATORS, 1)


def begin(trainer: "Trainer", episodes: int | None) -> list[Counter]:
    """Begin an evaluation of `episodes` per agent, null: of all that are played; return what counts them, one per agent."""
    env, seeds = _find_env(trainer)
    lending.lend(trainer, env)
    counters = []
    for index, (agent, scope) in enumerate(zip(trainer.agents, trainer.scopes, strict=True), trainer.first_agent):
        copies = scope.stop - scope.start
        seed = 0 if env.seeds is None else env.seeds[scope.start]
        agent.begin_evaluation(copies, seed64(seed, EVALUATION_ACTOR, index))
        quota = np.full(copies, np.iinfo(np.int64).max) if episodes is None else episode_quota(episodes, copies)
        counters.append(TeamCounter(quota, agent.members) if agent.members else EpisodeCounter(quota))
    watched: Any = env if trainer.filming is None else trainer.filming.around(env)
    playing = _with_limit(watched, trainer.run.evaluation.max_episode_steps)
    trainer._playing = (playing, playing.reset(seed=seeds))
    trainer._unshared.begin(trainer)
    return counters


def _with_limit(env: Any, wanted: int | None) -> Any:
    """Return the environment, with episodes that are cut after `wanted` steps, null: at the default where no limit is known."""
    own = env.episode_limit
    limit = wanted if wanted is not None else MAX_EPISODE_STEPS if own is None else own
    return env if own is not None and own <= limit else CutEpisodes(env, limit)


def make_turn(trainer: "Trainer", counters: list[Counter], turn: int) -> Step:
    """Make one timestep of an evaluation."""
    step, env = trainer._interact(turn, learn=False), trainer._playing[0]
    cut_now = env.cut_now if isinstance(env, CutEpisodes) else None
    for counter, scope in zip(counters, trainer.scopes, strict=True):
        own = (step,) if cut_now is None else (step, cut_now)
        counter.record(*own if len(counters) == 1 else (cut(value, scope, trainer.scopes[-1].stop) for value in own))
    if cut_now is not None and (cut_now.any() or env.unseen.any()):
        _after_a_cut(trainer, env, counters)
    return step


def _after_a_cut(trainer: "Trainer", env: CutEpisodes, counters: list[Counter]) -> None:
    """Say where the default limit was reached; begin anew in all copies where those that were cut can't be reset alone."""
    if trainer.run.evaluation.max_episode_steps is None:
        trainer._say_once(
            f"evaluation: an episode was cut after {env.limit:,} steps, as {env.name} has no time limit that is known; "
            "evaluation.max_episode_steps sets another"
        )
    full = np.concatenate([counter.full for counter in counters])
    if env.unseen.any() and (env.unseen | full).all() and not full.all():
        trainer._playing = (env, env.reset())
        trainer._for_each_agent("end_evaluation_episodes", np.ones(env.num_envs, bool))
        for counter in counters:
            counter.forget_running()


def progress(trainer: "Trainer", counters: list[Counter]) -> EvaluationProgress:
    """Return how an evaluation stands."""
    own = [counter.team if isinstance(counter, TeamCounter) else counter for counter in counters]
    done = sum(len(returns) for counter in own for returns in counter.returns)
    longest = max(int(np.where(counter.full, 0, counter.running_lengths).max()) for counter in own)
    env = trainer._playing[0]
    limit = env.limit if isinstance(env, CutEpisodes) else env.episode_limit
    return EvaluationProgress(done, sum(int(counter.quota.sum()) for counter in own), longest, limit)


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
    with _filmed(trainer):
        results = trainer.find_eval()(trainer.run.evaluation.episodes)
    trainer.clock.start()
    if trainer.run.stop_signal is not None:
        return None
    improved = note_best(trainer.best, results, trainer.timestep)
    trainer.run.say(describe(results, improved, trainer.timestep))
    return improved


@contextmanager
def _filmed(trainer: "Trainer") -> Iterator[None]:
    """Film each agent's first episode, where that is wanted and there is a directory; where it can't be, say so once."""
    run, form = trainer.run, video_format(trainer.run.evaluation.video)
    if form is None or run.directory is None:
        yield
        return
    filming = None
    if not trainer.why_not_filmed:
        filming = Filming(first_episodes(trainer), run.directory / "videos", form)
    trainer.filming = filming
    try:
        yield
    finally:
        trainer.filming = None
        if filming is not None:
            filming.end()
    if filming is not None:
        trainer.why_not_filmed = filming.problem
        for agent, scope in zip(trainer.agents, trainer.scopes, strict=True):
            for video in filming.videos.get(agent.name, []):
                run.write_video(agent.name, trainer.timestep * (scope.stop - scope.start), Path(video["file"]))
    if trainer.why_not_filmed:
        trainer._say_once(f"warning: evaluation.video={form}: no videos are written: {trainer.why_not_filmed}; training goes on")


def describe(results: dict[str, dict[str, Any]], improved: Iterable[str], timestep: int) -> str:
    """Say in a line how each agent did, and who was never better: `evaluation at 2,000: ppo 312.4 (best)`."""
    scores = (f"{name} {mean(result['returns']):.1f}{' (best)' * (name in improved)}" for name, result in results.items())
    return f"evaluation at {timestep:,}: {', '.join(scores)}"


def note_best(best: dict[str, Best], results: dict[str, dict[str, Any]], timestep: int) -> list[str]:
    """Put the agents that were never better into `best`; return their names. What isn't finite is never better."""
    scores = {name: mean(result["returns"]) for name, result in results.items()}
    finite = {name: score for name, score in scores.items() if np.isfinite(score)}
    improved = [name for name, score in finite.items() if name not in best or not score <= best[name].score]
    best |= {name: Best(scores[name], timestep) for name in improved}
    return improved
