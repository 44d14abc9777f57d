"""Settings as dataclasses: each field has a default, a type, bounds and one sentence; `build` checks plain data against them.

No Hydra and no OmegaConf here: a dict from YAML, from a checkpoint or from a caller is treated alike.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rltrain.errors import ConfigError, nearest

T = TypeVar("T")


class Spelled(str):
    """A value that only could be text where it was given, as an environment variable is; a field takes it as what it spells."""

    def read(self, kind: type) -> Any:
        """Return the number, boolean or None that this spells, or itself."""
        text = self.strip().lower()
        if text in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[text]
        try:
            number = float(text)
        except ValueError:
            return str(self)
        if kind is float:
            return number
        return int(text) if text.lstrip("+-").isdigit() else int(number) if number.is_integer() else number


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
    fixed: bool = False,
) -> Any:
    """Declare a field: `low` and `high` are allowed, `above` and `below` are not; of a list they hold for each item.

    A `fixed` setting belongs to a run from its start to its end: a resume can't change it.
    """
    metadata = {"doc": doc, "low": low, "high": high, "above": above, "below": below, "choices": choices, "fixed": fixed}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, doc: str, *, fixed: bool = False) -> Any:
    """Declare a field that is a dataclass of settings itself."""
    return dataclasses.field(default_factory=cls, metadata={"doc": doc, "fixed": fixed})


def changed_fixed(old: Any, new: Any, key: str = "", *, fixed: bool = False) -> tuple[str, Any, Any] | None:
    """Return (key, new value, old value) of the first `fixed` setting in which two checked dataclasses differ."""
    for f in dataclasses.fields(old):
        name, before, now = _join(key, f.name), getattr(old, f.name), getattr(new, f.name)
        here = fixed or bool(f.metadata.get("fixed"))
        if dataclasses.is_dataclass(before) and type(before) is type(now):
            found = changed_fixed(before, now, name, fixed=here)
            if found is not None:
                return found
        elif here and before != now:
            return name, now, before
    return None


def defaults(cls: type) -> dict[str, Any]:
    """Return a dataclass's defaults as plain data."""
    return dataclasses.asdict(cls())


def build(cls: type[T], given: Mapping[str, Any] | T | None, key: str = "") -> T:
    """Make a checked instance of dataclass `cls` from plain data; `key` is the dotted name of the section, for errors.

    Raises ConfigError: an unknown key, a wrong type, a value out of bounds or not finite.
    """
    if given is None:
        given = {}
    if isinstance(given, cls):
        cls, given = type(given), dataclasses.asdict(given)  # type: ignore[call-overload]
    if not isinstance(given, Mapping):
        raise ConfigError(key, given, f"must be a mapping with keys {', '.join(f.name for f in dataclasses.fields(cls))}")  # type: ignore[arg-type]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in given:
        if name not in fields:
            raise ConfigError(_join(key, name), given[name], f"no such key; {nearest(str(name), fields)}")
    hints = get_type_hints(cls)
    values = {name: check(given[name], hints[name], fields[name], _join(key, name)) for name in given}
    instance = cls(**values)
    if hasattr(instance, "check"):
        instance.check(key)
    return instance


def check(value: Any, hint: Any, field: dataclasses.Field, key: str) -> Any:
    """Return `value` converted to type `hint`, or raise ConfigError saying what is allowed."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(value, Spelled) and (hint in (int, float, bool) or (type(None) in args and value.read(str) is None)):
        value = value.read(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        alternatives = [arg for arg in args if arg is not type(None)]
        for arg in alternatives[:-1]:
            try:
                return check(value, arg, field, key)
            except ConfigError:
                continue
        if len(alternatives) > 1:
            try:
                return check(value, alternatives[-1], field, key)
            except ConfigError:
                raise ConfigError(key, value, _expected(hint, field)) from None
        return _optional(value, alternatives[0], field, key)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if hint is Any:
        return _as_text(value)
    if origin is list:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise ConfigError(key, value, _expected(hint, field))
        return [check(item, args[0], field, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise ConfigError(key, value, _expected(hint, field))
        return _as_text(dict(value))
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool) and _within(value, field):
            return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and _within(value, field):
            return float(value)
    elif hint is Callable:
        if callable(value):
            return value
    elif hint is str:
        choices = field.metadata.get("choices")
        if isinstance(value, bool) and choices:
            value = str(value).lower()  # YAML reads `true` where a choice of that name is meant
        if isinstance(value, str) and (value in choices if choices else value != ""):
            return str(value)
        if choices and isinstance(value, str):
            raise ConfigError(key, value, f"unknown; {nearest(value, choices)}")
    raise ConfigError(key, value, _expected(hint, field))


def _as_text(value: Any) -> Any:
    """Return data in which what may spell something is the text that it is."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list) else str(value) if isinstance(value, Spelled) else value


def _optional(value: Any, hint: Any, field: dataclasses.Field, key: str) -> Any:
    try:
        return check(value, hint, field, key)
    except ConfigError as error:
        if error.key == key and error.message.startswith("must be"):
            raise ConfigError(key, value, error.message + " or null") from None
        raise


def _within(value: float, field: dataclasses.Field) -> bool:
    bounds = field.metadata
    return not (
        (bounds.get("low") is not None and value < bounds["low"])
        or (bounds.get("high") is not None and value > bounds["high"])
        or (bounds.get("above") is not None and value <= bounds["above"])
        or (bounds.get("below") is not None and value >= bounds["below"])
    )


def _expected(hint: Any, field: dataclasses.Field) -> str:
    return "must be " + describe(hint, field)


def describe(hint: Any, field: dataclasses.Field) -> str:
    """Return in words what a field of type `hint` takes: `a finite number > 0 and <= 1`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(
            "null" if arg is type(None) else describe(arg, field) for arg in args if arg is not Callable
        )  # a script's
    if origin is list:
        return f"a list, each item {describe(args[0], field)}"
    if origin is dict:
        return "a mapping with text keys"
    if hint is str and field.metadata.get("choices"):
        return "one of " + ", ".join(field.metadata["choices"])
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text, not empty"}
    return names.get(hint, str(hint)) + (_range(field) if hint in (int, float) else "")


def _range(field: dataclasses.Field) -> str:
    signs = {"low": ">=", "above": ">", "high": "<=", "below": "<"}
    parts = [f"{sign} {field.metadata[name]}" for name, sign in signs.items() if field.metadata.get(name) is not None]
    return " " + " and ".join(parts) if parts else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)
