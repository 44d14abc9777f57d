"""PettingZoo environments with several named agents: N copies in this process, all agents of a copy acting at once.

Everything that belongs to one named agent (a *member*) comes in a dict by its name: observations, actions, rewards, flags. A
member that has left, or has not come yet, has rows that did not happen (`valid` False, zeros as observations). An episode of a
copy ends when no member is left; then every member's row is flagged, so that all flagged means: this copy starts anew.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rltrain import spaces
from rltrain.checks import build, option
from rltrain.envs import pettingzoo_snapshots as snapshots
from rltrain.envs import wrapping
from rltrain.envs.base import EnvWrapper
from rltrain.envs.finite import FiniteWatch, narrow
from rltrain.envs.gymnasium_copies import CopyError
from rltrain.envs.pettingzoo_copies import Copy, as_parallel, cast, make_by_id
from rltrain.envs.pettingzoo_masks import Masks
from rltrain.envs.ranges import RangeWatch
from rltrain.errors import ConfigError, EnvironmentFailure, RltrainError, said
from rltrain.hangs import LONGEST, Limit
from rltrain.seeding import TRAINING_ENVIRONMENTS, draw_seed, environment_seeds
from rltrain.signals import comes_from_signal
from rltrain.structures import Arrays, Step, ended

ByMember = dict[str, np.ndarray]


@dataclass
class PettingZooConfig:
    """A PettingZoo environment by id."""

    id: str = option(
        "mpe/simple_spread_v3",
        "family/name as in PettingZoo, families mpe, butterfly, sisl, classic, atari; module:attribute "
        "takes what makes one of your own",
        fixed=True,
    )
    num_envs: int = option(8, "copies that are stepped one after the other", low=1, high=65536, fixed=True)
    kwargs: dict[str, Any] = option({}, "handed to the environment's parallel_env as they are")
    wrappers: list[str | dict[str, Any]] = option(
        [],
        "what goes around each copy, the first innermost: classes of pettingzoo.utils.wrappers whose agents act at once, or "
        "module:Name, by name or as {name: ..., argument: value}",
        fixed=True,
    )
    state: str = option(
        "auto",
        "the global state for a centralised critic: the environment's own state(), or all observations joined; auto: its "
        "own where it has one; none: nothing is spent on it",
        choices=["auto", "own", "joined", "none"],
        fixed=True,
    )
    timeout: float | None = option(
        None, "seconds that one make, reset, step or close of all copies may take; null: no limit", low=0.1, high=LONGEST
    )
    on_nonfinite: str = option(
        "error",
        "what to do about NaN or infinity in an observation or reward",
        choices=["error", "reset", "ignore"],
    )
    on_invalid: str = option(
        "error",
        "what to do about observations that a Discrete, MultiDiscrete or MultiBinary space can't have; Box bounds are "
        "not checked",
        choices=["error", "ignore"],
    )

    def check(self, key: str) -> None:
        """Raise ConfigError for a wrapper without a name."""
        self.wrappers = wrapping.check_entries(self.wrappers, f"{key}.wrappers")


class PettingZooEnv(EnvWrapper):
    """N copies of a PettingZoo environment.

    `cfg` is a PettingZooConfig, a dict of its fields or an id. `seed` gives copy i the stream `first_copy + i` of `role`.
    `make` replaces the id; it returns a Parallel environment, and must be picklable for workers.
    """

    def __init__(
        self,
        cfg: PettingZooConfig | dict[str, Any] | str,
        *,
        seed: int | None = None,
        role: int = TRAINING_ENVIRONMENTS,
        first_copy: int = 0,
        make: Callable[[], Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.cfg = build(PettingZooConfig, {"id": cfg} if isinstance(cfg, str) else cfg, "env")
        self.num_envs, self.name = self.cfg.num_envs, self.cfg.id
        self.seeds = None if seed is None else environment_seeds(seed, role, self.num_envs, first_copy)
        self._arguments: dict[str, Any] = {
            "seed": seed,
            "role": role,
            "first_copy": first_copy,
            "make": make,
            "render_mode": render_mode,
        }
        self._where = f"env.id={self.cfg.id}"
        self._wrappers = wrapping.as_entries(self.cfg.wrappers, wrapping.PETTINGZOO)
        self._timestep = 0
        self._closed = False
        self._copies: list[Copy] = []
        self._time = nullcontext() if self.cfg.timeout is None else Limit(self.cfg.timeout, "env.timeout")
        try:
            with self._time:
                for index in range(self.num_envs):
                    self._copies.append(self._run(self._make_copy, index))
            self._set_up()
        except BaseException as error:
            self.close()
            if isinstance(error, RltrainError) or comes_from_signal(error):
                raise
            raise EnvironmentFailure(f"{self._where}: make: {said(error)}") from error

    def _set_up(self) -> None:
        """Find out what the copies are like."""
        env = self._copies[0].env
        names = list(getattr(env, "possible_agents", ()))
        if not names or any(not isinstance(name, str) or "/" in name for name in names):
            raise EnvironmentFailure(f"{self._where}: possible_agents={names}: expected the names of all agents, without /")
        self.members, self.num_agents = tuple(names), len(names)
        self._actions = {name: env.action_space(name) for name in names}
        self._masks = Masks(self._where, self.num_envs, {name: env.observation_space(name) for name in names}, self._actions)
        self._spaces = self._masks.spaces
        self.observation_space, self.action_space = _join(self._spaces), _join(self._actions)
        self._leaves = {name: spaces.leaves(space) for name, space in self._spaces.items()}
        own = self._run(self._copies[0].own_state_space) if self.cfg.state in ("auto", "own") else None
        if own is None and self.cfg.state == "own":
            raise ConfigError("env.state", "own", f"{self.cfg.id} has no state(); use joined or auto")
        self._has_state = own is not None
        self.state_space = None if self.cfg.state == "none" else own if self._has_state else self.observation_space
        self._watch = FiniteWatch(self._where, self._arguments["first_copy"], self.cfg.on_nonfinite)
        own = self.state_space if self._has_state else None
        self._ranges = RangeWatch(self._where, self._arguments["first_copy"], self.cfg.on_invalid, self.observation_space, own)
        self._observations: Arrays = {}
        self._states: Arrays = None
        self._there = {name: np.zeros(self.num_envs, bool) for name in names}  # who acts in the next step
        self._shown = {name: np.zeros(self.num_envs, bool) for name in names}  # whose observations are the environment's
        self._done = np.zeros(self.num_envs, bool)
        self._begun = False
        self._replays: bool | None = None  # whether episodes can be played again; None: not tried yet
        self._replays_later = False  # whether a later one than a copy's first was tried

    def _make_copy(self, index: int) -> Copy:
        make, mode = self._arguments["make"], self._arguments["render_mode"]
        number = self._arguments["first_copy"] + index
        label = f"{self._where}: copy {number}: {{}}: {self._time.text}" if isinstance(self._time, Limit) else ""
        if make is not None:
            return Copy(lambda: as_parallel(make(), self.cfg.id), index, label, self._wrappers)
        mode = mode if index == 0 or mode != "human" else None  # there is one window: copy 0's
        return Copy(functools.partial(make_by_id, self.cfg.id, self.cfg.kwargs, mode), index, label, self._wrappers)

    # -- the interface ---------------------------------------------------------------------------------------------------

    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy."""
        if seed is None and not self._begun:
            seed = self.seeds or [draw_seed() for _ in self._copies]
        if seed is not None and len(seed) != self.num_envs:
            raise ValueError(f"seed={list(seed)}: {len(seed)} seeds for {self.num_envs} copies; give one per copy")
        self._begun = True
        self._timestep = 0
        self._observations, self._shown = self._zeros(), self._nobody()
        with self._time:
            for copy in self._copies:
                start = (copy.seed, copy.episode + 1) if seed is None else (int(seed[copy.index]), 0)
                self._begin(copy, *start)
        self._masks.is_settled = True
        self._done[:] = False
        self._states = self._read_states(range(self.num_envs))
        self._watch.check_reset(self._observations, self._states, self._timestep)
        self._ranges.check(self._observations, self._states, self._timestep, self._shown)
        return self._observations

    def step(self, actions: ByMember) -> Step:
        """Step all copies; the actions of members that are not there are left out."""
        before, states, there, shown = self._observations, self._states, self._there, self._shown
        rows = {name: cast(self._actions[name], actions[name]) for name in self.members}
        self._observations, self._shown = self._zeros(), self._nobody()
        exact = {name: np.zeros(self.num_envs) for name in self.members}
        terminated, truncated, self._there = self._nobody(), self._nobody(), self._nobody()
        infos: list[dict[str, Any]] = []
        self._masks.forget(np.ones(self.num_envs, bool))
        each = [{name: rows[name][i] for name in self.members if there[name][i]} for i in range(self.num_envs)]
        with self._time:
            answers = [self._run(copy.step, given) for copy, given in zip(self._copies, each, strict=True)]
        for copy, given, (observations, gains, ends, cuts, info) in zip(self._copies, each, answers, strict=True):
            i = copy.index
            for name in given:
                exact[name][i] = gains.get(name, 0.0)
                terminated[name][i], truncated[name][i] = ends.get(name, True), cuts.get(name, False)
            self._put(i, observations, info)
            for name in copy.env.agents:
                self._there[name][i] = not (name in given and (terminated[name][i] or truncated[name][i]))
            if not any(self._there[name][i] for name in self.members):
                for name in self.members:  # those that had left before, or never came
                    terminated[name][i] |= not truncated[name][i]
            infos.append(info)
        self._states = self._read_states(range(self.num_envs))
        valid = None if all(rows.all() for rows in there.values()) else there
        rewards, fit = narrow(exact)
        step = Step(self._observations, self._states, rewards, terminated, truncated, valid, self._gather(infos), exact)
        step = self._watch.guard(step, before, states, self._timestep, rewards_fit=fit)
        if step.next_observations is not self._observations:  # some are those from before
            self._shown = {name: rows & shown[name] for name, rows in self._shown.items()}
        self._ranges.check(step.next_observations, step.next_states, self._timestep, self._shown)
        self._observations, self._states = step.next_observations, step.next_states
        self._done = ended(step.terminated, step.truncated)
        self._timestep += 1
        return step

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        if self._done.any():
            self._observations = spaces.map_arrays(np.copy, self._observations)
            self._there = {name: rows.copy() for name, rows in self._there.items()}
            over = np.flatnonzero(self._done)
            with self._time:
                for i in over:
                    self._begin(self._copies[i], self._copies[i].seed, self._copies[i].episode + 1)
            if self._has_state:
                self._states = np.copy(self._states)
            self._states = self._read_states(over)
            self._done = np.zeros(self.num_envs, bool)
            self._watch.check_reset(self._observations, self._states, self._timestep)
            self._ranges.check(self._observations, self._states, self._timestep, self._shown)
        return self._observations

    def end_episodes(self, copies: np.ndarray) -> bool:
        """End the episodes of `copies` (N,) bool where they are."""
        self._done = self._done | copies
        return True

    def state(self) -> Arrays:
        """Return the global states (N, *S): the environment's own, or the observations of all members, zeros of absent ones."""
        return self._states

    def action_masks(self) -> ByMember | None:
        """Return the masks that came as `action_mask` beside a member's observation or in its info."""
        return self._masks.allowed(self._there, self._arguments["first_copy"])

    def render(self) -> Any:
        """Return what the copies draw; with "human", copy 0 draws itself in a window at each step."""
        mode = self._arguments["render_mode"]
        return None if mode in (None, "human") else [self._run(copy.render) for copy in self._copies]

    def draw(self, copy: int) -> Any:
        """Return a picture of one copy."""
        return self._run(self._copies[copy].render)

    @property
    def render_fps(self) -> Any:
        """Return what the copies' metadata says."""
        return getattr(self._copies[0].env, "metadata", {}).get("render_fps")

    def close(self) -> None:
        """Close every copy; never raises over an error that came first."""
        if self._closed:
            return
        self._closed = True
        errors = []
        with self._time:
            for copy in self._copies:
                try:
                    copy.close()
                except CopyError as error:
                    errors.append(error)
        if errors and not any(copy.failed for copy in self._copies if copy.index != errors[0].copy):
            raise self._failure(errors[0]) from errors[0]

    def info(self) -> dict[str, Any]:
        """Say what the critic's state is and which versions are at work."""
        from importlib.metadata import PackageNotFoundError, version

        versions = {"numpy": np.__version__}
        for package in ("pettingzoo", "mpe2", "gymnasium"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        return {
            "state": "own" if self._has_state else "none" if self.state_space is None else "joined",
            "members": list(self.members),
            "versions": versions,
        }

    def notes(self) -> list[str]:
        """Say which wrappers go around the copies."""
        return [f"env.wrappers: {', '.join(map(str, self._wrappers))}"] if self._wrappers else []

    # -- keeping ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any] | None:
        """Return what all copies are played again from, or None where an episode comes out otherwise the second time.

        Copies that draw from generators which they share can't be played again one by one: their attributes are kept.
        """
        if not self._begun:
            return None
        if self.draws_from:
            copies = [snapshots.attributes_of(copy) for copy in self._copies]
            if any(copy is None for copy in copies):
                return None
        elif self._check_replay():
            copies = None
        else:
            return None
        return {
            **snapshots.gather([snapshots.episode_of(copy, self._actions) for copy in self._copies]),
            **({} if copies is None else {"copies": copies}),
            "observations": spaces.map_arrays(np.copy, self._observations),
            "action_masks": self._masks.rows,
            "there": self._there,
            "done": self._done.copy(),
            "timestep": self._timestep,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Play all copies' episodes again up to where they were."""
        self._begun, self._timestep = True, int(snapshot["timestep"])
        self._observations = spaces.map_arrays(np.array, snapshot["observations"])
        self._masks.rows, self._masks.is_settled = snapshot["action_masks"], True
        self._there = {name: np.array(rows, bool) for name, rows in snapshot["there"].items()}
        self._done = np.array(snapshot["done"], bool)
        for copy in self._copies:
            if "copies" in snapshot:
                snapshots.put_attributes(copy, snapshots.pick(snapshot, copy.index), snapshot["copies"][copy.index])
                continue
            observations = self._run(snapshots.replay, copy, snapshots.pick(snapshot, copy.index), self._actions)
            if not self._agrees(copy.index, observations):
                number = self._arguments["first_copy"] + copy.index
                raise EnvironmentFailure(
                    f"{self._where}: copy {number}: its episode comes out otherwise when it is played again from its seed "
                    "and actions; is this another version of it?"
                )
        self._states = self._read_states(range(self.num_envs))

    def cut_snapshot(self, snapshot: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
        """Return a snapshot per slice of the copies."""
        return snapshots.cut(snapshot, sizes)

    def join_snapshots(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the snapshot of all copies."""
        return snapshots.join(parts)

    def partition(self, sizes: Sequence[int]) -> list[Callable[[], EnvWrapper]] | None:
        """Return a factory per slice."""
        first = self._arguments["first_copy"]
        parts: list[Callable[[], EnvWrapper]] = []
        for size in sizes:
            cfg = {**asdict(self.cfg), "num_envs": int(size)}
            parts.append(functools.partial(type(self), cfg, **{**self._arguments, "first_copy": first}))
            first += int(size)
        return parts

    def _check_replay(self) -> bool:
        """Find out, once there is something to play, whether an episode comes out the same in an environment that is new.

        Again when there is a later episode than a copy's first: what is kept over episodes shows only then.
        """
        copy = max(self._copies, key=lambda copy: (copy.episode > 0 and len(copy.played) > 0, len(copy.played)))
        is_due = self._replays is None or (self._replays and copy.episode > 0 and not self._replays_later)
        if is_due and copy.played:
            self._replays_later = copy.episode > 0
            spare = self._run(self._make_copy, copy.index)
            observations = self._run(snapshots.replay, spare, snapshots.episode_of(copy, self._actions), self._actions)
            self._replays = self._agrees(copy.index, observations)
            spare.close()
        return self._replays is not False

    def _agrees(self, i: int, observations: dict[str, Any]) -> bool:
        """Tell whether observations are what copy i has."""
        kept = {key: array[i : i + 1] for key, array in self._observations.items()}
        again = {key: np.zeros_like(array) for key, array in kept.items()}
        self._write(again, 0, observations)
        return all(np.array_equal(array, kept[key], equal_nan=array.dtype.kind == "f") for key, array in again.items())

    # -- rows ------------------------------------------------------------------------------------------------------------

    def _begin(self, copy: Copy, seed: int, episode: int) -> None:
        """Start an episode of one copy and take what it brings."""
        observations, infos = self._run(copy.begin, seed, episode)
        for array in self._observations.values():
            array[copy.index] = 0
        for rows in self._shown.values():
            rows[copy.index] = False
        self._masks.forget(np.arange(self.num_envs) == copy.index)
        self._put(copy.index, observations, infos)
        for name in self.members:
            self._there[name][copy.index] = name in copy.env.agents

    def _put(self, i: int, observations: dict[str, Any], infos: dict[str, Any]) -> None:
        """Put what one copy gave into its rows."""
        self._write(self._observations, i, observations)
        for name in observations:
            self._shown[name][i] = True
        self._masks.take(i, observations, infos)

    def _write(self, rows: ByMember, i: int, observations: dict[str, Any]) -> None:
        for name, given in observations.items():
            observation = self._masks.observed(name, given)
            if "" in self._leaves[name]:
                rows[name][i] = observation
            else:
                for path, array in spaces.flatten(self._spaces[name], observation).items():
                    rows[f"{name}/{path}"][i] = array

    def _zeros(self) -> ByMember:
        return {
            f"{name}/{path}".rstrip("/"): np.zeros((self.num_envs, *(leaf.shape or ())), leaf.dtype)
            for name, leaves in self._leaves.items()
            for path, leaf in leaves.items()
        }

    def _nobody(self) -> ByMember:
        return {name: np.zeros(self.num_envs, bool) for name in self.members}

    def _read_states(self, copies: Sequence[int] | np.ndarray) -> Arrays:
        """Return the states (N, *S), read anew from these copies."""
        if not self._has_state:
            return None if self.state_space is None else self._observations
        states = np.zeros((self.num_envs, *self.state_space.shape), self.state_space.dtype)
        if self._states is not None:
            states[:] = self._states
        for i in copies:
            states[i] = self._run(self._copies[i].state, self.state_space)
        return states

    def _gather(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the numbers of all copies' infos by member and key (N,), with `_key` saying which copies gave one."""
        found: dict[str, Any] = {}
        for i, info in enumerate(infos):
            for name, values in info.items():
                for key, value in values.items() if isinstance(values, dict) else ():
                    if isinstance(value, bool | int | float | np.number | np.bool_):
                        rows = found.setdefault(name, {})
                        rows.setdefault(key, np.zeros(self.num_envs))[i] = value
                        rows.setdefault(f"_{key}", np.zeros(self.num_envs, bool))[i] = True
        return found

    # -- faults ----------------------------------------------------------------------------------------------------------

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except CopyError as error:
            raise self._failure(error) from error

    def _failure(self, error: CopyError) -> EnvironmentFailure:
        copy, trace = self._arguments["first_copy"] + error.copy, f"\n{error.trace}" if error.trace else ""
        return EnvironmentFailure(f"{self._where}: copy {copy}: {error.phase} at step {self._timestep}: {error.reason}{trace}")


def _join(by_member: dict[str, Any]) -> Any:
    from gymnasium.spaces import Dict

    return Dict(by_member)
