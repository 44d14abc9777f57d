"""The parent of free workers: it gathers their rows, evaluations and parts of checkpoints, and says where all stop."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from rltrain.errors import RltrainError
from rltrain.screen import EvaluationProgress
from rltrain.spaces import map_arrays
from rltrain.trainers import evaluating
from rltrain.trainers.keeping import lacks_memory
from rltrain.trainers.workers.crew import Crew

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer

TICK = 0.1  # seconds between looks at signals
RATE, RETURN = "time/env_steps_per_second", "rollout/episode_return_mean"

Parts = dict[str, Any]


class Gathering:
    """Follows a crew of `FreeJob`s until all are done."""

    def __init__(self, trainer: "Trainer", crew: Crew) -> None:
        self.trainer, self.crew, self.run = trainer, crew, trainer.run
        self.names = crew.names
        self._rows: dict[int, dict[int, tuple[int, dict[str, float]]]] = {}  # by timestep and worker
        self._parts: dict[int, dict[int, tuple[Parts, dict[str, Any]]]] = {}
        self._results: dict[int, dict[int, Any]] = {}
        self._improved: dict[int, tuple[list[str], dict[str, Any]]] = {}  # with the best ones before
        self._at: dict[int, int] = {}  # where workers wait for a word on where to stop
        self._done: dict[int, Parts] = {}
        self._progress: dict[int, EvaluationProgress] = {}  # of evaluations that take long
        self.last: Parts | None = None  # the last checkpoint's
        self.compile_seconds = 0.0
        self.close_failure: RltrainError | None = None  # of the first worker that was done and then failed to close

    def follow(self) -> Parts:
        """Attend to the workers until all are done; return all parts of where they ended.

        Raises the failure of a worker; one that failed only to close what it had is kept in `close_failure`.
        """
        workers = range(len(self.names))
        closed = 0
        while closed < len(workers):
            for index, (kind, *content) in self.crew.wait(TICK):
                if kind == "closed":
                    closed += 1
                    self.close_failure = self.close_failure or (content[0] if content else None)
                else:
                    getattr(self, f"_take_{kind}")(index, *content)
            if self.run.screen is not None:
                self.run.screen.move(max(self.trainer.timestep, self.crew.pulse.slowest()))
            if self.run.stop_signal is not None:
                self._stop()
        return self._join([self._done[index] for index in workers])[0]

    # -- what workers tell ---------------------------------------------------------------------------------------------

    def _take_say(self, index: int, line: str) -> None:
        self.trainer._say_once(line)

    def _take_progress(self, index: int, progress: EvaluationProgress | None) -> None:
        """Show how the evaluations of all workers stand together."""
        self._progress.pop(index, None)
        if progress is not None:
            self._progress[index] = progress
        each = list(self._progress.values())
        if each:
            done, wanted, longest, limits = zip(*each, strict=True)
            self.run.show_evaluation(EvaluationProgress(sum(done), sum(wanted), max(longest), limits[0]))
        else:
            self.run.show_evaluation(None)

    def _take_row(self, index: int, timestep: int, env_steps: int, metrics: dict[str, float]) -> None:
        """Write the rows of a timestep in the order of agents once all are there; they come in order from each worker."""
        rows = self._rows.setdefault(timestep, {})
        rows[index] = (env_steps, metrics)
        if len(rows) < len(self.names):
            return
        del self._rows[timestep]
        rate = sum(metrics[RATE] for _, metrics in rows.values())
        for worker, name in enumerate(self.names):
            env_steps, metrics = rows[worker]
            self.run.write_metrics(name, timestep, env_steps, metrics | {RATE: rate})
        returns = [metrics[RETURN] for _, metrics in rows.values() if RETURN in metrics]
        if self.run.screen is not None:
            self.run.screen.update(timestep, rate, float(np.mean(returns)) if returns else None)

    def _take_evaluation(self, index: int, timestep: int, results: dict[str, Any]) -> None:
        """Choose the best once all have evaluated, and tell all whether to save; a stop in between cuts the evaluation short."""
        trainer = self.trainer
        found = self._results.setdefault(timestep, {})
        found[index] = results
        if self.crew.pulse.stop or len(found) < len(self.names):
            return
        del self._results[timestep]
        before = dict(trainer.best)
        trainer.last_evaluation = {name: found[worker] for worker, name in enumerate(self.names)}
        improved = evaluating.note_best(trainer.best, trainer.last_evaluation, timestep)
        self.run.say(evaluating.describe(trainer.last_evaluation, improved, timestep))
        if improved:
            self._improved[timestep] = (improved, before)
        for worker in found:
            self.crew.send(worker, bool(improved))

    def _take_part(self, index: int, timestep: int, parts: Parts, manifest: dict[str, Any]) -> None:
        """Publish a checkpoint once all its parts are there."""
        found = self._parts.setdefault(timestep, {})
        found[index] = (parts, manifest)
        if len(found) < len(self.names):
            return
        del self._parts[timestep]
        manifests = [found[worker][1] for worker in range(len(self.names))]
        self.last, exact = self._join([found[worker][0] for worker in range(len(self.names))])
        manifest = {
            "env_steps": sum(each["env_steps"] for each in manifests),
            "agents": {name: kind for each in manifests for name, kind in each["agents"].items()},
            "exact_resume": exact,
        }
        written = self.run.save(timestep, self.last, manifest)
        if written:
            self.trainer._saved_at = timestep
        improved, before = self._improved.pop(timestep, ([], {}))
        if improved and written:
            self.run.mark_best(timestep, improved)
        elif improved and self.run.store is not None:
            self.trainer.best = before  # there is no checkpoint of it

    def _take_at(self, index: int, timestep: int) -> None:
        self._at[index] = timestep

    def _take_done(self, index: int, parts: Parts, compile_seconds: float) -> None:
        self._done[index] = parts
        self.compile_seconds = max(self.compile_seconds, compile_seconds)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Have all workers run to where the furthest is, and no further."""
        if not self.crew.pulse.stop and self.run.stop_signal is not None:
            name = self.run.stop_signal.name
            self.run.say(f"{name}: all agents go on to the furthest one's timestep; INT or TERM after it quits at once")
        self.crew.pulse.stop = 1
        for timestep in list(self._results):
            for worker in self._results.pop(timestep):
                self.crew.send(worker, None)
        if len(self._at) + len(self._done) == len(self.names) and self._at:
            ends = [int(parts["trainer"]["timestep"]) for parts in self._done.values()]
            until = max([*self._at.values(), *ends])
            for worker in self._at:
                self.crew.send(worker, until)
            self._at = {}

    # -- joining -------------------------------------------------------------------------------------------------------

    def _join(self, by_worker: Sequence[Mapping[str, Any]]) -> tuple[Parts, bool]:
        """Return the parts of all agents as the sequential trainer keeps them, and whether going on from them is exact."""
        kept = [parts["trainer"] for parts in by_worker]
        snapshots = [each["env"] for each in kept]
        has_env = all(snapshot is not None for snapshot in snapshots)
        generators = [each.get("generators") for each in kept]
        trainer = kept[0] | {
            "observations": _concatenate([each["observations"] for each in kept]),
            "states": _concatenate([each["states"] for each in kept]),
            "env": self.trainer.env.join_snapshots(snapshots) if has_env else None,
            "scopes": [size for each in kept for size in each["scopes"]],
            "training_seconds": max(each["training_seconds"] for each in kept),
            "best": {name: asdict(best) for name, best in self.trainer.best.items()},
            **({"generators": generators} if any(generators) else {}),
        }
        agents = {name: part for parts in by_worker for name, part in parts.items() if name != "trainer"}
        return {"trainer": trainer, **agents}, has_env and not any(lacks_memory(agents, name) for name in self.names)


def _concatenate(parts: Sequence[Any]) -> Any:
    return None if parts[0] is None else map_arrays(lambda *arrays: np.concatenate(arrays), *parts)
