"""Agents: an algorithm plus its bookkeeping. The algorithm holds the numbers, the agent everything around them."""

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rltrain import checkpoints
from rltrain.backends.base import Backend
from rltrain.errors import CheckpointError, NonFiniteError, StorageError
from rltrain.spaces import map_arrays, named
from rltrain.structures import Array, Arrays, Progress, Transition, UpdateSchedule, most_exact, starts_after
from rltrain.tracking import EpisodeStatistics, TeamStatistics

Actor = Any
Recipe = tuple[type, tuple[Any, ...], dict[str, Any]]


class Algorithm(Protocol):
    """The numerical part, the only part that is written once per backend.

    `snapshot` returns {"policy": what acting needs, "training": the rest}, as arrays and plain data.
    """

    schedule: UpdateSchedule
    backend: Backend
    num_envs: int
    actor_seed: int
    # an algorithm with `reads_infos = False` and nothing in it that reads a transition's `infos` is spared them where they travel
    # one with `remembers = True` has its actor reset after rows that didn't happen too
    # `reward_function`, where there is one and it isn't None, makes the rewards that `record` gets; see `rltrain.rewards`

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return what acting carries for `num_envs` copies: recurrent carry, noise, its own random stream."""

    def act(
        self,
        actor: Actor,
        observations: Arrays,
        states: Arrays = None,
        action_masks: Array | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Actor, Array, dict[str, Array]]:
        """Return the next actor, actions (N, *A) and what `record` wants back. Changes nothing learned."""

    def reset_actor(self, actor: Actor, done: Array) -> Actor:
        """Forget what belongs to episodes that ended; `done` is (N,) bool."""

    def renew_actor(self, actor: Actor) -> Actor:
        """Return the actor for a loop that counts timesteps from 0 again: it must not draw the same numbers again."""

    def actor_snapshot(self, actor: Actor) -> dict[str, Any]:
        """Return the actor as arrays and plain data."""

    def restore_actor(self, snapshot: dict[str, Any]) -> Actor:
        """Return the actor that `snapshot` was taken of."""

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies."""

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn from what was recorded; return metrics by tag."""

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""

    def discard(self) -> None:
        """Drop what can't be learned from once timesteps count from 0 again, such as an unfinished rollout."""

    def is_finite(self) -> bool:
        """Tell whether every learned number is finite."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data."""

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""

    def describe(self) -> dict[str, Any]:
        """Return what a dry run shows: parameters, memory in bytes, gradient steps per update."""


