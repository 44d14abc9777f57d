"""Single copies of Gymnasium environments, made in whichever process, their failures told with their number."""

import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.confidential import learn
from rltrain.envs import wrapper_marks, wrapper_states, wrapping
from rltrain.envs.answers import FLAGS, NUMBERS, SUCCESS, fitting, why_not_reset, why_not_step
from rltrain.envs.own_process import in_own_process, seed_process
from rltrain.envs.snapshots import put_snapshot, remember, take_snapshot
from rltrain.errors import RltrainError, portable, said
from rltrain.hangs import name_in_dumps
from rltrain.processes import leave_signals_to_parent, start_as_usual, watch_parent
from rltrain.signals import comes_from_signal


class CopyError(Exception):
    """A copy raised. Travels between processes as text, whatever the original exception held."""

    def __init__(self, payload: "tuple[int, str, str, str] | CopyError", own: RltrainError | None = None) -> None:
        # AsyncVectorEnv raises the type again with the value as its only argument; `own` is one of ours that this stands for
        self.payload: tuple[int, str, str, str] = payload.payload if isinstance(payload, CopyError) else payload
        self.own: RltrainError | None = payload.own if isinstance(payload, CopyError) else own
        self.copy, self.phase, self.reason, self.trace = self.payload
        super().__init__(self.payload, self.own)


class TellsCopies:
    """Stands for the queue on which Gymnasium's worker tells its errors: whatever they are, they arrive as CopyError.

    Otherwise one that can't be pickled, or made of one argument, would never arrive.
    """

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, failure: tuple[int, type, BaseException, str]) -> None:
        """Send (copy, kind, error, traceback)."""
        index, _, error, trace = failure
        if not isinstance(error, CopyError):
            error = CopyError((index, "", said(error), trace), portable(error))
        self.queue.put((index, CopyError, error, trace))


