"""What a functional environment says, checked as it is traced: whatever doesn't fit is told in one sentence."""

import os
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rltrain import spaces
from rltrain.envs.functional import Functional
from rltrain.errors import EnvironmentFailure, RltrainError, said
from rltrain.signals import comes_from_signal
from rltrain.structures import Array, Arrays

NUMBERS, WHOLE, FLAGS = "number", "whole number", "bool"
TRACER_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class CheckedEnv:
    """One copy of a functional environment whose answers are checked whenever a program is made of them; nothing is at run time.

    Raises EnvironmentFailure that names environment, function, what was expected and what it got, or what the environment
    itself raised.
    """

    def __init__(self, env: Functional, name: str) -> None:
        self.env, self.name = env, name
        self.members = tuple(getattr(env, "members", ()))

    def trace(self) -> None:
        """Go through the environment's functions once without computing anything."""
        key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
        state, _ = jax.eval_shape(self.reset, key)
        for name in ("states", "action_masks", "present"):
            if hasattr(self.env, name) and not (name == "states" and getattr(self.env, "state_space", None) is None):
                jax.eval_shape(getattr(self, name), state)
        if not self.members and self.env.action_space.shape is None:
            return  # a composite one, which no agent acts in
        action = spaces.map_arrays(_abstract, dict(self.env.action_space.spaces) if self.members else self.env.action_space)
        jax.eval_shape(self.step, key, state, action)

    def reset(self, key: Array) -> tuple[Any, Any]:
        """Return state and observation as the environment gives them."""
        state, observation = self._call("reset", 2, "(state, observation)", key)
        _check_state(state, lambda got: self._refuse("reset", "a state of arrays", got))
        self._check_observations("reset", observation)
        return state, observation

    def step(self, key: Array, state: Any, action: Arrays) -> tuple[Any, Any, Any, Any, Any]:
        """Return state, observation, reward, terminated, truncated as the environment gives them."""
        answer = self._call("step", 5, "(state, observation, reward, terminated, truncated)", key, state, action)
        self._compare_states(state, answer[0])
        self._check_observations("step", answer[1])
        for name, kind, value in zip(("reward", "terminated", "truncated"), (NUMBERS, FLAGS, FLAGS), answer[2:], strict=True):
            for key_, own in self._by_member("step", f"{name}s" if name == "reward" else name, value).items():
                self._check("step", f"{name}{key_}", own, (), kind)
        return answer

    def states(self, state: Any) -> Array:
        """Return the privileged state as the environment gives it."""
        found = self._call("states", 1, "", state)
        space = self.env.state_space  # type: ignore[attr-defined]
        self._check("states", "a state", found, space.shape, _kind(space.dtype))
        return found

    def action_masks(self, state: Any) -> Arrays:
        """Return the masks as the environment gives them."""
        found = self._call("action_masks", 1, "", state)
        own = {"": self.env.action_space}
        if self.members:
            if not isinstance(found, dict):
                self._refuse("action_masks", "a dict by member", found)
            own = {f"/{name}": self.env.action_space[name] for name in found if name in self.members}
        for path, space in own.items():
            choices = spaces.choices(space)
            if choices:
                self._check("action_masks", f"a mask{path}", found[path[1:]] if path else found, (sum(choices),), FLAGS)
        return found

    def present(self, state: Any) -> dict[str, Array]:
        """Return who is there, by member, as the environment gives it."""
        found = self._call("present", 1, "", state)
        for path, own in self._by_member("present", "", found).items():
            self._check("present", path[1:], own, (), FLAGS)
        return found

    # -- what is wrong -------------------------------------------------------------------------------------------------

    def _call(self, function: str, parts: int, form: str, *arguments: Any) -> Any:
        """Return what the environment's function says, if it has that many parts."""
        try:
            answer = getattr(self.env, function)(*arguments)
        except RltrainError:
            raise
        except BaseException as error:
            if comes_from_signal(error):
                raise
            reason = (said(error).splitlines() or [""])[0]
            if isinstance(error, TRACER_ERRORS):
                reason = (
                    f"{reason.rstrip('.')}; compiled code has no Python if, int() or NumPy of an array: use jnp.where, jax.numpy"
                )
            error.__traceback__ = users_traceback(error.__traceback__)
            error.__notes__ = [note for note in getattr(error, "__notes__", []) if "JAX has removed" not in note]
            raise EnvironmentFailure(f"env.id={self.name}: {function}: {reason}") from error
        if parts > 1 and not (isinstance(answer, tuple | list) and len(answer) == parts):
            self._refuse(function, f"{parts} values {form}", answer)
        return answer

    def _refuse(self, function: str, expected: str, got: Any) -> None:
        raise EnvironmentFailure(f"env.id={self.name}: {function}: expected {expected}, got {_describe(got)}")

    def _check(self, function: str, what: str, value: Any, shape: tuple[int, ...], kind: str) -> None:
        """Raise unless the value has this very shape and is a number of this kind."""
        if not _is_array(value) or np.shape(value) != tuple(shape) or not _fits(value, kind):
            self._refuse(function, f"{what} of shape {tuple(shape)}, a {kind}", value)

    def _check_observations(self, function: str, observation: Any) -> None:
        space = self.env.observation_space
        if self.members:
            self._by_member(function, "observations", observation)
        try:
            found = spaces.named(spaces.flatten(space, observation), "observation")
        except (KeyError, IndexError, TypeError) as error:
            missing = f" without {error.args[0]!r}" if isinstance(error, KeyError) else ""
            raise EnvironmentFailure(
                f"env.id={self.name}: {function}: expected an observation of {space}, got {_describe(observation)}{missing}"
            ) from None
        wanted = spaces.named({path: leaf for path, leaf in spaces.leaves(space).items()}, "observation")
        for path, leaf in wanted.items():
            path = path.rstrip("/")
            self._check(function, path, found[path], leaf.shape, _kind(leaf.dtype))

    def _by_member(self, function: str, what: str, found: Any) -> dict[str, Any]:
        """Return what belongs to each member by /name, or of an environment without members the one value."""
        if not self.members:
            return {"": found}
        where = f"{function}: {what}".rstrip(": ")
        if not isinstance(found, dict):
            raise EnvironmentFailure(f"env.id={self.name}: {where}: expected a dict by member, got {_describe(found)}")
        missing = [name for name in self.members if name not in found]
        if missing:
            raise EnvironmentFailure(
                f"env.id={self.name}: {where}: nothing of {', '.join(missing)}; a functional environment gives every member's in "
                "every step, and says by present(state) who is there"
            )
        return {f"/{name}": found[name] for name in self.members}

    def _compare_states(self, before: Any, after: Any) -> None:
        """Raise unless a state is of the same structure, shapes and dtypes as the one before."""
        structure: Any
        other: Any
        wanted, structure = jax.tree_util.tree_flatten_with_path(before)
        found, other = jax.tree.flatten(after)
        if structure != other:
            raise EnvironmentFailure(
                f"env.id={self.name}: step: expected a state of the structure that it was given, {_short(structure)}, "
                f"got {_short(other)}"
            )
        for (path, old), new in zip(wanted, found, strict=True):
            if not _is_array(new) or (np.shape(new), _dtype(new)) != (np.shape(old), _dtype(old)):
                self._refuse("step", f"state{jax.tree_util.keystr(path)} as it was given, {_describe(old)}", new)


