"""The loop, written once: seven steps per timestep, for any number of agents that each own a slice of the environment."""

import atexit
import copy
import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar

import numpy as np

from rltrain.agents.base import Agent
from rltrain.backends.base import check_countable
from rltrain.checks import build
from rltrain.envs.base import EnvWrapper
from rltrain.errors import ConfigError, RltrainError, RunError, said
from rltrain.generators import Watch
from rltrain.runs import Run
from rltrain.signals import comes_from_signal, exits_as_errors
from rltrain.spaces import leaves, map_arrays
from rltrain.structures import Arrays, Step, starts_after
from rltrain.trainers import evaluating, keeping, lending
from rltrain.trainers.bookkeeping import Best, Clock, overrides, select_infos, write_rows
from rltrain.trainers.config import Cfg, TrainerConfig, with_settings
from rltrain.trainers.filming import Filming
from rltrain.trainers.rewarding import check_rewards
from rltrain.trainers.scopes import check_scopes, cut, cut_named, even_scopes
from rltrain.trainers.sharing import settings, share_memories
from rltrain.trainers.unshared import Unshared
from rltrain.trainers.wrapped import check_wrapped


class Trainer:
    """Runs agents on an environment. Slices arrays and passes them on; never computes.

    `agents` is one agent or a list; `agents_scope` gives each its number of copies, in order. How long: `total_env_steps`, the
    steps of all copies together, or `timesteps`, the turns of the loop. Other settings of TrainerConfig are keywords too, or
    `cfg`: a TrainerConfig or a dict of its fields. A user's own subclass may pass a dict with further keys; they are found in
    `self.cfg` too.
    """

    config: ClassVar[type[TrainerConfig]] = TrainerConfig
    strict = False  # the built-in trainers refuse unknown keys

    def __init__(
        self,
        env: EnvWrapper,
        agents: Agent | Sequence[Agent],
        agents_scope: Sequence[int] | None = None,
        cfg: TrainerConfig | Mapping[str, Any] | None = None,
        *,
        evaluation_env: EnvWrapper | None = None,
        run: Run | None = None,
        horizon: int | None = None,
        total_env_steps: float | None = None,
        timesteps: int | None = None,
        **settings: Any,
    ) -> None:
        self.agents: list[Agent] = list(agents) if isinstance(agents, Sequence) else [agents]
        check_wrapped(self.agents, env=env, evaluation_env=evaluation_env)
        settings |= {"total_env_steps": total_env_steps, "timesteps": timesteps}
        self.cfg = self._read_cfg(with_settings(cfg, settings, self.config, env.num_envs))
        self.env, self.evaluation_env = env, evaluation_env
        self.agents_scope = [] if agents_scope is None else list(getattr(agents_scope, "tolist", lambda: agents_scope)())
        self._even = not self.agents_scope
        self.run = run or Run()
        self.run.agents = self.run.agents or [agent.name for agent in self.agents]
        self.timesteps: int = self.cfg.timesteps or 0
        self.horizon = horizon or self.timesteps  # what schedules run over
        self.headless = self.cfg.headless
        self.stochastic_evaluation = self.cfg.stochastic_evaluation
        self.first_agent = 0  # the number of agents[0] among all of the run, which its evaluation's stream depends on
        self._setup_agents()
        self._check_countable()
        share_memories(self.agents)
        if evaluation_env is not None and evaluation_env.num_envs != env.num_envs:
            raise ConfigError(
                "evaluation_env.num_envs",
                evaluation_env.num_envs,
                f"the agents' scopes cut {env.num_envs} copies; give an evaluation environment of {env.num_envs}",
            )
        why = self.cfg.fused == "true" and self._why_not_fused()
        if why:
            raise ConfigError("trainer.fused", True, f"{why}; use auto or false")
        check_rewards(self)
        self.timestep = 0
        self.observations: Any = None  # to act on next
        self.best: dict[str, Best] = {}  # by agent
        self.clock = Clock(lambda: self.agents[0].backend.compile_seconds)
        self.last_evaluation: dict[str, dict[str, Any]] = {}
        self.generators = Watch()  # of this process, which may be somebody else's
        self._resumed = False
        self._next_due = self._next_stop = self._planned_at = 0
        self._saved_at: int | None = None
        self.row_at = 0  # the timestep of the last rows of metrics
        self._pending = False  # a signal came before what was due at this timestep was done
        if self.cfg.close_environment_at_exit:
            _close_at_exit(env)
            if evaluation_env is not None:
                _close_at_exit(evaluation_env)
        self._said: set[str] = set()
        self._awaited_infos: set[str] = set()  # keys to record that no step has had yet
        self._lent: Any = None  # what wrappers of the training environment had gathered when an evaluation borrowed it
        self._unshared = Unshared()
        self.filming: Filming | None = None  # of the next evaluation's episodes
        self.why_not_filmed = ""
        self._playing: tuple[Any, Any] = (env, None)  # an evaluation's environment and observations

    def __str__(self) -> str:
        """Name the trainer, its environments, agents and scopes."""
        lines = [f"{type(self).__name__}: {self.env.num_envs} x {self.env.name}, {self.timesteps:,} timesteps"]
        for agent, scope in zip(self.agents, self.scopes, strict=True):
            lines.append(f"  {agent.name}: {agent.kind}, copies {scope.start} to {scope.stop - 1}")
        return "\n".join(lines)

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train for `timesteps` turns, or on from where a restored trainer stands.

        A signal stops it early: what is to be saved is saved, then the signal acts as if it came only now.
        """
        if not self.timesteps:
            raise ConfigError("trainer.timesteps", None, "say how long to train, a whole number >= 1")
        self._check_countable()
        if self.timestep >= self.timesteps and not self._pending:
            raise ConfigError(
                "trainer.timesteps",
                self.timesteps,
                f"all of them were made: the trainer is at timestep {self.timestep:,}; set trainer.timesteps to more to train on",
            )
        if self.env.members:
            self.multi_agent_train()
        else:
            self.single_agent_train()

    def train_to_end(self) -> None:
        """Train to the end, also where `train` makes one step only."""
        self.train()

    def single_agent_train(self) -> None:
        """Train one agent, or several that each own a slice of the copies."""
        self._run_loop()

    def multi_agent_train(self) -> None:
        """Train one team, or several that each own a slice of the copies, in the same loop."""
        self._run_loop()

    def _run_loop(self) -> None:
        with self.run.signals(), exits_as_errors():
            try:
                self._begin()
                self._loop()
                self._end()
            finally:
                self.clock.stop()
                self.run.close()
        self.run.answer_signal()

    def _loop(self) -> None:
        """Make timesteps until the last one or a signal, and do what is due after each."""
        fused = self._find_fused_loop()
        while self._goes_on():
            if fused is None or not fused.advance(self._next_stop):
                self._interact(self.timestep, learn=True)
            if self.timestep >= self._next_due:
                self._attend()
            elif self.run.screen is not None and self.run.screen.is_due():
                self._show()

    def _goes_on(self) -> bool:
        """Tell whether there is another timestep to make."""
        return self.timestep < self.timesteps and self.run.stop_signal is None

    def _find_fused_loop(self) -> Any:
        """Return the loop as one compiled program where that can be and is wanted, or None.

        Intervals are then rounded up to whole iterations, said once.
        """
        if self.cfg.fused == "false" or self._why_not_fused():
            return None
        from rltrain.trainers.fused import FusedLoop

        fused = FusedLoop(self, self._devices())
        for key in ("evaluation.interval", "checkpoints.interval", "tracking.interval"):
            section, name = key.split(".")
            interval = getattr(getattr(self.run, section), name)
            if interval % fused.length:
                self._say_once(f"{key}={interval}: rounded up to whole iterations of {fused.length} timesteps in the fused loop")
        if self.run.tracking.infos:
            self._say_once("tracking.infos: a fused loop has no `infos`; trainer.fused=false has what the environment gives")
        return fused

    def _devices(self) -> list[Any] | None:
        """Return a device per agent for compiled programs of their own, or None: all agents are one program."""
        return None

    def _why_not_fused(self) -> str:
        """Say what keeps environment and agents from being one compiled program; nothing if nothing does."""
        if not hasattr(self.env, "pure"):
            return "the environment is not written in JAX"
        if not all(hasattr(agent.algorithm, "pure") for agent in self.agents):
            return "an agent is not written in JAX"
        for agent in self.agents:
            if agent.algorithm.why_not_lent:
                return agent.algorithm.why_not_lent
        if not self.headless:
            return "rendering needs every step"
        agents = ("pre_interaction", "act", "record_transition", "post_interaction")
        own = any(overrides(agent, Agent, agents) for agent in self.agents)
        if own or self._has_own_steps() or self.env.has_own_steps():  # type: ignore[attr-defined]
            return "trainer, agent or environment has methods of its own for single steps"
        return ""

    def runs_in_workers(self) -> bool:
        """Tell whether each agent trains in a process of its own, on its slice of the environment."""
        return False

    def env_is_elsewhere(self) -> bool:
        """Tell whether the environment that trained was another process's, whose state couldn't be brought back here."""
        return False

    def _has_own_steps(self) -> bool:
        """Tell whether a subclass makes timesteps in its own way."""
        return overrides(self, Trainer, ("_interact", "_for_each_agent"))

    def _interact(self, timestep: int, *, learn: bool) -> Step:
        """Make one timestep: the seven steps, in training and in evaluation alike."""
        env, observations = (self.env, self.observations) if learn else self._playing
        states = env.state()

        # 1 pre-interaction
        if learn:
            self._for_each_agent("pre_interaction", timestep=timestep, timesteps=self.horizon)

        # 2 act
        explore = learn or self.stochastic_evaluation
        how = {"timestep": timestep, "timesteps": self.horizon} | ({} if learn else {"explore": explore, "evaluation": True})
        actions = self._join(self._for_each_agent("act", observations, states, env.action_masks(), **how))

        # 3 step
        step = env.step(actions)

        # 4 render
        if not self.headless and timestep % self.cfg.render_interval == 0:
            env.render()

        # 5 record
        if learn:
            self._note_exact(step.exact_rewards)
            self._for_each_agent(
                "record_transition",
                observations=observations,
                states=states,
                actions=actions,
                rewards=step.rewards,
                next_observations=step.next_observations,
                next_states=step.next_states,
                terminated=step.terminated,
                truncated=step.truncated,
                valid=step.valid,
                infos=step.infos,
                timestep=timestep,
                timesteps=self.horizon,
            )
            self._record_infos(step.infos)
        else:
            starts = starts_after(step.terminated, step.truncated, step.valid)
            self._for_each_agent("end_evaluation_episodes", starts)

        # 6 post-interaction
        if learn:
            self._for_each_agent("post_interaction", timestep=timestep, timesteps=self.horizon)
            self.timestep, self.observations = timestep + 1, step.next_observations  # what to keep if a reset fails

        # 7 reset
        observations = env.reset_done()
        if learn:
            self.observations = observations
        else:
            self._playing = (env, observations)
        return step

    def _note_exact(self, rewards: Arrays) -> None:
        """Give agents what returns are summed of; not to `record_transition`, which others may have written anew."""
        if len(self.agents) == 1:
            self.agents[0].exact_rewards = rewards
            return
        for agent, scope in zip(self.agents, self.scopes, strict=True):
            agent.exact_rewards = cut(rewards, scope, self.scopes[-1].stop)

    def _for_each_agent(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call `method` on every agent, arrays cut to its scope: who is called, and when."""
        answers: list[Any] = []
        try:
            if len(self.agents) == 1:
                return [getattr(self.agents[0], method)(*args, **kwargs)]
            copies = self.scopes[-1].stop
            for agent, scope in zip(self.agents, self.scopes, strict=True):
                arguments = (cut(value, scope, copies) for value in args)
                answers.append(getattr(agent, method)(*arguments, **cut_named(kwargs, scope, copies)))
        except RltrainError:
            raise
        except BaseException as error:
            where = f"agents.{self.agents[len(answers)].name}: {method}, timestep {self.timestep}"
            if isinstance(error, Exception):
                error.add_note(where)
            elif not comes_from_signal(error):
                raise RunError(f"{where}: {said(error)}") from error
            raise
        return answers

    def _join(self, actions: list[Any]) -> Any:
        return actions[0] if len(actions) == 1 else map_arrays(lambda *parts: np.concatenate(parts), *actions)

    # -- around the loop -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        env_steps = {agent.name: agent.statistics.env_steps for agent in self.agents}
        self.run.open(
            total=self.timesteps,
            copies=self.env.num_envs,
            show=False if self.cfg.disable_progressbar else (True if self.cfg.disable_progressbar is False else None),
            resumed_at=(self.timestep - self._pending, env_steps) if self._resumed else None,
        )
        backend = self.agents[0].backend
        if self.run.screen is not None and hasattr(backend, "is_compiling"):
            self.run.screen.watch(lambda: backend.is_compiling, self.timestep)
        self.generators.begin()
        if self.observations is None:
            if self.timestep == 0 and self._env_steps():
                self._for_each_agent("start_over")
            self.observations = lending.begin_episodes(self)
        else:
            lending.hand_out(self)
        if self._even and len(set(self.agents_scope)) > 1:
            self._say_once(f"agents_scope=even: {self.agents_scope} copies, the remainder to the last agent")
        self._tell_of_images()
        if any(getattr(agent.algorithm, "central", False) for agent in self.agents):
            own = self.env.info().get("state") == "own"
            self._say_once(f"critics read {'the state() of the environment' if own else 'the observations of all members'}")
        self._awaited_infos = set(self.run.tracking.infos)
        self.row_at = self.timestep - self._pending
        self.clock.start()
        if self._pending:
            self._attend()
        else:
            self._plan()

    def _tell_of_images(self) -> None:
        """Say how images are read; and if as a row of numbers up to 255, where its agent doesn't normalise them."""
        for agent in self.agents:
            for path, image in getattr(agent.algorithm, "images", {}).items():
                self._say_once(f"{agent.name} reads {f'{path!r}, ' if path else ''}{image}")
        if all(
            getattr(settings(agent), "normalize_observations", False) or getattr(agent.algorithm, "images", {})
            for agent in self.agents
        ):
            return
        for path, leaf in leaves(self.env.observation_space).items():
            if leaf.dtype == np.uint8 and len(leaf.shape) == 3:
                which, count = f"observations {path!r}" if path else "observations", int(np.prod(leaf.shape))
                what = f"{which}: an image {leaf.shape} of 0 to 255 is read as a row of {count:,} numbers, unscaled"
                self._say_once(f"{what}; network.cnn=auto reads it as an image, normalize_observations=true scales them")
                return

    def _plan(self) -> None:
        self._next_stop = min(self._next(self.run.evaluation.interval), self._next(self.run.checkpoints.interval), self.timesteps)
        self._next_due = min(self._next(self.run.tracking.interval), self._next_stop)
        self._planned_at = self.timestep

    def _show(self) -> None:
        if self.run.screen is not None:
            self.run.screen.move(self.timestep)

    def _next(self, interval: int) -> int:
        return (self.timestep // interval + 1) * interval if interval else self.timesteps

    def _is_due(self, interval: int) -> bool:
        """Tell whether a multiple of `interval` was reached since the last plan; a fused loop may step over it."""
        return bool(interval) and self.timestep // interval > self._planned_at // interval

    def _attend(self) -> None:
        """Do what is due after a timestep: evaluate, write rows, checkpoint."""
        timestep, last = self.timestep, self.timestep >= self.timesteps
        evaluation = self._is_due(self.run.evaluation.interval)
        before = dict(self.best)
        improved = self._evaluate_for_best() if evaluation else []
        self._pending = improved is None
        if improved is None:  # a signal cut the evaluation short: it is made anew at the resume
            return
        if evaluation or last or timestep // self.run.tracking.interval > self.row_at // self.run.tracking.interval:
            self.write_rows(self.last_evaluation if evaluation else None)
        if improved or last or self._is_due(self.run.checkpoints.interval):
            written = self.save()
            if improved and written:
                self.run.mark_best(timestep, improved)
            elif improved and self.run.store is not None:
                self.best = before  # there is no checkpoint of it
        self._plan()

    def _end(self) -> None:
        """Save where a signal stopped the run; the last timestep was saved when it was due."""
        self.clock.stop()
        if self.run.stop_signal is not None and (self.timestep < self.timesteps or self._pending):
            self._show()
            self.run.say(f"stopped by {self.run.stop_signal.name} at timestep {self.timestep:,}")
            self.save_once()
        self.run.check_saved()

    def _record_infos(self, infos: Mapping[str, Any]) -> None:
        if not infos and not self._awaited_infos:
            return
        found = select_infos(infos, self.cfg.environment_info, self.run.tracking.infos)
        if found:
            self._for_each_agent("record_info", found)
        if self._awaited_infos:
            self._awaited_infos -= found.keys()
            if self._awaited_infos and self.timestep + 1 >= self._next_due:
                there = ", ".join(sorted(key for key in infos if not key.startswith("_"))) or "nothing"
                awaited = ", ".join(sorted(self._awaited_infos))
                self._say_once(f"tracking.infos={awaited}: no such numbers in `infos` so far; this timestep's have {there}")
                self._awaited_infos = set()  # said once

    def write_rows(self, evaluation: dict[str, dict[str, Any]] | None = None) -> None:
        """Write each agent's row of metrics of this timestep."""
        self.row_at = self.timestep
        write_rows(self.run, self.agents, self.timestep, self.rate(), evaluation)

    def rate(self) -> float:
        """Return the env steps per second of training so far."""
        seconds = self.clock.read()
        return self._env_steps() / seconds if seconds else 0.0

    def _env_steps(self) -> int:
        return sum(agent.statistics.env_steps for agent in self.agents)

    def close(self) -> None:
        """Close the environments."""
        try:
            self.env.close()
        finally:
            if self.evaluation_env is not None:
                self.evaluation_env.close()

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def eval(self, episodes: int | None = None) -> dict[str, dict[str, Any]]:
        """Evaluate every agent and return {name: {"returns", "lengths", "successes"}}.

        Plays `episodes` per agent, the first ones of each copy; without a number, `timesteps` turns. Acts on `evaluation_env`;
        without one the training environment is reset, and said so. Nothing learned, counted or drawn for training changes.
        """
        if not self.run.awaits_signals:
            self.run.stop_signal = None  # of an earlier call
        return self.find_eval()(episodes)

    def find_eval(self) -> Callable[[int | None], dict[str, dict[str, Any]]]:
        """Return what evaluates this environment's agents."""
        return self.multi_agent_eval if self.env.members else self.single_agent_eval

    def single_agent_eval(self, episodes: int | None = None) -> dict[str, dict[str, Any]]:
        """Evaluate one agent, or several that each own a slice of the copies."""
        return evaluating.evaluate(self, episodes)

    def multi_agent_eval(self, episodes: int | None = None) -> dict[str, dict[str, Any]]:
        """Evaluate one team, or several that each own a slice of the copies: their members' results too."""
        return evaluating.evaluate(self, episodes)

    def _evaluate_for_best(self) -> list[str] | None:
        """Evaluate; return the agents that were never better, or None if a signal cut it short."""
        return evaluating.evaluate_for_best(self)

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self, *, with_environment: bool = True) -> bool:
        """Write a checkpoint of everything to the run's directory, if it has one; tell whether it was written."""
        parts, exact = self.snapshot(with_environment=with_environment)
        written = self.run.save(self.timestep, parts, keeping.manifest(self.agents, exact=exact))
        if written:
            self._saved_at = self.timestep
        return written

    def save_once(self, *, with_environment: bool = True) -> None:
        """Write a checkpoint unless this timestep has one."""
        if self._saved_at != self.timestep:
            self.save(with_environment=with_environment)

    def snapshot(self, *, with_environment: bool = True) -> tuple[dict[str, Any], bool]:
        """Return everything as parts by name, and whether going on from them is exact."""
        return keeping.take_snapshot(self, with_environment=with_environment)

    def restore(self, parts: Mapping[str, Any], *, keep_horizon: bool = True) -> None:
        """Put everything back from `snapshot`'s parts; an environment without exact state starts new episodes, said once."""
        keeping.put_snapshot(self, parts)
        if keep_horizon:
            self.horizon = int(parts["trainer"]["horizon"])
        self._resumed = True

    # -- setting up ----------------------------------------------------------------------------------------------------

    def _setup_agents(self) -> None:
        """Check agents against copies and cut the scopes.

        Raises ConfigError saying what is wrong and what would be right.
        """
        count, copies = len(self.agents), self.env.num_envs
        if not count:
            raise ConfigError("agents", [], "name at least one agent")
        if copies < count:
            raise ConfigError("env.num_envs", copies, f"{count} agents need a copy each; give at least {count}")
        names = [agent.name for agent in self.agents]
        if len(set(names)) < count:
            raise ConfigError("agents", names, "each agent needs a name of its own")
        sizes = self.agents_scope or even_scopes(copies, count)
        check_scopes(sizes, count, copies)
        starts = np.cumsum([0, *sizes]).tolist()
        self.agents_scope = list(sizes)
        self.scopes = [slice(start, stop) for start, stop in itertools.pairwise(starts)]
        for agent, size in zip(self.agents, sizes, strict=True):
            if set(agent.members) != set(self.env.members):
                there = f"named agents ({', '.join(self.env.members)}), which a team plays" if self.env.members else "one agent"
                remedy = "use ippo or mappo" if self.env.members else "use an algorithm for one agent, such as ppo"
                raise ConfigError(f"agents.{agent.name}", agent.kind, f"{self.env.name} has {there}; {remedy}")
            if agent.num_envs != size:
                made_for = f"{agent.name} was made for {agent.num_envs} copies"
                raise ConfigError("agents_scope", sizes, f"{made_for}; its scope has {size}")

    def _check_countable(self) -> None:
        """Raise ConfigError for more timesteps, or a longer horizon, than an agent's backend can count."""
        for agent in self.agents:
            check_countable(agent.backend.name, "trainer.timesteps", self.timesteps)
            check_countable(agent.backend.name, "horizon", self.horizon)

    def _read_cfg(self, cfg: TrainerConfig | Mapping[str, Any] | None) -> Cfg:
        known = {f.name for f in fields(self.config)}
        extra: dict[str, Any] = {}
        if isinstance(cfg, Mapping) and not self.strict:
            extra = {key: copy.deepcopy(value) for key, value in cfg.items() if key not in known}
            cfg = {key: value for key, value in cfg.items() if key in known}
        if isinstance(cfg, TrainerConfig) and not isinstance(cfg, self.config):
            cfg = asdict(cfg)  # of another kind of trainer
        return Cfg(build(self.config, cfg, "trainer"), extra)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.run.say(line)


def _close_at_exit(env: EnvWrapper) -> None:
    """Close an environment when the program ends, if it still lives then."""
    reference = weakref.ref(env)

    def close() -> None:
        env = reference()
        if env is not None:
            env.close()

    atexit.register(close)