def make_copy(
    make: Callable[[], Any], index: int, label: str = "", checks: bool = True, wrappers: Sequence[wrapping.Entry] = ()
) -> Any:
    """Make copy `index`, in whichever process; its errors carry its number. Unless it `checks` its steps, who steps it does.

    With a label, a dump of stacks shows it, the phase put in for {}. `wrappers` go around what `make` returns.
    """
    import gymnasium

    class Copy(gymnasium.Wrapper):
        """One copy: tells which copy failed, and takes and puts snapshots in the copy's own process."""

        failed = False

        def __init__(self, env: Any, names: dict[int, str]) -> None:
            super().__init__(env)
            self.names = names  # of the wrappers that the configuration names
            self.made = remember(env)

        @contextmanager
        def told(self, phase: str) -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                self.failed = True
                raise as_copy_error(index, phase, error, self.names) from None

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
            with self.told("reset"):
                answer = self.env.reset(seed=seed, options=options)
            if wrappers:
                answer = in_arrays(answer)
            self.check("reset", why_not_reset(space, answer))
            return answer

        def step(self, action: Any) -> Any:
            try:  # quicker than with `told`
                answer = self.env.step(action)
            except BaseException as error:
                self.failed = True
                raise as_copy_error(index, "step", error, self.names) from None
            if wrappers:
                answer = in_arrays(answer)
            if checks:
                self.check("step", why_not_step(space, answer))
            return answer

        def check(self, phase: str, wrong: str) -> None:
            if wrong:
                self.failed = True
                raise CopyError((index, phase, wrong, ""))

        def render(self) -> Any:
            with self.told("render"):
                return self.env.render()

        def draw_copy(self, copy: int) -> Any:
            return self.render() if copy == index else None

        def close(self) -> None:
            try:
                self.env.close()
            except BaseException as error:
                error = as_copy_error(index, "close", error, self.names)
                if not self.failed or not isinstance(error, CopyError):  # an error in close never hides the first
                    raise error from None

        def read_state_space(self) -> Any:
            with self.told("make"), suppress(AttributeError):
                return self.env.get_wrapper_attr("state_space")
            return None

        def read_attribute(self, name: str) -> Any:
            with self.told(f"get_attr {name}"):
                value = self.env.get_wrapper_attr(name)
                return value() if callable(value) else value

        def read_time_limit(self) -> int | None:
            limits, env = [], self.env
            while isinstance(env, gymnasium.Wrapper):
                if isinstance(env, gymnasium.wrappers.TimeLimit):
                    limits.append(int(env._max_episode_steps))
                env = env.env
            return min(limits, default=None)

        def put_attribute(self, name: str, values: list[Any]) -> None:
            with self.told(f"set_attr {name}"):
                self.env.get_wrapper_attr(name)  # a name that isn't there is an error, no new attribute
                self.env.set_wrapper_attr(name, values[index])

        def snapshot_copy(self) -> dict[str, Any] | None:
            with self.told("snapshot"):
                return take_snapshot(self.env, self.made)

        def restore_copy(self, snapshots: list[dict[str, Any]]) -> None:
            with self.told("restore"):
                put_snapshot(self.env, snapshots[index], self.made)

        def read_policy_state(self) -> dict[str, Any]:
            with self.told("policy_state"):
                return wrapper_states.read(self.env)

        def pool_policy_states(self, each: list[dict[str, Any]], scopes: list[slice]) -> dict[str, Any] | None:
            """Return the states of a scope as one, in its first copy."""
            with self.told("pool"):
                return next((wrapper_states.pool(self.env, each[own]) for own in scopes if own.start == index), None)

        def put_policy_state(self, each: list[tuple[dict[str, Any], int]], frozen: bool) -> None:
            with self.told("set_policy_state"):
                states, copies = each[index]
                wrapper_states.put(self.env, states, copies=copies, frozen=frozen)

        def read_wrapper_marks(self) -> dict[str, str]:
            with self.told("wrapper_marks"):
                return wrapper_marks.marks(self.env)

        def keep_policy_state(self) -> dict[str, Any]:
            with self.told("policy_state"):
                return wrapper_states.keep(self.env)

        def give_policy_state_back(self, each: list[dict[str, Any]]) -> None:
            with self.told("set_policy_state"):
                wrapper_states.give_back(self.env, each[index])

    def made() -> Any:
        return wrapping.wrap(make(), wrappers, wrapping.GYMNASIUM)

    if label:
        for function, phase in ((made, "make"), (Copy.reset, "reset"), (Copy.step, "step"), (Copy.close, "close")):
            name_in_dumps(function, label.format(phase))
    try:
        copy = Copy(*made())
        space = copy.observation_space
        return copy
    except BaseException as error:
        raise as_copy_error(index, "make", error) from None


def make_sync(makes: Sequence[Callable[[], Any]]) -> Any:
    """Return copies that are stepped one after the other, Gymnasium's but for `step`."""
    import gymnasium
    from gymnasium.vector import AutoresetMode, SyncVectorEnv
    from gymnasium.vector.utils import concatenate, iterate

    class Copies(SyncVectorEnv):
        """Steps without asking each time how episodes end and what kind of space it is: CartPole's takes 15 % less."""

        def __init__(self) -> None:
            super().__init__(makes, copy=False, autoreset_mode=AutoresetMode.DISABLED)
            space = self.single_observation_space
            self._form = (space.shape, space.dtype) if isinstance(space, gymnasium.spaces.Box) else (None, None)
            self._fits = fitting(space)

        def step(self, actions: Any) -> Any:
            observations: list[Any] = self._env_obs
            rewards, terminated, truncated = self._rewards, self._terminations, self._truncations
            infos: dict[str, Any] = {}
            joined: Any = self._observations  # whoever keeps them copies them, as after a reset
            (shape, dtype), fits, array = self._form, self._fits, np.ndarray
            each = actions if isinstance(actions, np.ndarray) else iterate(self.action_space, actions)
            for i, (env, action) in enumerate(zip(self.envs, each, strict=True)):
                answer = env.step(action)
                try:
                    observation, reward, ended, cut, info = answer
                    if type(reward) not in NUMBERS or type(ended) not in FLAGS or type(cut) not in FLAGS:
                        self._check(i, answer)
                    if type(observation) is array and observation.shape == shape and observation.dtype is dtype:
                        joined[i] = observation
                    elif shape is not None or not fits(observation):
                        self._check(i, answer)
                        if shape is not None:
                            joined[i] = observation
                    observations[i], rewards[i], terminated[i], truncated[i] = observation, reward, ended, cut
                    if type(info) is not dict or SUCCESS in info:
                        self._check(i, answer)
                    if info:
                        infos = self._add_info(infos, info, i)
                except (TypeError, ValueError, OverflowError) as error:
                    self._check(i, answer)
                    raise CopyError((i, "step", said(error), "")) from error
            if shape is None:
                self._observations = joined = concatenate(self.single_observation_space, observations, joined)
            return joined, rewards, terminated.copy(), truncated.copy(), infos

        def _check(self, i: int, answer: Any) -> None:
            copy: Any = self.envs[i]
            copy.check("step", why_not_step(self.single_observation_space, answer))

    return Copies()