class HasRecipe:
    """Remembers how it was made, so that a worker process can make one alike: `recipe[0](*recipe[1], **recipe[2])`."""

    recipe: "Recipe"

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an instance that keeps what it is made from."""
        one = super().__new__(cls)
        one.recipe = (cls, args, kwargs)
        return one


Made = HasRecipe  # its name up to 0.3


class Agent:
    """One agent of any algorithm and backend: acts, hands transitions over, learns when due, keeps its statistics."""

    def __init__(self, algorithm: Algorithm, *, name: str = "agent") -> None:
        self.backend = algorithm.backend
        self.kind = type(algorithm).__name__
        self.recipe: Recipe | None = getattr(algorithm, "recipe", None)  # of `HasRecipe`
        self.members: tuple[str, ...] = getattr(algorithm, "members", ())  # of a team: what is one's is then a dict by name
        self.algorithm: Any = algorithm if self.members else self.backend.own(algorithm)
        self._asarray = (lambda array: array) if self.members else self.backend.asarray  # a team joins its members' first
        self.name = name
        self.num_envs = algorithm.num_envs
        self.statistics = TeamStatistics(self.num_envs, self.members) if self.members else EpisodeStatistics(self.num_envs)
        self.environment: dict[str, Any] | None = None  # what wrappers of its copies have gathered and it acts by
        self.environment_given = False  # with a policy that was restored; the training copies don't have it yet
        self.metrics: dict[str, float] = {}  # of the last update
        self.updates = 0
        self._sums: dict[str, float] = {}  # of metrics over the updates since the last row
        self._counts: dict[str, int] = {}  # of the updates that had one
        self.actor = self.algorithm.init_actor(self.num_envs, self.algorithm.actor_seed)
        self._evaluation_actor: Actor = None
        self._remembers = getattr(self.algorithm, "remembers", False)
        self.exact_rewards: Arrays = None  # (N,) float64 of the transition recorded next, where a host environment gave them
        self._outputs: dict[str, Array] = {}
        self.reward_function: Any = getattr(self.algorithm, "reward_function", None)  # of `rltrain.rewards`

    @property
    def reads_infos(self) -> bool:
        """Whether anything here reads a transition's `infos`."""
        own = type(self).record_transition is not Agent.record_transition
        return own or getattr(self.algorithm, "reads_infos", True) or getattr(self.reward_function, "reads_infos", False)

    @property
    def keeps_memory(self) -> bool:
        """Whether snapshots hold the memory of an algorithm that has one which may be left out."""
        return getattr(self.algorithm, "keeps_memory", True)

    @keeps_memory.setter
    def keeps_memory(self, keeps: bool) -> None:
        if hasattr(self.algorithm, "keeps_memory"):
            self.algorithm.keeps_memory = keeps

    def pre_interaction(self, timestep: int, timesteps: int) -> None:
        """Do what comes before a timestep; nothing for the built-in algorithms, a hook for one's own."""

    def act(
        self,
        observations: Arrays,
        states: Arrays = None,
        action_masks: Arrays = None,
        *,
        timestep: int,
        timesteps: int,
        explore: bool = True,
        evaluation: bool = False,
    ) -> Arrays:
        """Return actions (N, *A) for observations (N, *O); with `evaluation`, by an actor apart, see `begin_evaluation`.

        Where the environment has them, `states` (N, *S) are what only a critic sees, `action_masks` (N, M) which choices are
        allowed.
        """
        if evaluation and self._evaluation_actor is None:
            self.begin_evaluation(self.num_envs)
        actor = self._evaluation_actor if evaluation else self.actor
        actor, actions, outputs = self.algorithm.act(
            actor,
            map_arrays(self._asarray, observations),
            None if states is None else map_arrays(self._asarray, states),
            None if action_masks is None else map_arrays(self._asarray, action_masks),
            explore=explore,
            progress=Progress(timestep, timesteps),
        )
        if evaluation:
            self._evaluation_actor = actor
        else:
            self.actor = actor
            self._outputs = {key: self.backend.to_numpy(value) for key, value in outputs.items()}
        actions = map_arrays(self.backend.to_numpy, actions)
        if evaluation:
            self._check(actions, [value for key, value in outputs.items() if key.endswith("logits")])
        return actions

    def _check(self, actions: Arrays, logits: list[Array]) -> None:
        """Raise NonFiniteError for numbers that a policy can't mean: a choice made by them looks like any other."""
        arrays = [*map(self.backend.to_numpy, logits), *(actions.values() if isinstance(actions, dict) else (actions,))]
        if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
            raise NonFiniteError(f"agents.{self.name}: its policy gives numbers that are not finite")

    def read_outputs(self) -> dict[str, Array]:
        """Return what the algorithm acted by last, which it records."""
        return self._outputs

    def record_transition(
        self,
        *,
        observations: Arrays,
        states: Arrays = None,
        actions: Arrays,
        rewards: Arrays,
        next_observations: Arrays,
        next_states: Arrays = None,
        terminated: Arrays,
        truncated: Arrays,
        valid: Arrays = None,
        infos: dict[str, Any],
        timestep: int,
        timesteps: int,
        exact_rewards: Arrays = None,
    ) -> None:
        """Hand one transition of all copies to the algorithm and to the statistics.

        `**step._asdict()` gives what a step answered.
        """
        learned = rewards
        if self.reward_function is not None:
            on_device = not isinstance(next(iter(named(observations, "").values())), np.ndarray)
            learned = self.reward_function.shape(rewards, timestep, timesteps, infos, on_device=on_device)
        self.algorithm.record(
            Transition(
                observations,
                states,
                actions,
                next_observations,
                next_states,
                learned,
                terminated,
                truncated,
                valid,
                infos,
                self._outputs,
            )
        )
        exact = self.exact_rewards if exact_rewards is None else exact_rewards
        self.exact_rewards = None
        done = self.statistics.record(most_exact(rewards, exact), terminated, truncated, valid)
        if self._remembers:
            self.actor = self.algorithm.reset_actor(self.actor, starts_after(terminated, truncated, valid))
        elif done is not None:
            self.actor = self.algorithm.reset_actor(self.actor, done)

    def post_interaction(self, timestep: int, timesteps: int) -> None:
        """Learn, if an update is due after this timestep.

        Raises NonFiniteError if a loss or a parameter came out as NaN or infinity.
        """
        if not self.algorithm.schedule.is_due(timestep):
            return
        self.note_update(self.algorithm.update(Progress(timestep, timesteps)), timestep)

    def note_update(self, metrics: dict[str, float], timestep: int) -> None:
        """Keep the metrics of an update that followed this timestep.

        Raises NonFiniteError if a loss or a parameter came out as NaN or infinity.
        """
        self.metrics = metrics
        self.updates += 1
        for tag, value in self.metrics.items():
            self._sums[tag] = self._sums.get(tag, 0.0) + value
            self._counts[tag] = self._counts.get(tag, 0) + 1
        bad = [tag for tag, value in self.metrics.items() if not math.isfinite(value)]
        if bad or not self.algorithm.is_finite():
            what = ", ".join(f"{tag}={self.metrics[tag]}" for tag in bad) or "a parameter"
            raise NonFiniteError(
                f"agents.{self.name}: {what} is not finite after update {self.updates} at timestep {timestep}; "
                "lower learning_rate or grad_norm_clip, or look at the rewards' scale"
            )

    def begin_evaluation(self, num_envs: int, seed: int = 0) -> None:
        """Make a fresh actor for an evaluation on `num_envs` copies; training's actor is not touched.

        `seed` is that of its random stream, for an evaluation that explores.
        """
        self._evaluation_actor = self.algorithm.init_actor(num_envs, seed)

    def end_evaluation_episodes(self, done: Arrays) -> None:
        """Reset the evaluation actor where an episode ended; `done` is (N,) bool, of a team by member."""
        self._evaluation_actor = self.algorithm.reset_actor(self._evaluation_actor, done)

    def read_metrics(self) -> dict[str, float]:
        """Return the means of metrics over the updates since the last call; nothing if there was none."""
        means = {tag: total / self._counts[tag] for tag, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def record_info(self, info: dict[str, Array]) -> None:
        """Hand an environment's own numbers of this timestep to the statistics."""
        self.statistics.record_info(info)

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Leave the running episodes where they are; `next_observations` (N, *O) would have been acted on next."""
        everywhere = np.ones(self.num_envs, bool)
        self.algorithm.interrupt(next_observations, next_states)
        self.statistics.forget_running(everywhere)
        self.actor = self.algorithm.reset_actor(self.actor, everywhere)

    def start_over(self) -> None:
        """Make ready for a loop that counts timesteps from 0 and begins new episodes; what was learned stays."""
        everywhere = np.ones(self.num_envs, bool)
        self.algorithm.discard()
        self.statistics.forget_running(everywhere)
        self.actor = self.algorithm.renew_actor(self.algorithm.reset_actor(self.actor, everywhere))

    def save(self, path: str | Path) -> None:
        """Write the agent to directory `path`, in the form of a checkpoint.

        Raises StorageError if something else is there; a checkpoint is replaced.
        """
        path = Path(path)
        if path.exists() and not (path / checkpoints.MANIFEST).exists() and (not path.is_dir() or any(path.iterdir())):
            raise StorageError(f"{path}: is there and is not a checkpoint; name another directory")
        parts = {f"agents/{self.name}/{part}": tree for part, tree in self.snapshot().items()}
        manifest = {"backend": self.backend.name, "agents": {self.name: self.kind}}
        checkpoints.write(path, parts, manifest, {})

    def load(self, path: str | Path) -> None:
        """Read the agent of this name from a checkpoint's directory, a run's or one that `save` wrote.

        Raises CheckpointError if it is corrupt, or of another agent.
        """
        manifest = checkpoints.verify(Path(path))
        parts = {
            part: checkpoints.read_part(Path(path), f"agents/{self.name}/{part}", manifest) for part in ("policy", "training")
        }
        try:
            self.restore(parts)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{path}: does not fit agents.{self.name}: {error}") from error

    def snapshot(self) -> dict[str, Any]:
        """Return the agent as {"policy": ..., "training": ...}, arrays and plain data."""
        algorithm = self.algorithm.snapshot()
        training = {
            "algorithm": algorithm["training"],
            "actor": self.algorithm.actor_snapshot(self.actor),
            **self.read_bookkeeping(),
        }
        gathered = {checkpoints.ENVIRONMENT: self.environment} if self.environment else {}
        return {"policy": {**algorithm["policy"], **gathered}, "training": training}

    def read_bookkeeping(self) -> dict[str, Any]:
        """Return what stands around the algorithm, as arrays and plain data."""
        return {
            "statistics": self.statistics.snapshot(),
            "metrics": dict(self.metrics),
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "updates": self.updates,
        }

    def restore_bookkeeping(self, kept: dict[str, Any]) -> None:
        """Put back what `read_bookkeeping` returned."""
        self.statistics.restore(kept["statistics"])
        self.metrics = dict(kept["metrics"])
        self._sums, self._counts = dict(kept["sums"]), dict(kept["counts"])
        self.updates = int(kept["updates"])

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put the agent back; a snapshot that holds only "policy" restores only what acting needs."""
        policy = checkpoints.learned(snapshot["policy"])
        if "training" not in snapshot:
            self.algorithm.restore({"policy": policy})
            self._take_environment(snapshot["policy"])
            return
        training = snapshot["training"]
        copies = len(training["statistics"]["running_returns"])
        if copies != self.num_envs:
            raise ValueError(f"it was trained on {copies} copies, here are {self.num_envs}")
        self.algorithm.restore({"policy": policy, "training": training["algorithm"]})
        self.actor = self.algorithm.restore_actor(training["actor"])
        self.restore_bookkeeping(training)
        self._take_environment(snapshot["policy"])

    def _take_environment(self, policy: dict[str, Any]) -> None:
        """Take what a policy says that its copies' wrappers had gathered; one that says nothing changes nothing."""
        if checkpoints.ENVIRONMENT in policy:
            self.environment, self.environment_given = policy[checkpoints.ENVIRONMENT], True
