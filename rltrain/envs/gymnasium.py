"""Gymnasium environments: one copy, or many as Sync, Async or native vector environments.

Copies are reset by this wrapper, never inside `step`: Gymnasium's AutoresetMode.DISABLED with `reset_mask`. What the mask does
is probed at start. A native vector environment that resets its copies itself in the following step (NEXT_STEP) is taken as it
is: that row did not happen, so its `valid` is False.
"""

import functools
import multiprocessing
import multiprocessing.connection
import operator
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np

from rltrain import spaces
from rltrain.checks import build, option
from rltrain.confidential import known
from rltrain.envs import wrapper_marks, wrapper_states, wrapping
from rltrain.envs.answers import why_not_batch
from rltrain.envs.base import EnvWrapper
from rltrain.envs.finite import FiniteWatch, narrow
from rltrain.envs.gymnasium_copies import CopyError, dump_stacks, end_processes, make_copy, make_sync, work
from rltrain.envs.gymnasium_ids import as_gymnasium, find_spec, make_by_id, register
from rltrain.envs.gymnasium_infos import Infos
from rltrain.envs.own_process import GENERATORS
from rltrain.envs.ranges import RangeWatch
from rltrain.envs.snapshots import put_snapshot, remember, take_snapshot
from rltrain.errors import ConfigError, EnvironmentFailure, RltrainError, said
from rltrain.hangs import LONGEST, Limit
from rltrain.processes import BY_IMPORT, ONE_SENTENCE, known_start_method, refuse_while_importing
from rltrain.seeding import TRAINING_ENVIRONMENTS, environment_seeds
from rltrain.signals import comes_from_signal
from rltrain.structures import Arrays, Step

ASYNC_TIMEOUT = 300.0  # seconds


