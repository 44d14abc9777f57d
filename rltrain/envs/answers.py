"""What one copy of an environment must answer to reset and step, and what is said of an answer that is something else.

One rule for every wrapper, for training and evaluation, for the first reset and any later step: observations have the structure,
shape and dtype of their space, rewards are one number, flags are booleans, infos are a dict. Nothing is cast or broadcast. Values
outside their space are looked for in whole batches (`rltrain.envs.ranges`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

FLAGS = frozenset({bool, np.bool_})
INTEGERS = frozenset({int, *(np.dtype(code).type for code in "bhilqBHILQ")})
NUMBERS = frozenset({float, *FLAGS, *INTEGERS, *(np.dtype(code).type for code in "efdg")})
SUCCESS = "is_success"  # of `infos`: tells evaluations of an episode's success


def fitting(space: Any) -> Callable[[Any], bool]:
    """Return a quick check of observations; where it says no, `why_not_in` has the last word."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Dict):
        parts = {key: fitting(part) for key, part in space.spaces.items()}
        return lambda value: (
            type(value) is dict and value.keys() == parts.keys() and all(fits(value[key]) for key, fits in parts.items())
        )
    if isinstance(space, gymnasium.spaces.Tuple):
        items = [fitting(part) for part in space.spaces]
        return lambda value: (
            type(value) is tuple and len(value) == len(items) and all(fits(part) for fits, part in zip(items, value, strict=True))
        )
    if isinstance(space, gymnasium.spaces.Discrete):
        held = np.iinfo(space.dtype)
        low, high = int(held.min), int(held.max)
        kinds = frozenset(kind for kind in INTEGERS - {int} if np.can_cast(kind, space.dtype))
        return lambda value: type(value) in kinds or (type(value) is int and low <= value <= high)
    shape, dtype = space.shape, space.dtype
    return lambda value: type(value) is np.ndarray and value.shape == shape and value.dtype is dtype


def why_not_in(space: Any, observation: Any, path: str = "") -> str:
    """Say what is wrong with an observation, or nothing."""
    import gymnasium

    at = f" {path!r}" if path else ""
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        form: Any = dict if isinstance(space, gymnasium.spaces.Dict) else tuple
        keys: list[Any] = list(space.spaces) if form is dict else list(range(len(space.spaces)))
        if not isinstance(observation, dict if form is dict else tuple | list):
            return f"expected observations{at} in a {form.__name__}, got {kind(observation)}"
        given = list(observation) if form is dict else list(range(len(observation)))
        if set(given) != set(keys):
            return f"expected observations{at} in a {form.__name__} with {keys}, got one with {given}"
        parts = (why_not_in(space[key], observation[key], f"{path}/{key}" if path else str(key)) for key in keys)
        return next(filter(None, parts), "")
    if isinstance(space, gymnasium.spaces.Discrete) or space.shape is None or space.dtype is None or space.shape == ():
        return (
            "" if _is_single(space, observation) else f"expected observations{at} in {space}, got {kind(observation, show=True)}"
        )
    if isinstance(observation, np.ndarray) and (observation.shape, observation.dtype) == (space.shape, space.dtype):
        return ""
    return f"expected observations{at} {space.dtype} {space.shape}, got {kind(observation)}"


def why_not_reset(space: Any, answer: Any) -> str:
    """Say what is wrong with what `reset` answered, or nothing."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return f"expected (observation, infos), got {_count(answer)}"
    return why_not_in(space, answer[0]) or why_not_infos(answer[1])


def why_not_step(space: Any, answer: Any) -> str:
    """Say what is wrong with what `step` answered, or nothing."""
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        return f"expected (observation, reward, terminated, truncated, infos), got {_count(answer)}"
    observation, reward, terminated, truncated, infos = answer
    return why_not_in(space, observation) or why_not_outcome(reward, terminated, truncated) or why_not_infos(infos)


def why_not_outcome(reward: Any, terminated: Any, truncated: Any) -> str:
    """Say what is wrong with a reward or a flag, or nothing."""
    if not _is_number(reward):
        return f"expected the reward as one number, got {kind(reward, show=True)}"
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) not in FLAGS and not (
            getattr(flag, "shape", None) == () and str(getattr(flag, "dtype", "")).endswith("bool")
        ):
            return f"expected {name} as true or false, got {kind(flag, show=True)}"
    return ""


def why_not_batch(space: Any, copies: int, phase: str, answer: Any) -> str:
    """Say what is wrong with what a vector environment answered to `phase`, reset or step, or nothing."""
    count, names = (2, "observations, infos") if phase == "reset" else (5, "observations, rewards, terminated, truncated, infos")
    if not isinstance(answer, tuple | list) or len(answer) != count:
        return f"expected ({names}), got {_count(answer)}"
    observations, *outcomes, infos = answer
    for name, rows in zip(("rewards", "terminated", "truncated"), outcomes, strict=False):
        kinds, wanted = ("biuf", "numbers") if name == "rewards" else ("b", "booleans")
        array = np.asarray(rows)
        if array.shape != (copies,) or array.dtype.kind not in kinds:
            return f"expected {name} as {wanted} ({copies},), got {kind(array)}"
    if not isinstance(infos, dict):
        return f"expected infos in a dict, got {kind(infos, show=True)}"
    if SUCCESS in infos and (np.shape(infos[SUCCESS]) != (copies,) or np.asarray(infos[SUCCESS]).dtype.kind not in "biuf"):
        return f"expected infos['{SUCCESS}'] as numbers ({copies},), got {kind(np.asarray(infos[SUCCESS]))}"
    return why_not_in(space, _in_numpy(observations))


def _in_numpy(batch: Any) -> Any:
    """Return a batch with the arrays of other libraries, which Gymnasium's own JAX environments answer with, as NumPy's."""
    if isinstance(batch, dict):
        return {key: _in_numpy(part) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(map(_in_numpy, batch))
    return np.asarray(batch) if hasattr(batch, "__array__") else batch


def why_not_infos(infos: Any) -> str:
    """Say what is wrong with infos, or nothing."""
    if not isinstance(infos, dict):
        return f"expected infos in a dict, got {kind(infos, show=True)}"
    if SUCCESS in infos and not _is_number(infos[SUCCESS]):
        return f"expected infos['{SUCCESS}'] as true or false, got {kind(infos[SUCCESS], show=True)}; leave it out where unknown"
    return ""


def kind(value: Any, *, show: bool = False) -> str:
    """Say what something is: dtype and shape, or type; `show` small values themselves."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if value is None or (show and isinstance(value, str | int | float | np.generic)):
        return repr(value)[:80]
    return type(value).__name__


def _is_single(space: Any, value: Any) -> bool:
    """Tell whether a value is one that a space without dimensions holds, be it in its range or not."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        if not isinstance(value, int) and (getattr(value, "shape", None) != () or np.asarray(value).dtype.kind not in "iu"):
            return False
        held = np.iinfo(space.dtype)
        return held.min <= int(value) <= held.max
    if not isinstance(space, gymnasium.spaces.Box):
        return space.contains(value)  # of a kind unknown here
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value, space.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return array.shape == () and np.can_cast(array.dtype, space.dtype)


def _is_number(value: Any) -> bool:
    if type(value) in NUMBERS:
        return not isinstance(value, int) or abs(value) < 2**1023  # more has no float
    return getattr(value, "shape", None) == () and getattr(np.asarray(value), "dtype", np.dtype(object)).kind in "biuf"


def _count(answer: Any) -> str:
    return f"{len(answer)} items" if isinstance(answer, tuple | list) else kind(answer)
