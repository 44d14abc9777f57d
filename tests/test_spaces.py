"""Composite spaces as flat dicts by path, by hand."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rltrain import spaces
from rltrain.errors import ConfigError

X, Y = Box(-1, 1, (2,), np.float32), Discrete(3)
NESTED = Tuple((Dict({"goal": Dict({"x": X, "on": MultiBinary(2)}), "at": Y}), X))


def test_leaves_by_path():
    assert spaces.leaves(X) == {"": X}
    assert spaces.leaves(Dict({"x": X, "y": Y})) == {"x": X, "y": Y}
    assert spaces.leaves(Tuple((X, Y))) == {"0": X, "1": Y}
    assert spaces.leaves(NESTED) == {"0/at": Y, "0/goal/on": MultiBinary(2), "0/goal/x": X, "1": X}


def test_leaves_stand_in_the_space_s_own_order():
    """Gymnasium sorts the keys of a plain dict and keeps the order of pairs; the order of a value's keys means nothing."""
    pairs = Dict([("b", X), ("a", Y)])
    assert list(spaces.leaves(pairs)) == list(pairs.spaces)
    for value in ({"a": 2, "b": 5}, {"b": 5, "a": 2}):
        assert list(spaces.flatten(pairs, value).items()) == [(key, {"a": 2, "b": 5}[key]) for key in pairs.spaces]


def test_flatten():
    x, on, at, last = np.array([0.5, 1], np.float32), np.array([0, 1], np.int8), np.int64(2), np.array([-1, 0], np.float32)
    flat = spaces.flatten(NESTED, ({"at": at, "goal": {"x": x, "on": on}}, last))
    assert list(flat) == ["0/at", "0/goal/on", "0/goal/x", "1"]
    assert flat["0/goal/x"] is x and flat["0/goal/on"] is on and flat["0/at"] is at and flat["1"] is last
    assert spaces.flatten(X, x) is x  # what isn't composite stays as it is


@pytest.mark.parametrize(
    "space",
    [
        Dict({"a/b": X, "a": Dict({"b": Y})}),
        Dict([(0, X), ("0", Y)]),
        Dict({"": X}),
        Dict({"": X, "a": Y}),
        Dict({}),
        Tuple(()),
    ],
)
def test_leaves_without_a_path_of_their_own_are_refused(space):
    with pytest.raises(ConfigError, match=r"^env.observation_space=.*: its parts must have names of their own, joined by / too"):
        spaces.leaves(space)


def test_map_arrays():
    assert spaces.map_arrays(lambda a: a + 1, 3) == 4
    assert spaces.map_arrays(lambda a, b, c: a + b * c, 1, 2, 3) == 7
    one, two = {"x": 1, "0/y": 2}, {"0/y": 20, "x": 10}  # found by path, not by place
    assert spaces.map_arrays(lambda a, b: a + b, one, two) == {"x": 11, "0/y": 22}
    assert one == {"x": 1, "0/y": 2}


def test_named_and_unnamed_undo_each_other():
    assert spaces.named(5, "observations") == {"observations": 5}
    assert spaces.named({"goal/x": 5, "0": 6}, "observations") == {"observations/goal/x": 5, "observations/0": 6}
    mixed = {"rewards": 1, "observations/b": 2, "states": 3, "observations/a/c": 4, "observations_seen": 5}
    assert spaces.unnamed(mixed, "observations") == {"b": 2, "a/c": 4}
    assert spaces.unnamed(mixed, "states") == 3
    assert spaces.unnamed(mixed, "states") is None
    assert mixed == {"rewards": 1, "observations_seen": 5}


def test_choose_rows():
    rows = np.array([True, False, True])
    chosen, others = np.arange(6, dtype=np.uint8).reshape(3, 2), np.full((3, 2), 9, np.uint8)
    found = spaces.choose_rows(rows, chosen, others)
    assert found.tolist() == [[0, 1], [9, 9], [4, 5]] and found.dtype == np.uint8
    found = spaces.choose_rows(rows, {"x": chosen, "n": np.array([1, 2, 3])}, {"n": np.array([7, 8, 9]), "x": others})
    assert found["x"].tolist() == [[0, 1], [9, 9], [4, 5]] and found["n"].tolist() == [1, 8, 3]
    image = np.ones((3, 2, 2, 1), np.float64)
    assert spaces.choose_rows(rows, image, 0 * image).sum(axis=(1, 2, 3)).tolist() == [4, 0, 4]
    assert chosen.tolist() == [[0, 1], [2, 3], [4, 5]] and (others == 9).all()


@pytest.mark.parametrize(
    ("space", "counts"),
    [
        (Discrete(4, start=-3), [4]),
        (MultiDiscrete([2, 3], start=[5, 0]), [2, 3]),
        (MultiDiscrete([[2, 3], [4, 1]]), [2, 3, 4, 1]),
        (MultiBinary(3), None),
        (X, None),
        (Dict({"y": Y}), None),
    ],
)
def test_choices(space, counts):
    assert spaces.choices(space) == counts