@dataclass
class GymnasiumConfig:
    """A Gymnasium environment by id."""

    id: str = option(
        "CartPole-v1",
        "environment id as Gymnasium writes it; module:Own-v0 imports the module first, module:Name takes its class or function",
        fixed=True,
    )
    num_envs: int = option(8, "copies that are stepped together", low=1, high=65536, fixed=True)
    vectorization: str = option(
        "auto",
        "auto is sync for every id; native takes the environment's own vector entry point",
        choices=["auto", "sync", "async", "native"],
    )
    kwargs: dict[str, Any] = option({}, "handed to gymnasium.make as they are")
    wrappers: list[str | dict[str, Any]] = option(
        [],
        "what goes around each copy, the first innermost: classes of gymnasium.wrappers, or module:Name, by name or as "
        "{name: ..., argument: value}",
        fixed=True,
    )
    timeout: float | None = option(
        None,
        "seconds that one make, reset, step or close of all copies may take; null: 300 for async copies, no limit for "
        "those in this process",
        low=0.1,
        high=LONGEST,
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
        """Raise ConfigError for wrappers without a name, and for some around a vector environment's copies."""
        self.wrappers = wrapping.check_entries(self.wrappers, f"{key}.wrappers")
        if self.wrappers and self.vectorization == "native":
            raise ConfigError(
                f"{key}.vectorization", "native", f"has no single copies for {key}.wrappers to go around; use sync or async"
            )


class GymnasiumEnv(EnvWrapper):
    """N copies of a Gymnasium environment.

    `cfg` is one of `settings`, a dict of its fields or an id. `seed` gives copy i the stream `first_copy + i` of `role`.
    `make` replaces `gymnasium.make` for environments that have no id; it must be picklable for async.
    """

    settings: type[GymnasiumConfig] = GymnasiumConfig

    def __init__(
        self,
        cfg: GymnasiumConfig | dict[str, Any] | str,
        *,
        seed: int | None = None,
        role: int = TRAINING_ENVIRONMENTS,
        first_copy: int = 0,
        make: Callable[[], Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.cfg = build(self.settings, {"id": cfg} if isinstance(cfg, str) else cfg, "env")
        self.num_envs, self.name = self.cfg.num_envs, self.cfg.id
        self.seeds = None if seed is None else environment_seeds(seed, role, self.num_envs, first_copy)
        self._arguments: dict[str, Any] = {
            "seed": seed,
            "role": role,
            "first_copy": first_copy,
            "make": make,
            "render_mode": render_mode,
        }
        self.vectorization = "sync" if self.cfg.vectorization == "auto" else self.cfg.vectorization
        self._timestep = 0
        self._seeded = False
        self._closed = False
        self._broken = False  # a copy failed: its process may be dead or busy for ever
        self._venv: Any = None
        in_process = self.vectorization != "async" and self.cfg.timeout is not None
        self._time = Limit(self.cfg.timeout, "env.timeout") if in_process else nullcontext()  # type: ignore[arg-type]
        self._made: dict[str, Any] = {}  # what a native vector environment is made of
        self._stacks: str | None = None  # where the processes of async copies write their stacks when they hang
        if make is None:
            find_spec(self.cfg.id)
        self._kwargs, self._wrappers = self._recipe()
        try:
            with self._time:
                self._venv = self._make(make, render_mode)
            self._set_up()
        except BaseException as error:
            try:
                self._fail("make", error)
            finally:
                self.close()

    def _set_up(self) -> None:
        """Find out what the copies are like."""
        self.observation_space = self._venv.single_observation_space
        self.action_space = self._venv.single_action_space
        self._leaves = spaces.leaves(self.observation_space)
        self.state_space = self._find_state_space()
        where = f"env.id={self.cfg.id}"
        self._infos = Infos(where, self.num_envs, self.state_space, self.action_space)
        self._watch = FiniteWatch(where, self._arguments["first_copy"], self.cfg.on_nonfinite)
        self._ranges = RangeWatch(
            where, self._arguments["first_copy"], self.cfg.on_invalid, self.observation_space, self.state_space
        )
        self._observations: Arrays = np.zeros(0)
        self._done = np.zeros(self.num_envs, bool)
        self._resets_copies = self._probe_reset_mask()
        self._limit: tuple[int | None] | None = None  # once it was asked for
        if self.cfg.on_nonfinite == "reset" and not self._resets_copies:
            raise ConfigError(
                "env.on_nonfinite", "reset", f"{self.cfg.id} native can't reset a single copy; use env.vectorization=sync"
            )

    # -- the interface ---------------------------------------------------------------------------------------------------

    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy."""
        if seed is None and not self._seeded:
            seed = self.seeds
        seeds: Any = None if seed is None else [int(s) for s in seed]
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed={seed}: {len(seeds)} seeds for {self.num_envs} copies; give one per copy")
        if seeds is not None and self.vectorization == "native":
            seeds = seeds[0]  # a native vector environment draws from one generator for all copies
        self._seeded = True
        self._timestep = 0
        self._done[:] = False
        observations, infos = self._call("reset", seed=seeds)
        self._observations = self._arrange(observations)
        self._infos.begin(infos)
        self._watch.check_reset(self._observations, self._infos.states, self._timestep)
        self._ranges.check(self._observations, self._infos.states, self._timestep)
        return self._observations

    def step(self, actions: np.ndarray) -> Step:
        """Step all copies."""
        valid = None if self._resets_copies or not self._done.any() else ~self._done
        before = self._infos.states
        observations, rewards, terminated, truncated, infos = self._call("step", self._cast(actions))
        observations = self._arrange(observations)
        if self.vectorization == "native":  # which may write its next answer into the same arrays
            terminated, truncated = np.array(terminated), np.array(truncated)
        self._infos.step(infos)
        exact = np.array(rewards, np.float64)
        rewards, fit = narrow(exact)
        step = Step(observations, self._infos.states, rewards, terminated, truncated, valid, infos, exact)
        step = self._watch.guard(step, self._observations, before, self._timestep, rewards_fit=fit)
        self._ranges.check(step.next_observations, step.next_states, self._timestep)
        self._infos.states = step.next_states
        self._observations, self._done = step.next_observations, step.terminated | step.truncated
        self._timestep += 1
        return step

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        if self._resets_copies and np.count_nonzero(self._done):  # a quarter of the time of any()
            fresh, infos = self._call("reset", options={"reset_mask": self._done.copy()})
            # rows of other copies are what the simulator stored last, which a restored snapshot does not touch: keep ours
            self._observations = spaces.choose_rows(self._done, self._arrange(fresh), self._observations)
            self._infos.begin_some(infos, self._done)
            self._done[:] = False
            self._watch.check_reset(self._observations, self._infos.states, self._timestep)
            self._ranges.check(self._observations, self._infos.states, self._timestep)
        return self._observations

    @property
    def episode_limit(self) -> int | None:
        """Return the steps after which Gymnasium's TimeLimit truncates an episode; not asked of native vector environments."""
        if self._limit is None:
            limits = [None] if self.vectorization == "native" else self._call("call", "read_time_limit", phase="make")
            self._limit = (None if None in limits else max(limits),)
        return self._limit[0]

    def end_episodes(self, copies: np.ndarray) -> bool:
        """End the episodes of `copies` (N,) bool where they are, if single copies can be reset."""
        if self._resets_copies:
            self._done = self._done | copies
        return self._resets_copies

    def state(self) -> Arrays:
        """Return the states that came as `infos["state"]`, where the environment has a `state_space`."""
        return self._infos.states

    def action_masks(self) -> np.ndarray | None:
        """Return the masks that came as `infos["action_mask"]`."""
        return self._infos.allowed(self._arguments["first_copy"], self._done)

    def render(self) -> Any:
        """Return what the copies draw; with "human", copy 0 draws itself in a window at each step."""
        if self._venv.render_mode in (None, "human"):
            return None
        if self.vectorization == "native":
            return self._call("render")
        return self._call("call", "render", phase="render")

    def draw(self, copy: int) -> Any:
        """Return a picture of one copy."""
        if self.vectorization == "native":
            pictures = self._call("render")
            return pictures[copy] if pictures is not None and len(pictures) == self.num_envs else None
        return self._call("call", "draw_copy", copy, phase="render")[copy]

    @property
    def render_fps(self) -> Any:
        """Return what the copies' metadata says."""
        return self._venv.metadata.get("render_fps")

    def get_attr(self, name: str) -> list[Any]:
        """Return an attribute of each copy."""
        self._check_copies(name)
        return list(self._call("call", "read_attribute", name, phase=f"get_attr {name}"))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute that the copies have, to one value or to one per copy in a list; a checkpoint keeps plain ones."""
        self._check_copies(name)
        each = list(values) if isinstance(values, list | tuple | np.ndarray) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{name}: {len(each)} values for {self.num_envs} copies; give one, or one per copy")
        self._call("call", "put_attribute", name, each, phase=f"set_attr {name}")

    def _check_copies(self, name: str) -> None:
        if self.vectorization == "native":
            raise ConfigError("env.vectorization", "native", f"has no {name} of single copies; use sync or async")

    def close(self) -> None:
        """Close every copy; never raises over an error that came first."""
        if self._closed:
            return
        self._closed = True
        if self._venv is None:
            return
        broken = self._broken or sys.exc_info()[0] is not None
        try:
            if self.vectorization == "async" and broken:
                end_processes(self._venv)
                return
            with self._time:
                if self.vectorization == "sync":
                    self._close_copies()
                self._venv.close()
            if self.vectorization == "async" and not self._venv.error_queue.empty():
                raise self._venv.error_queue.get()[2]
        except BaseException as error:
            if not broken or comes_from_signal(error):
                self._fail("close", error)
        finally:
            shutil.rmtree(self._stacks or "", ignore_errors=True)

    def _close_copies(self) -> None:
        """Close every copy, also those after one that fails; the first error is raised then."""
        errors = []
        for copy in self._venv.envs:
            try:
                copy.close()
            except Exception as error:
                errors.append(error)
        self._venv.closed = True
        if errors:
            raise errors[0]

    def snapshot(self) -> dict[str, Any] | None:
        """Return all copies as arrays and plain data, or None if one of them keeps something else."""
        if self.vectorization == "native":
            copies = [take_snapshot(self._venv, self._made)]
        else:
            copies = list(self._call("call", "snapshot_copy", phase="snapshot"))
        if any(copy is None for copy in copies):
            return None
        if self.vectorization == "async":
            self.draws_from = tuple(sorted({name for copy in copies for name in (copy or {}).get(GENERATORS, ())}))
        return {
            "copies": copies,
            "observations": spaces.map_arrays(np.copy, self._observations),
            "states": self._infos.states,
            "action_masks": self._infos.masks,
            "done": self._done.copy(),
            "timestep": self._timestep,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put all copies back."""
        copies = snapshot["copies"]
        if self.vectorization == "native":
            self._venv.reset(seed=0)
            put_snapshot(self._venv, copies[0], self._made)
        else:
            self._call("reset")  # clears the flags that the vector environment keeps about ended episodes
            self._call("call", "restore_copy", copies, phase="restore")
        self._observations = spaces.map_arrays(np.array, snapshot["observations"])
        self._infos.states, self._infos.masks = snapshot["states"], snapshot["action_masks"]
        self._done = np.array(snapshot["done"], bool)
        self._timestep = int(snapshot["timestep"])
        self._seeded = True

    def policy_states(self, scopes: Sequence[slice]) -> list[dict[str, Any]]:
        """Return what wrappers have gathered, pooled per scope; a native vector environment has one state for all its copies."""
        if self.vectorization == "native":
            return [self._in_native("policy_state", wrapper_states.read)] * len(scopes)
        each = list(self._call("call", "read_policy_state", phase="policy_state"))
        if not any(each):
            return [{} for _ in scopes]
        pooled = self._call("call", "pool_policy_states", each, list(scopes), phase="pool")
        return [pooled[scope.start] for scope in scopes]

    def put_policy_states(self, states: Sequence[dict[str, Any] | None], scopes: Sequence[slice], *, frozen: bool) -> None:
        """Put such states into the copies of each scope: frozen into every one of them, else a share of it into each."""
        given = [state for state in states if state]
        if given and self.vectorization == "native":
            self._in_native("set_policy_state", wrapper_states.put, given[0], copies=1, frozen=frozen)
        elif given:
            each: list[Any] = [None] * self.num_envs
            for state, scope in zip(states, scopes, strict=True):
                each[scope] = [(state or {}, scope.stop - scope.start)] * (scope.stop - scope.start)
            self._call("call", "put_policy_state", each, frozen, phase="set_policy_state")

    def keep_policy_states(self) -> Any:
        """Return what `put_policy_states` changes, or None if it changes nothing."""
        if self.vectorization == "native":
            return self._in_native("policy_state", wrapper_states.keep) or None
        each = list(self._call("call", "keep_policy_state", phase="policy_state"))
        return each if any(each) else None

    def give_policy_states_back(self, kept: Any) -> None:
        """Put back what `keep_policy_states` returned."""
        if self.vectorization == "native":
            self._in_native("set_policy_state", wrapper_states.give_back, kept)
        else:
            self._call("call", "give_policy_state_back", kept, phase="set_policy_state")

    def wrapper_marks(self) -> list[dict[str, str]]:
        """Return marks per copy, of a native vector environment's wrappers as of one copy."""
        if self.vectorization == "native":
            each = [self._in_native("wrapper_marks", wrapper_marks.marks)]
        else:
            each = list(self._call("call", "read_wrapper_marks", phase="wrapper_marks"))
        return each if any(each) else []

    def _in_native(self, phase: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return `function` of the native vector environment."""
        try:
            with self._time:
                return function(self._venv, *args, **kwargs)
        except BaseException as error:
            self._fail(phase, error)

    def cut_snapshot(self, snapshot: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
        """Return a snapshot per slice of the copies."""
        slices = []
        for end, size in zip(np.cumsum(sizes), sizes, strict=True):
            take = operator.itemgetter(slice(int(end - size), int(end)))
            slices.append({key: self._per_copy(key, take, value) for key, value in snapshot.items()})
        return slices

    def join_snapshots(self, snapshots: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the snapshot of all copies."""
        first, *others = snapshots
        joined = {}
        for key, value in first.items():
            more = [other[key] for other in others]
            joined[key] = self._per_copy(key, lambda *parts: np.concatenate(parts), value, *more)
        return joined | {"copies": [copy for snapshot in snapshots for copy in snapshot["copies"]]}

    def _per_copy(self, key: str, function: Callable[..., Any], value: Any, *more: Any) -> Any:
        """Return `function` of what a snapshot holds per copy under `key`; what it holds once stays."""
        if value is None or key == "timestep" or (key == "copies" and more):
            return value
        return spaces.map_arrays(function, value, *more)

    def partition(self, sizes: Sequence[int]) -> list[Callable[[], "EnvWrapper"]] | None:
        """Return a factory per slice; None for a native vector environment, which can't be split."""
        if self.vectorization == "native":
            return None
        first = int(self._arguments["first_copy"])
        parts: list[Callable[[], EnvWrapper]] = []
        for size in sizes:
            cfg = {**asdict(self.cfg), "num_envs": int(size)}
            arguments = {**self._arguments, "first_copy": first}
            parts.append(functools.partial(make_slice, type(self), self._registration(), cfg, arguments))
            first += int(size)
        return parts

    def _registration(self) -> Any:
        """Return the spec of an id that another process may not know: a plugin or a script may have registered it."""
        return None if self._arguments["make"] is not None or ":" in self.cfg.id else find_spec(self.cfg.id)

    def info(self) -> dict[str, Any]:
        """Say how the copies are stepped and by which versions."""
        import gymnasium

        versions = {"gymnasium": gymnasium.__version__, "numpy": np.__version__}
        for package in ("mujoco", "Box2D", "ale_py", "cv2"):
            if package in sys.modules:
                versions[package] = str(getattr(sys.modules[package], "__version__", "unknown"))
        return {"vectorization": self.vectorization, "resets_single_copies": self._resets_copies, "versions": versions}

    def notes(self) -> list[str]:
        """Say which wrappers go around the copies."""
        typed = [str(entry) for entry in self._wrappers if entry.key.startswith(wrapping.KEY)]
        return [f"env.wrappers: {', '.join(typed)}"] if typed else []

    def _cast(self, actions: Any) -> Any:
        """Return actions in the dtype that the space says; an agent knows int64, float32 and float64 only."""
        return actions if self.action_space.dtype is None else np.asarray(actions, self.action_space.dtype)

    def _arrange(self, observations: Any) -> Arrays:
        """Return observations as an array or a flat dict; unless async, the next ones may be written into the arrays given."""
        arrays = observations if "" in self._leaves else spaces.flatten(self.observation_space, observations)
        return arrays if self.vectorization == "async" else spaces.map_arrays(np.array, arrays)

    # -- making --------------------------------------------------------------------------------------------------------

    def _recipe(self) -> tuple[dict[str, Any], list[wrapping.Entry]]:
        """Return what goes to `gymnasium.make`, and what goes around each copy."""
        return dict(self.cfg.kwargs), wrapping.as_entries(self.cfg.wrappers, wrapping.GYMNASIUM)

    def _make(self, make: Callable[[], Any] | None, render_mode: str | None) -> Any:
        import gymnasium
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode

        if self.vectorization == "native":
            return self._make_native(render_mode)
        window = render_mode == "human"  # there is one: copy 0's
        modes = [render_mode if i == 0 or not window else None for i in range(self.num_envs)]
        spec = self._registration() if self.vectorization == "async" else None
        makes = [make or functools.partial(make_by_id, self.cfg.id, self._kwargs, mode, spec) for mode in modes]
        first, limit, checks = int(self._arguments["first_copy"]), self._time, self.vectorization == "async"
        labels = [
            f"env.id={self.cfg.id}: copy {first + i}: {{}}: {limit.text}" if isinstance(limit, Limit) else ""
            for i in range(self.num_envs)
        ]
        copies = [functools.partial(make_copy, make, i, labels[i], checks, self._wrappers) for i, make in enumerate(makes)]
        if self.vectorization == "async":
            refuse_while_importing()
            self._check_portable(copies[0])
            # fork hangs once torch or jax has computed in this process
            method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            gymnasium.logger.min_level = gymnasium.logger.ERROR + 1  # its workers' errors are told once, by us
            self._stacks = tempfile.mkdtemp(prefix="rltrain-")
            worker = functools.partial(work, self._stacks, known(), self.seeds)
            self._venv = AsyncVectorEnv.__new__(AsyncVectorEnv)  # known before it starts processes, so that close() ends them
            with known_start_method():
                self._venv.__init__(copies, context=method, autoreset_mode=AutoresetMode.DISABLED, worker=worker)
            return self._venv
        return make_sync(copies)

    def _check_portable(self, make: Callable[[], Any]) -> None:
        """Raise ConfigError if what makes a copy can't be sent to a process."""
        from cloudpickle import dumps  # Gymnasium's own way, which takes classes and functions of a script

        try:
            dumps(make)
        except Exception as error:
            what = f"{self.cfg.id} can't be sent to the processes of its copies ({said(error)})"
            raise ConfigError("env.vectorization", "async", f"{what}; register it by 'module:Class', or use sync") from error

    def _make_native(self, render_mode: str | None) -> Any:
        import gymnasium

        spec = find_spec(self.cfg.id)
        if spec.vector_entry_point is None:
            raise ConfigError("env.vectorization", "native", f"{self.cfg.id} has no vector entry point; use sync or async")
        kwargs = {**self._kwargs, **({"render_mode": render_mode} if render_mode else {})}
        known = as_gymnasium(self.cfg.id, spec)
        venv = gymnasium.make_vec(known, self.num_envs, vectorization_mode="vector_entry_point", **kwargs)
        self._made = remember(venv)
        return venv

    def _find_state_space(self) -> Any:
        if self.vectorization == "native":
            return getattr(self._venv, "single_state_space", None)
        return self._call("call", "read_state_space", phase="make")[0]

    def _probe_reset_mask(self) -> bool:
        """Find out whether `reset_mask` resets the masked copies and no others; without that the mode must be NEXT_STEP."""
        from gymnasium.vector import AutoresetMode

        mode = self._venv.metadata.get("autoreset_mode")
        if self.vectorization != "native":
            return True  # Sync and Async were told DISABLED above, where the mask is part of the contract
        if mode == AutoresetMode.NEXT_STEP:
            return False
        if mode == AutoresetMode.DISABLED and self.num_envs == 1:
            return True  # whatever the mask, there is no other copy
        if mode == AutoresetMode.DISABLED:
            before = self._arrange(self._call("reset", seed=1)[0])
            mask = np.arange(self.num_envs) == 0
            after = self._arrange(self._call("reset", options={"reset_mask": mask})[0])
            same = np.ones(self.num_envs, bool)
            for path, array in spaces.named(before, "").items():
                same &= (array == spaces.named(after, "")[path]).reshape(self.num_envs, -1).all(axis=1)
            if same[1:].all() and not same[0]:
                return True
        mode = getattr(mode, "value", mode)
        raise ConfigError(
            "env.vectorization",
            "native",
            f"{self.cfg.id} resets its copies in mode {mode}, which hides true successors; use sync or async",
        )

    # -- faults --------------------------------------------------------------------------------------------------------

    def _call(self, method: str, *args: Any, phase: str = "", **kwargs: Any) -> Any:
        """Call the vector environment; a failure names copy, id, phase and step."""
        try:
            if self.vectorization != "async":
                with self._time:
                    answer = getattr(self._venv, method)(*args, **kwargs)
                native = self.vectorization == "native" and method != "render"
                wrong = native and why_not_batch(self._venv.observation_space, self.num_envs, method, answer)
                if wrong:
                    raise EnvironmentFailure(f"env.id={self.cfg.id}: {method} at step {self._timestep}: {wrong}")
                return answer
            getattr(self._venv, f"{method}_async")(*args, **kwargs)
            return getattr(self._venv, f"{method}_wait")(self.cfg.timeout or ASYNC_TIMEOUT)
        except BaseException as error:
            self._fail(phase or method, error)

    def _fail(self, phase: str, error: BaseException) -> NoReturn:
        """Raise EnvironmentFailure for what was raised; one of our own errors, and what comes from a signal, as they are."""
        if isinstance(error, RltrainError) or comes_from_signal(error):
            raise error
        if isinstance(error, CopyError) and error.own is not None:
            raise error.own from error
        raise self._failure(phase, error) from error

    def _failure(self, phase: str, error: BaseException) -> EnvironmentFailure:
        """Return the error to raise: which copy, in what phase, at what step, and why."""
        self._broken = True
        where, when, first = f"env.id={self.cfg.id}", f"at step {self._timestep}", int(self._arguments["first_copy"])
        if isinstance(error, CopyError):
            trace = f"\n{error.trace}" if error.trace else ""
            return EnvironmentFailure(f"{where}: copy {first + error.copy}: {error.phase or phase} {when}: {error.reason}{trace}")
        if isinstance(error, multiprocessing.TimeoutError):
            silent = [first + i for i, pipe in enumerate(self._venv.parent_pipes) if pipe is not None and not pipe.poll()]
            text = (
                f"{where}: copy {', '.join(map(str, silent))}: {phase} {when}: no answer in "
                f"{self.cfg.timeout or ASYNC_TIMEOUT:g} s (env.timeout)"
            )
            return EnvironmentFailure(text + dump_stacks(self._venv, [i - first for i in silent], self._stacks))
        processes = [process for process in getattr(self._venv, "processes", []) if process.pid is not None]
        if processes and isinstance(error, EOFError | OSError):
            # a dying process closes its pipe just before it ends
            multiprocessing.connection.wait([process.sentinel for process in processes], 1.0)
            dead = [f"{first + i} (exit code {p.exitcode})" for i, p in enumerate(processes) if not p.is_alive()]
            if any(process.exitcode == BY_IMPORT for process in processes):
                return EnvironmentFailure(f"{where}: {ONE_SENTENCE}")
            if dead:
                return EnvironmentFailure(f"{where}: copy {', '.join(dead)}: {phase} {when}: its process ended")
        return EnvironmentFailure(f"{where}: {phase} {when}: {said(error)}")


def make_slice(kind: type[GymnasiumEnv], spec: Any, cfg: dict[str, Any], arguments: dict[str, Any]) -> GymnasiumEnv:
    """Return a slice of an environment in whichever process; `spec` registers its id where it isn't known."""
    register(spec)
    return kind(cfg, **arguments)
