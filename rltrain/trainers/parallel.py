"""The parallel trainer: every agent in a worker process of its own, all at the same time, equal to the sequential one.

Copies of the environment in different scopes never touch. So where the environment can be split (*partitioned*), each worker
steps its own slice and runs free; where it can't (*shared*), this process steps it and exchanges arrays with the workers in
lock-step. Between calls of `train` the agents and the environment of this process hold everything, as with any trainer.
"""

import multiprocessing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import numpy as np

from rltrain.agents.base import Agent
from rltrain.errors import ConfigError, EnvironmentFailure, RltrainError, RunError
from rltrain.processes import refuse_while_importing
from rltrain.seeding import PROCESS_GENERATORS, seed64
from rltrain.spaces import named
from rltrain.structures import Arrays
from rltrain.trainers import keeping
from rltrain.trainers.base import Trainer
from rltrain.trainers.bookkeeping import overrides
from rltrain.trainers.config import ParallelConfig, TrainerConfig
from rltrain.trainers.scopes import cut, cut_named
from rltrain.trainers.sharing import groups
from rltrain.trainers.workers.crew import Crew
from rltrain.trainers.workers.free import FreeJob, Start
from rltrain.trainers.workers.gathering import Gathering
from rltrain.trainers.workers.lockstep import EXACT, Lockstep, LockstepJob
from rltrain.trainers.workers.recipes import AgentRecipe, pickled