def users_traceback(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """Return a traceback without the frames of JAX and of rltrain's own tracing; all of it if no other frame is there."""
    own = (os.path.dirname(jax.__file__) + os.sep, __file__)
    kept, frame = [], traceback
    while frame is not None:
        if not frame.tb_frame.f_code.co_filename.startswith(own):
            kept.append(frame)
        frame = frame.tb_next
    shortened = None
    for frame in reversed(kept):
        shortened = types.TracebackType(shortened, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shortened or traceback


def _abstract(space: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(space.shape or (), jax.dtypes.canonicalize_dtype(space.dtype))


def _is_array(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.generic | np.ndarray | jax.Array)


def _dtype(value: Any) -> Any:
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return dtype if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else jax.dtypes.canonicalize_dtype(dtype)


def _kind(dtype: Any) -> str:
    kind = np.dtype(dtype).kind
    return {"b": FLAGS, "i": WHOLE, "u": WHOLE}.get(kind, NUMBERS)


def _fits(value: Any, kind: str) -> bool:
    """Tell whether an array is of the kind or of one that it holds: a bool is 0 or 1, a whole number is a number."""
    dtype = _dtype(value)
    held = {NUMBERS: (np.floating, np.integer, np.bool_), WHOLE: (np.integer, np.bool_), FLAGS: (np.integer, np.bool_)}[kind]
    return any(jax.dtypes.issubdtype(dtype, one) for one in held)


def _check_state(state: Any, refuse: Callable[[Any], None]) -> None:
    for leaf in jax.tree.leaves(state):
        if not _is_array(leaf):
            refuse(leaf)


def _describe(value: Any) -> str:
    """Say what a value is: float32 (2,), or 4 values, or a str."""
    if _is_array(value):
        return f"{_dtype(value)} {np.shape(value)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values in a {type(value).__name__}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _short(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
    return text if len(text) <= 80 else text[:77] + "..."
