"""A worker that owns a slice of the environment and runs the sequential loop over it, free of the others but for `max_drift`."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltrain import generators
from rltrain.checkpoints import CheckpointsConfig
from rltrain.envs.base import EnvWrapper
from rltrain.evaluation import EvaluationConfig
from rltrain.generators import States, Watch
from rltrain.runs import Run
from rltrain.screen import EvaluationProgress
from rltrain.seeding import PROCESS_GENERATORS, RESUMED_ENVIRONMENTS, seed32, seed64
from rltrain.spaces import named
from rltrain.structures import Arrays
from rltrain.tracking import TrackingConfig
from rltrain.trainers import lending
from rltrain.trainers.base import Trainer
from rltrain.trainers.workers.process import Desk
from rltrain.trainers.workers.recipes import AgentRecipe

NAP = 0.002  # seconds between looks at whether the slowest has come near enough


@dataclass
class Start:
    """Where a slice of the environment stands when training begins."""

    observations: Arrays  # (N, *O) to act on next
    states: Arrays
    snapshot: dict[str, Any] | None  # of the copies, where it can be had
    stream: int | None = None  # the seed of the generators that the worker's whole process shares
    generators: States | None = None  # their states, of those that moved in the worker before this one

    def put(self, trainer: Trainer) -> None:
        """Bring the slice there.

        Without a snapshot it is reset as the whole was, at the run's beginning or at a resume. Where that leads to other
        observations, the whole is elsewhere by now: new episodes begin, as at a resume.
        """
        env = trainer.env
        if self.snapshot is not None:
            env.restore(self.snapshot)
            trainer.observations = env.reset_done()
            lending.keep_own(trainer)
            return
        lending.hand_out(trainer)
        resumed = [seed32(seed, RESUMED_ENVIRONMENTS, trainer.timestep) for seed in env.seeds or [0] * env.num_envs]
        for seeds in (None, resumed) if trainer.timestep == 0 else (resumed,):
            trainer.observations = env.reset(seeds)
            if _equal(trainer.observations, self.observations):
                return
        trainer._for_each_agent("interrupt", self.observations, self.states)
        trainer._say_once("the environment's state can't be handed to workers: new episodes start here")


def _equal(a: Arrays, b: Arrays) -> bool:
    return all(np.array_equal(array, named(b, "")[path], equal_nan=True) for path, array in named(a, "").items())


@dataclass
class FreeJob:
    """Trains one agent on a slice of the environment."""

    agent: AgentRecipe
    env: Callable[[], EnvWrapper]
    evaluation_env: Callable[[], EnvWrapper] | None
    start: Start
    cfg: dict[str, Any]
    horizon: int
    timestep: int
    until: int
    seconds: float  # of training before
    tracking: TrackingConfig
    evaluation: EvaluationConfig
    checkpoints: CheckpointsConfig
    max_drift: int

    def run(self, desk: Desk) -> None:
        """Train, then tell the parent everything that it needs to go on from there."""
        if self.start.stream is not None:
            generators.seed(self.start.stream)
        agent, env = self.agent.make(), self.env()
        with generators.seeded(seed64(self.start.stream or 0, PROCESS_GENERATORS, 1)):  # as the training's, beside it
            evaluation_env = None if self.evaluation_env is None else self.evaluation_env()
        desk.pulse.reach(desk.index, self.timestep)
        run = FreeRun(desk, agent.name, self.tracking, self.evaluation, self.checkpoints)
        cfg = {**self.cfg, "timesteps": self.until, "close_environment_at_exit": False, "disable_progressbar": True}
        trainer = FreeTrainer(env, [agent], [env.num_envs], cfg, evaluation_env=evaluation_env, run=run, horizon=self.horizon)
        trainer.settle(desk, self.max_drift)
        trainer.timestep, trainer.clock.seconds = self.timestep, self.seconds
        desk.enter("restore")
        self.start.put(trainer)
        trainer.generators = Watch(owned=True, stream=self.start.stream)
        trainer.generators.restore(self.start.generators)
        trainer.train()
        desk.tell("done", trainer.snapshot()[0], trainer.clock.compile_seconds)
        desk.enter("close")
        trainer.close()
        desk.ask("closed")


class FreeRun(Run):
    """Stands for the run in a worker: what would be written goes to the parent."""

    def __init__(
        self, desk: Desk, agent: str, tracking: TrackingConfig, evaluation: EvaluationConfig, checkpoints: CheckpointsConfig
    ) -> None:
        self.desk = desk
        self._shown = False  # how an evaluation stands
        super().__init__(agents=[agent], tracking=tracking, evaluation=evaluation, checkpoints=checkpoints)

    @property
    def stop_signal(self) -> Any:
        """Something if the parent got a signal, whichever it was, or None."""
        return signal.SIGTERM if self.desk.pulse.stop else None

    @stop_signal.setter
    def stop_signal(self, _: Any) -> None:
        """The parent's to say."""

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Leave signals to the parent."""
        yield

    def answer_signal(self) -> None:
        """The parent's to do."""

    def open(self, **_: Any) -> None:
        """Nothing is written here."""

    def say(self, line: str) -> None:
        """Let the parent say it."""
        self.desk.tell("say", line)

    def show_evaluation(self, progress: EvaluationProgress | None) -> None:
        """Let the parent show it."""
        if progress is not None or self._shown:
            self.desk.tell("progress", progress)
        self._shown = progress is not None

    def write_metrics(self, agent: str, timestep: int, env_steps: int, metrics: dict[str, float]) -> None:
        """Let the parent write it."""
        self.desk.tell("row", timestep, env_steps, metrics)

    def save(self, timestep: int, parts: Any, manifest: Any) -> bool:
        """Send a part of a checkpoint."""
        self.desk.tell("part", timestep, dict(parts), dict(manifest))
        return True

    def mark_best(self, timestep: int, agents: Any) -> None:
        """The parent's to do."""

    def ask(self, kind: str, *content: Any) -> Any:
        """Ask the parent."""
        return self.desk.ask(kind, *content)


