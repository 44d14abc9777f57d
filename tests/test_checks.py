"""Settings are checked without Hydra: types, bounds, unknown keys; each error names the key and the value."""

from dataclasses import dataclass
from typing import Any

import pytest

from rltrain.checks import build, option, section
from rltrain.errors import ConfigError


@dataclass
class Inner:
    ratio: float = option(0.5, "", low=0, below=1)
    sizes: list[int] = option([4], "", low=1, high=9)


@dataclass
class Outer:
    count: int = option(3, "", low=1, high=10)
    step: float = option(0.1, "", above=0, high=1)
    limit: float | None = option(None, "", above=0)
    flag: bool = option(False, "")
    maybe: bool | None = option(None, "")
    name: str = option("a", "")
    mode: str = option("auto", "", choices=["auto", "sync", "true"])
    kwargs: dict[str, Any] = option({}, "")
    inner: Inner = section(Inner, "")


GOOD = [
    ("count", 1), ("count", 10), ("step", 1), ("step", 1e-9), ("limit", None), ("limit", 3), ("flag", True), ("maybe", None),
    ("maybe", False), ("name", "b"), ("mode", "sync"), ("mode", True), ("kwargs", {"any": [1, None]}),
    ("inner", {"sizes": [1, 9]}), ("inner", {"sizes": []}),
]  # fmt: skip
NAN, INF = float("nan"), float("inf")
BAD = [
    *[("count", value) for value in (0, 11, 3.0, 1.5, True, "3", None, [3], {"a": 3}, NAN, INF)],
    *[("step", value) for value in (0, 0.0, -0.1, 1.0000001, True, "0.1", None, [0.1], NAN, INF, -INF)],
    *[("limit", value) for value in (0, -1, "1", False, NAN, [])],
    *[("flag", value) for value in (0, 1, "true", None, [True])],
    *[("maybe", value) for value in (0, "null", [])],
    *[("name", value) for value in ("", 3, None, True, ["a"])],
    *[("mode", value) for value in ("", "Auto", 3, None, False, ["auto"])],
    *[("kwargs", value) for value in (3, "a", [1], None, {1: 2})],
    *[("inner", value) for value in (3, "a", [1], {1: 2})],
    *[("inner.ratio", value) for value in (-0.1, 1, 1.0, "0.5", NAN)],
    *[("inner.sizes", value) for value in (4, "44", None, {"a": 1})],
]


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_takes_what_is_allowed(key, value):
    result = getattr(build(Outer, {key: value}), key)
    expected = {("mode", True): "true"}.get((key, value) if isinstance(value, bool) else None, value)
    assert (result.sizes == value["sizes"]) if key == "inner" else result == expected


@pytest.mark.parametrize(("key", "value"), BAD)
def test_refuses_what_is_not(key, value):
    head, _, tail = key.partition(".")
    with pytest.raises(ConfigError) as caught:
        build(Outer, {head: {tail: value} if tail else value}, "part")
    error = caught.value
    assert error.key == f"part.{key}" or (key == "inner" and error.key.startswith("part.inner.")), str(error)
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    assert f"={shown}: " in str(error) or key == "inner"


@pytest.mark.parametrize(
    ("items", "index"), [([0], 0), ([4, 10], 1), ([4, "3"], 1), ([4, 2.0], 1), ([True], 0), ([[4]], 0), ([None], 0)]
)
def test_names_the_item_of_a_list(items, index):
    with pytest.raises(ConfigError) as caught:
        build(Inner, {"sizes": items})
    assert caught.value.key == f"sizes[{index}]"
    assert caught.value.value is items[index]


def test_an_int_becomes_the_float_that_is_wanted():
    assert type(build(Outer, {"step": 1}).step) is float


def test_an_unknown_key_gets_the_nearest_first():
    with pytest.raises(ConfigError, match=r"^part\.inner\.ratoi=1: no such key; did you mean 'ratio'\? options: ratio, sizes$"):
        build(Outer, {"inner": {"ratoi": 1}}, "part")


def test_an_unknown_choice_gets_the_nearest_first():
    with pytest.raises(ConfigError, match=r"^mode=snyc: unknown; did you mean 'sync'\? options: sync, auto, true$"):
        build(Outer, {"mode": "snyc"})


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("count", 11, "count=11: must be a whole number >= 1 and <= 10"),
        ("step", NAN, "step=nan: must be a finite number > 0 and <= 1"),
        ("limit", -1, "limit=-1: must be a finite number > 0 or null"),
        ("flag", "yes", "flag=yes: must be true or false"),
        ("kwargs", [1], "kwargs=[1]: must be a mapping with text keys"),
    ],
)
def test_says_what_is_allowed(field, value, sentence):
    with pytest.raises(ConfigError) as caught:
        build(Outer, {field: value})
    assert str(caught.value) == sentence


def test_defaults_are_not_shared():
    build(Outer, {}).kwargs["a"] = 1
    assert build(Outer, {}).kwargs == {}


def test_a_value_of_many_lines_is_told_in_one_and_cut():
    error = ConfigError("name", "a\nb" + "c" * 500, "must be short")
    assert "\n" not in str(error)
    assert len(str(error)) < 120


def test_a_secret_is_not_told():
    assert str(ConfigError("env.kwargs.api_key", "xyz", "bad")) == "env.kwargs.api_key=***: bad"
    assert str(ConfigError("env.kwargs", {"token": "xyz", "size": 3}, "bad")) == "env.kwargs={'token': '***', 'size': 3}: bad"