class ParallelTrainer(Trainer):
    """Every agent acts and learns in a worker process of its own, at the same time as the others."""

    config = ParallelConfig
    strict = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._elsewhere: Mapping[str, Any] | None = None  # what was kept of an environment whose state can't be brought back here
        self._lockstep: Lockstep | None = None  # while workers act and learn for the environment here
        self._compiled = 0.0  # seconds that workers in lock-step have spent on compiling
        self.clock.compiling = lambda: self.agents[0].backend.compile_seconds + self._compiled
        self._lost = False  # a worker ended and took its agent along
        self._close_failure: RltrainError | None = None  # of a worker that was done
        self.placement = self._choose_placement()

    def _choose_placement(self) -> str:
        """Return "partitioned" or "shared"; raises ConfigError where the environment can't be placed as asked."""
        wanted, why = self.cfg.placement, self._why_not_partitioned()
        if wanted == "partitioned" and why:
            raise ConfigError("trainer.placement", wanted, f"{why}; use shared or auto")
        return "shared" if why or wanted == "shared" else "partitioned"

    def _why_not_partitioned(self) -> str:
        if groups(self.agents):
            return "agents share a memory, into which all record a timestep before any learns from it"
        if self.env.partition(self.agents_scope) is None:
            return "the environment can't be split"
        if self.evaluation_env is not None and self.evaluation_env.partition(self.agents_scope) is None:
            return "the evaluation environment can't be split"
        if not self.headless:
            return "rendering shows one environment"
        if self.evaluation_env is not None and self.evaluation_env.is_filmed:
            return "one process takes the videos of evaluations"
        if self._has_own_steps():
            return "this trainer makes timesteps in its own way"
        return ""

    def runs_in_workers(self) -> bool:
        """Tell whether each agent trains in a process of its own, on its slice of the environment."""
        return self.placement == "partitioned" and len(self.agents) > 1

    def env_is_elsewhere(self) -> bool:
        """Tell whether the environment that trained was another process's, whose state couldn't be brought back here."""
        return self._elsewhere is not None

    def _has_own_steps(self) -> bool:
        return overrides(self, ParallelTrainer, ("_interact", "_for_each_agent"))

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train for `timesteps` turns, or on from where a restored trainer stands; a signal stops it early, as any trainer."""
        if len(self.agents) > 1:
            refuse_while_importing()
        super().train()

    def _loop(self) -> None:
        if self._lost:
            raise RunError("a worker of this trainer failed and its agent is lost; restore a checkpoint, or make a new trainer")
        if len(self.agents) == 1:
            self._say_once("trainer=parallel: one agent runs as with trainer=sequential")
            super()._loop()
        elif not self._goes_on():
            return
        elif self.cfg.fused != "false" and not self._why_not_fused():
            super()._loop()
        else:
            if multiprocessing.current_process().daemon:
                raise ConfigError("trainer", "parallel", "a daemonic process can't start workers; use trainer=sequential")
            why = self._why_not_partitioned()
            self._say_once(f"placement: {self.placement}" + (f", {why}" if why else ""))
            self._run_partitioned() if self.placement == "partitioned" else self._run_shared()

    def _devices(self) -> list[Any] | None:
        if len(self.agents) == 1:
            return None
        devices = self.agents[0].backend.devices(len(self.agents))
        if devices is None:
            self._say_once(
                "placement: one compiled program for all agents, JAX started with fewer devices than agents "
                f"(XLA_FLAGS=--xla_force_host_platform_device_count={len(self.agents)} makes them of a CPU)"
            )
        else:
            self._say_once(f"placement: a compiled program per agent, on {', '.join(map(str, devices))}")
        return devices

    def _run_partitioned(self) -> None:
        """Let workers train, each on a slice of the environment, until the end or a signal."""
        jobs = self._free_jobs()
        with Crew([agent.name for agent in self.agents], self.cfg.worker_timeout) as crew:
            gathering = Gathering(self, crew)
            try:
                crew.start(jobs)
                parts = gathering.follow()
            except BaseException:
                if gathering.last is not None:
                    self._take_over(gathering.last)  # the last checkpoint, at which all agents were at one timestep
                self._saved_at = self.timestep  # there is nothing newer to save
                raise
        self._take_over(parts)
        self.clock.compile_seconds += gathering.compile_seconds
        self._close_failure = gathering.close_failure

    def _end(self) -> None:
        super()._end()
        failure, self._close_failure = self._close_failure, None
        if failure is not None:  # all agents were done, and by now they are saved
            raise failure

    def _free_jobs(self) -> list[bytes]:
        """Return a pickled job per agent."""
        env, sizes, count = self.env, self.agents_scope, len(self.agents)
        slices = env.partition(sizes)
        evaluation_slices = [None] * count if self.evaluation_env is None else self.evaluation_env.partition(sizes)
        assert slices is not None and evaluation_slices is not None
        snapshot = None if self._elsewhere is not None else env.snapshot()
        snapshots = [None] * count if snapshot is None else env.cut_snapshot(snapshot, sizes)
        states = env.state() if self._elsewhere is None else self._elsewhere["states"]
        generators = self.generators.workers or [None] * count
        jobs = []
        for i, (agent, scope) in enumerate(zip(self.agents, self.scopes, strict=True)):
            own = cut(self.observations, scope, env.num_envs), cut(states, scope, env.num_envs)
            start = Start(*own, snapshots[i], self._stream(scope), generators[i])
            job = FreeJob(
                agent=AgentRecipe.of(agent),
                env=slices[i],
                evaluation_env=evaluation_slices[i],
                start=start,
                cfg={field.name: self.cfg[field.name] for field in fields(TrainerConfig)} | {"fused": "auto"},
                horizon=self.horizon,
                timestep=self.timestep,
                until=self.timesteps,
                seconds=self.clock.read(),
                tracking=self.run.tracking,
                evaluation=self.run.evaluation,
                checkpoints=self.run.checkpoints,
                max_drift=self.cfg.max_drift,
            )
            envs = {"env.id": (env.name, job.env), "evaluation_env": (env.name, job.evaluation_env)}
            jobs.append(pickled(job, {f"agents.{agent.name}": (agent.kind, job.agent), **envs}))
        return jobs

    def _run_shared(self) -> None:
        """Step the environment here, in lock-step with the workers that act and learn."""
        on_device = not isinstance(next(iter(named(self.observations, "").values())), np.ndarray)
        jobs = []
        for agent, scope in zip(self.agents, self.scopes, strict=True):
            job = LockstepJob(AgentRecipe.of(agent), scope, on_device, self._stream(scope), self._sharers(agent))
            jobs.append(pickled(job, {f"agents.{agent.name}": (agent.kind, job.agent)}))
        with Crew([agent.name for agent in self.agents], self.cfg.worker_timeout) as crew:
            self._lockstep = lockstep = Lockstep(crew, self.agents, self.scopes, self.env, self.observations)
            try:
                self.clock.stop()
                crew.start(jobs, lockstep.board)
                lockstep.ask("ready")
                self.clock.start()
                super()._loop()
                lockstep.bring_agents()
                self.clock.stop()
                self._compiled = 0.0  # counted by now; other workers count anew
            except BaseException as error:
                self._lost = True
                if isinstance(error, EnvironmentFailure):  # of the environment here: the agents are well
                    with suppress(RltrainError):
                        lockstep.bring_agents()
                        self._lost = False
                raise
            finally:
                self._lockstep = None

    def _stream(self, scope: slice) -> int | None:
        """Return the seed of the generators that a worker's whole process shares, or None where nothing was seeded."""
        return None if self.env.seeds is None else seed64(self.env.seeds[scope.start], PROCESS_GENERATORS)

    def _sharers(self, agent: Agent) -> dict[int, tuple[int, slice]]:
        """Return the number and the scope of each other agent that shares its memory, by part."""
        for group in groups(self.agents):
            if agent in group:
                numbers = [self.agents.index(other) for other in group]
                return {part: (i, self.scopes[i]) for part, i in enumerate(numbers) if self.agents[i] is not agent}
        return {}

    def _note_exact(self, rewards: Arrays) -> None:
        if self._lockstep is None:
            super()._note_exact(rewards)
        else:
            self._lockstep.board.write(EXACT, rewards)

    def _for_each_agent(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        lockstep, nothing = self._lockstep, [None] * len(self.agents)
        if lockstep is None or method in ("record_info", "end_evaluation_episodes") or kwargs.get("evaluation"):
            return super()._for_each_agent(method, *args, **kwargs)
        if method in ("pre_interaction", "post_interaction"):
            return nothing  # come with acting and recording
        if method == "act":
            return lockstep.act(*args, **kwargs)
        if method == "record_transition":
            lockstep.record(**kwargs)
            return nothing
        copies = self.scopes[-1].stop
        each_args = [tuple(cut(value, scope, copies) for value in args) for scope in self.scopes]
        each_kwargs = [cut_named(kwargs, scope, copies) for scope in self.scopes]
        return lockstep.call(method, each_args, each_kwargs)

    def _evaluate_for_best(self) -> list[str] | None:
        if self._lockstep is not None:
            self._lockstep.bring_policies()
        return super()._evaluate_for_best()

    def write_rows(self, evaluation: dict[str, dict[str, Any]] | None = None) -> None:
        """Write each agent's row of metrics of this timestep."""
        if self._lockstep is not None:
            self._compiled = self._lockstep.bring_bookkeeping()
        super().write_rows(evaluation)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _take_over(self, parts: Mapping[str, Any]) -> None:
        """Bring what the workers hold into this process."""
        self.clock.stop()
        keeping.put_agents(self, parts)
        keeping.put_progress(self, parts["trainer"])
        self.generators.workers = parts["trainer"].get("generators")
        self._elsewhere = None
        if parts["trainer"]["env"] is not None:
            keeping.put_environment(self, parts["trainer"])
        else:
            self._elsewhere, self.observations = parts["trainer"], parts["trainer"]["observations"]

    def save(self, *, with_environment: bool = True) -> bool:
        """Write a checkpoint of everything to the run's directory, if it has one; tell whether it was written."""
        return not self._lost and super().save(with_environment=with_environment)

    def snapshot(self, *, with_environment: bool = True) -> tuple[dict[str, Any], bool]:
        """Return everything as parts by name, and whether going on from them is exact."""
        if self._lockstep is not None:
            self._lockstep.bring_agents()
        if self._elsewhere is None:
            return super().snapshot(with_environment=with_environment)
        parts, _ = super().snapshot(with_environment=False)
        parts["trainer"]["states"] = self._elsewhere["states"]
        return parts, False

    def restore(self, parts: Mapping[str, Any], *, keep_horizon: bool = True) -> None:
        """Put everything back from `snapshot`'s parts."""
        self._elsewhere, self._lost = None, False
        super().restore(parts, keep_horizon=keep_horizon)