_FOLLOWS = {
    "act": "env.step",
    "post_interaction": "env.reset_done",
    "end_evaluation_episodes": "env.reset_done",
}


class FreeTrainer(Trainer):
    """The sequential loop over one agent of several: it stops where the parent says, and asks it what is best."""

    strict = True
    run: FreeRun

    def settle(self, desk: Desk, max_drift: int) -> None:
        """Take a place among the workers."""
        self.desk, self.max_drift = desk, max_drift
        self.first_agent = desk.index
        self._until: int | None = None  # where a stop makes all workers stop

    def _goes_on(self) -> bool:
        desk = self.desk
        desk.pulse.reach(desk.index, self.timestep)
        while self._until is None:
            if desk.pulse.stop:
                self._until = self.run.ask("at", self.timestep)
            elif self.timestep >= self.timesteps:
                return False
            elif self.timestep - desk.pulse.slowest() <= self.max_drift:
                return True
            else:
                desk.enter("wait")
                time.sleep(NAP)
        return self.timestep < self._until

    def _for_each_agent(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        self.desk.enter(method if method in _PHASES else "evaluate")
        answers = super()._for_each_agent(method, *args, **kwargs)
        if method in _FOLLOWS:
            self.desk.enter(_FOLLOWS[method])
        return answers

    def _evaluate_for_best(self) -> list[str] | None:
        """Evaluate; the parent, which sees all agents' results, says whether to save, or that a signal cut it short."""
        self.clock.stop()
        self.desk.enter("evaluate")
        results = self.find_eval()(self.run.evaluation.episodes)
        answer = None if self.run.stop_signal else self.run.ask("evaluation", self.timestep, results[self.agents[0].name])
        self.clock.start()
        return None if answer is None else [self.agents[0].name] if answer else []

    def _end(self) -> None:
        """The parent's to do."""
        self.clock.stop()


_PHASES = ("pre_interaction", "act", "record_transition", "post_interaction")

__all__ = ["FreeJob", "Start"]
