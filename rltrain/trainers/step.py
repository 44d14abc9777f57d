"""The step trainer: one timestep per call; the outer loop is the caller's, or the command line's with a callback."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from rltrain.backends.base import check_countable
from rltrain.errors import ConfigError, RunError, said
from rltrain.runs import EXIT_STATUS
from rltrain.signals import comes_from_signal, exits_as_errors
from rltrain.structures import Array, Arrays, Step
from rltrain.trainers import evaluating, lending
from rltrain.trainers.base import Trainer
from rltrain.trainers.config import StepConfig, TrainerConfig

ALL_MADE = "all of them were made; set trainer.timesteps to more to go on"


class StepResult(NamedTuple):
    """What one timestep brought, of all copies."""

    observations: Arrays  # (N, *O) the true successors, read before any reset
    rewards: Array  # (N,)
    terminated: Array  # (N,) bool
    truncated: Array  # (N,) bool
    infos: dict[str, Any]


Callback = Callable[["StepTrainer", StepResult], Any]


class StepTrainer(Trainer):
    """Makes one timestep per call of `train` or `eval`: what to do in between is the caller's.

    `callback(trainer, result)` is called within each training step, before what is due after it: a checkpoint of this timestep
    holds what the callback changed.
    """

    strict = True
    config: ClassVar[type[TrainerConfig]] = StepConfig

    def __init__(self, *args: Any, callback: Callback | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callback = callback
        if self.cfg.callback is not None and callback is None:
            raise ConfigError(
                "trainer.callback", self.cfg.callback, "names are for the command line; give the function: callback=function"
            )
        self._opened = False  # between the first step and the end; the run's files are open then
        self._driven = False  # by `train_to_end`, which begins and ends as every trainer does
        self._in_step = False
        self._held = ExitStack()  # signal handlers between steps
        self._evaluation: list[evaluating.Counter] | None = None  # under way, one per agent
        self._turn = 0  # of it

    # -- training ------------------------------------------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether there is no timestep left to make.

        `timesteps` are reached, or a signal has ended the run. A signal between two steps ends it with the next one.
        """
        return self.timestep >= self.timesteps or (self.run.stop_signal is not None and not self._opened)

    def train(self, timestep: int | None = None, timesteps: int | None = None) -> StepResult:  # type: ignore[override]
        """Make one timestep of training and do what is due after it; return what it brought.

        Agents are told `timestep` (None: counted from 0) and `timesteps` (None: the horizon of schedules). A `timestep` below
        the count starts over, as `reset` does.

        With the last of `trainer.timesteps`, or where a signal came, the run is brought to its end: last row, last checkpoint,
        files closed. A call after that raises ConfigError. A signal then acts as if it came only now: it ends the program,
        unless a handler of one's own does otherwise.
        """
        self._set_count(timestep, timesteps)
        if self._driven:
            return self._train_one(timesteps)
        result = None
        self.run.at_rest = None
        try:
            with self._signals():
                self._open()
                if self.timestep < self.timesteps and not self._pending:
                    self.clock.start()
                    with exits_as_errors(f"timestep {self.timestep}"):
                        result = self._train_one(timesteps)
                    self.clock.stop()
                if not self._goes_on():
                    self._end()
        except BaseException:
            self._leave()
            raise
        if self._goes_on():
            self.run.at_rest = self._end_at_rest if self.run.directory is not None else None
        else:
            self._leave()
            self.run.answer_signal()
        return self._refuse() if result is None else result

    def _refuse(self) -> NoReturn:
        """Say that there was no step to make: what was pending is done now, or a signal cut it short again."""
        if self.run.stop_signal is not None:
            raise SystemExit(EXIT_STATUS[self.run.stop_signal])  # whose handler went on, but there is no result
        raise ConfigError("trainer.timesteps", self.timesteps, ALL_MADE)

    def finish(self) -> None:
        """End here instead of at `trainer.timesteps`: last row of metrics, last checkpoint, files closed.

        In a callback it happens after this step. A later `train` goes on once `trainer.timesteps` is set to more.
        """
        self.timesteps = self.timestep
        if self._in_step or not (self._opened or self._pending):
            return
        self.run.at_rest = None
        try:
            with self._signals():
                self._open()
                if self.row_at != self.timestep:
                    self.write_rows()
                self.save_once()
                self._end()
        finally:
            self._leave()
        self.run.answer_signal()

    def _end_at_rest(self) -> None:
        """End where a signal stops the program between two steps: last checkpoint, files closed."""
        self.run.at_rest = None
        try:
            self._end()
        finally:
            self._leave()

    def reset(self, timestep: int = 0) -> Arrays:
        """Begin new episodes in every copy, and count on from `timestep`; return the observations to act on next.

        What was learned stays. With `reset(trainer.timestep)` the count goes on and what was recorded is learned from; else a
        rollout under way is dropped. The next `eval` begins anew. A run with a directory can't count back: its files have rows
        and checkpoints of those timesteps.
        """
        self._check("timestep", timestep, 0)
        self._evaluation = None
        if timestep != self.timestep:
            self._count_from(timestep)
        elif self.observations is not None:
            self._for_each_agent("interrupt", self.observations, self.env.state())
        self.observations = lending.begin_episodes(self)
        return self.observations

    def train_to_end(self) -> None:
        """Call `train` until the end: what the command line does."""
        super().train()

    def _loop(self) -> None:
        self._driven = True
        try:
            while self._goes_on():
                self.train()
        finally:
            self._driven = False

    def _why_not_fused(self) -> str:
        return "a step trainer makes one timestep at a time"

    def _train_one(self, timesteps: int | None) -> StepResult:
        """Make one timestep, call the callback, do what is due."""
        if self.evaluation_env is None:
            self._evaluation = None  # its episodes end here
        if self.observations is None:  # an evaluation borrowed the environment
            self.observations = lending.begin_episodes(self)
        self._in_step = True
        try:
            with self._told(timesteps):
                result = _result(self._interact(self.timestep, learn=True))
            if self.callback is not None:
                self._call_back(self.callback, result)
        finally:
            self._in_step = False
        if self.timestep >= min(self._next_due, self.timesteps):
            self._attend()
        return result

    def _call_back(self, callback: Callback, result: StepResult) -> None:
        timestep = self.timestep - 1
        try:
            callback(self, result)
        except BaseException as error:
            if comes_from_signal(error):
                raise
            name = self.cfg.callback or getattr(callback, "__qualname__", repr(callback))
            what = (said(error).splitlines() or [""])[0]
            raise RunError(f"trainer.callback={name}: after timestep {timestep}: {what}") from error

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def eval(  # type: ignore[override]
        self, timestep: int | None = None, timesteps: int | None = None, *, episodes: int | None = None
    ) -> Any:
        """Make one timestep of evaluation and return what it brought, a StepResult.

        The first call begins an evaluation, later ones go on with it; timestep 0, given, begins the next one. It is on
        `evaluation_env`; without one the training environment is reset, and said so. With `episodes`, plays that many per
        agent at once and returns {name: {"returns", "lengths", "successes"}}, as other trainers do.
        """
        if episodes is not None:
            return self._evaluate_at_once(episodes)
        self._check("timestep", timestep, 0)
        self._check("timesteps", timesteps, 1)
        if timestep == 0:
            self._evaluation = None
        stream = evaluating.stream(self) if self._evaluation is None else None
        with self.generators.evaluating(stream), self._told(timesteps):
            if self._evaluation is None:
                self._evaluation, self._turn = evaluating.begin(self, None), 0
            turn = self._turn if timestep is None else int(timestep)
            result = _result(evaluating.make_turn(self, self._evaluation, turn))
        self._turn = turn + 1
        return result

    def _evaluate_at_once(self, episodes: int) -> dict[str, dict[str, Any]]:
        if self._opened or self._driven:
            return self.find_eval()(episodes)  # a signal is training's to answer
        ended, self.run.stop_signal = self.run.stop_signal, None  # which would cut this short, too
        try:
            return self.find_eval()(episodes)
        finally:
            self.run.stop_signal = self.run.stop_signal or ended

    @property
    def evaluation_observations(self) -> Arrays:
        """The observations that `eval` acts on next."""
        return None if self._evaluation is None else self._playing[1]

    def evaluation_results(self) -> dict[str, dict[str, Any]]:
        """Return the episodes that ended in the evaluation under way: {name: {"returns", "lengths", "successes"}}."""
        return {} if self._evaluation is None else evaluating.results(self, self._evaluation)

    def single_agent_eval(self, episodes: int | None = None) -> dict[str, dict[str, Any]]:
        """Evaluate at once; an evaluation by steps that was under way ends."""
        self._evaluation = None
        return super().single_agent_eval(episodes)

    def multi_agent_eval(self, episodes: int | None = None) -> dict[str, dict[str, Any]]:
        """Evaluate at once; an evaluation by steps that was under way ends."""
        self._evaluation = None
        return super().multi_agent_eval(episodes)

    # -- around a step -------------------------------------------------------------------------------------------------

    def _set_count(self, timestep: int | None, timesteps: int | None) -> None:
        """Check what `train` was given and count by it.

        Raises ConfigError if there is no such timestep to make.
        """
        self._check("timestep", timestep, 0)
        self._check("timesteps", timesteps, 1)
        if not self.timesteps:
            if timesteps is None:
                raise ConfigError("trainer.timesteps", None, "say how long to train, a whole number >= 1")
            self.timesteps = self.horizon = int(timesteps)
        self._check_countable()
        if (self.timestep if timestep is None else timestep) >= self.timesteps and not self._pending:
            raise ConfigError("trainer.timesteps", self.timesteps, ALL_MADE)
        if timestep is not None and timestep < self.timestep:
            self.reset(int(timestep))
        elif timestep is not None and timestep > self.timestep:
            self.timestep = int(timestep)
            self._plan()

    def _check(self, key: str, value: int | None, low: int) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low):
            raise ConfigError(key, value, f"must be a whole number >= {low}")
        for agent in self.agents:
            check_countable(agent.backend.name, key, int(value or 0))

    def _count_from(self, timestep: int) -> None:
        if self.run.directory is not None and timestep < self.timestep:
            there = f"the run's files are at timestep {self.timestep:,} already"
            raise ConfigError("timestep", timestep, f"{there}; reset(trainer.timestep) begins new episodes and counts on")
        if self._env_steps():
            self._for_each_agent("start_over")
        self.timestep = self.row_at = int(timestep)
        self._pending, self._saved_at = False, None
        self._plan()

    @contextmanager
    def _told(self, timesteps: int | None) -> Iterator[None]:
        """Tell agents `timesteps` instead of the horizon."""
        horizon, self.horizon = self.horizon, self.horizon if timesteps is None else int(timesteps)
        try:
            yield
        finally:
            self.horizon = horizon

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """See to it that a signal doesn't cut a step short; a run with a directory waits for one between steps, too."""
        if self.run.directory is not None:
            yield
            return
        with self.run.signals():
            yield

    def _open(self) -> None:
        """Begin as every trainer does, before the first step."""
        if self._opened:
            return
        if self.run.directory is not None:
            self._held.enter_context(self.run.signals())
        self._opened = True
        self._begin()
        self.clock.stop()

    def _leave(self) -> None:
        """Close the run's files; a later step opens them again and adds to them."""
        self.clock.stop()
        self.run.close()
        self._held.close()
        self._opened = False


def _result(step: Step) -> StepResult:
    return StepResult(step.next_observations, step.rewards, step.terminated, step.truncated, step.infos)