def in_arrays(answer: Any) -> Any:
    """Return what a copy within wrappers answered, its observation in arrays; who checks answers says what is wrong with it."""
    if isinstance(answer, tuple) and answer and type(answer[0]) is not np.ndarray:
        return (wrapping.in_arrays(answer[0]), *answer[1:])
    return answer


def as_copy_error(index: int, phase: str, error: BaseException, names: Mapping[int, str] | None = None) -> BaseException:
    """Return what to raise for what a copy's code raised, SystemExit and KeyboardInterrupt too: a CopyError.

    One of our own errors, and what comes from a signal, stay as they are. `names` are those of its wrappers.
    """
    if isinstance(error, RltrainError | CopyError) or comes_from_signal(error):
        return error
    return CopyError((index, phase, wrapping.blame(error, names or {}) + said(error), traceback.format_exc()))


def work(
    stacks: str, secrets: Sequence[str], seeds: list[int] | None, index: int, make: Callable[[], Any], pipe: Any, *others: Any
) -> None:
    """Run one copy in its own process: Gymnasium's worker, but errors in make and close reach the parent too."""
    import gymnasium
    from gymnasium.vector.async_vector_env import _async_worker

    learn(secrets)
    leave_signals_to_parent()
    start_as_usual()
    watch_parent()  # a copy that hangs doesn't see that its pipe is closed
    with suppress(OSError):
        faulthandler.register(signal.SIGUSR2, open(Path(stacks) / str(index), "w"))  # noqa: SIM115
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
    error_queue = TellsCopies(others[2])
    others = (*others[:2], error_queue, *others[3:])
    if seeds is not None:
        seed_process(seeds[index])
    try:
        copy = in_own_process(make(), index)
    except BaseException as error:
        error_queue.put((index, type(error), error, traceback.format_exc()))
        pipe.recv()
        pipe.send((None, False))
        return
    try:
        _async_worker(index, lambda: copy, pipe, *others)
    except BaseException as error:
        error_queue.put((index, type(error), error, traceback.format_exc()))
        with suppress(OSError):
            pipe.send((None, False))


def dump_stacks(venv: Any, copies: list[int], stacks: str | None) -> str:
    """Ask copies that hang where they are; return what they answer within a second."""
    found = []
    for i in copies:
        with suppress(OSError, TypeError):
            os.kill(venv.processes[i].pid, signal.SIGUSR2)
            path, deadline = Path(stacks or "") / str(i), time.monotonic() + 1.0
            while not (text := path.read_text()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)  # it may still be writing
            found.append(f"\ncopy {i} hangs here:\n{path.read_text() or text}")
    return "".join(found)


def end_processes(venv: Any) -> None:
    """End every process of an async vector environment, whatever it is doing."""
    processes = [process for process in getattr(venv, "processes", []) if process.pid is not None]
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for pipe in getattr(venv, "parent_pipes", []):
        if pipe is not None:
            pipe.close()
    venv.closed = True
