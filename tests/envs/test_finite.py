"""NaN and infinity in a leaf of a Dict or in a state: named by leaf and copy, or the copy is reset; wrong leaves refused."""

import warnings

import gymnasium
import numpy as np
import pytest

from rltrain import spaces
from rltrain.envs.answers import why_not_batch
from rltrain.envs.finite import bad_rows, first_bad, is_finite
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import EnvironmentFailure, NonFiniteError

WHERE = "env.id=space_envs:Leaves-v0: "
NAN, INF = np.nan, np.inf


@pytest.fixture
def make():
    """Make `Leaves` whose copies 0 and 1 have seeds 11 and 12 once `begin` reset them."""
    made = []

    def make(num_envs=2, vectorization="sync", on_nonfinite="error", **kwargs):
        cfg = {"id": "space_envs:Leaves-v0", "num_envs": num_envs, "vectorization": vectorization, "kwargs": kwargs}
        made.append(GymnasiumEnv({**cfg, "on_nonfinite": on_nonfinite, "timeout": 60}, seed=0))
        return made[-1]

    yield make
    for env in made:
        env.close()


def begin(env: GymnasiumEnv):
    return env.reset(seed=[11 + i for i in range(env.num_envs)])


def step(env: GymnasiumEnv):
    """Step once, reset what ended; return the step."""
    taken = env.step(np.zeros(env.num_envs, np.int64))
    env.reset_done()
    return taken


# -- arrays by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "finite"),
    [
        (np.array([1.0, -2.0]), True),
        (np.array([1.0, NAN]), False),
        (np.array([INF, -INF]), False),
        (np.array([[0, 255]], np.uint8), True),
        (np.array([2**62, 2**62]), True),  # a sum of whole numbers that overflows says nothing
        (np.array([True, False]), True),
        (np.zeros((0, 3), np.float32), True),
        ({"a": np.array([1]), "b/c": np.array([0.5])}, True),
        ({"a": np.array([1]), "b/c": np.array([INF])}, False),
    ],
)
def test_is_finite(array, finite):
    with np.errstate(invalid="ignore"):
        assert is_finite(array) is finite


def test_bad_rows():
    a, b = np.zeros((3, 2, 2), np.float32), np.array([0.0, INF, 0.0])
    assert bad_rows(a, 3).tolist() == [False, False, False]
    a[2, 1, 0] = NAN
    assert bad_rows(a, 3).tolist() == [False, False, True]
    assert bad_rows({"a": a, "b": b, "n": np.arange(3)}, 3).tolist() == [False, True, True]
    assert bad_rows(np.arange(6).reshape(3, 2), 3).tolist() == [False, False, False]


def test_first_bad():
    good, bad = np.zeros((3, 2)), np.array([[1, 2], [3, NAN], [INF, 4]])
    assert first_bad(good, "observations") is None and first_bad({"n": np.arange(3)}, "observations") is None
    name, row, values = first_bad(bad, "observations")
    assert (name, row) == ("observations", 1) and np.array_equal(values, [3, NAN], equal_nan=True)
    name, row, _ = first_bad({"good": good, "goal/x": bad[::-1], "last": bad}, "observations")
    assert (name, row) == ("observations/goal/x", 0)


# -- in a step ------------------------------------------------------------------------------------------------------------

SAYS = [
    ("goal/x", NAN, r"observations/goal/x=\[ *2\. +nan\]"),
    ("goal/x", -INF, r"observations/goal/x=\[ *2\. +-inf\]"),
    ("state", NAN, r"states=\[ *20\. +nan\]"),
    ("state", INF, r"states=\[ *20\. +inf\]"),
]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(("what", "value", "says"), SAYS)
def test_leaf_and_copy_are_named(make, what, value, says, vectorization):
    env = make(2, vectorization, what=what, value=value, victim=12)
    begin(env)
    step(env)
    with pytest.raises(NonFiniteError, match=f"^{WHERE}copy 1: step 1: {says} is not finite; .*on_nonfinite=reset"):
        step(env)


def test_a_copy_is_named_by_its_global_number(make):
    part = make(5, what="state", when=1).partition([3, 2])[1]()
    part.reset()
    with pytest.raises(NonFiniteError, match=f"^{WHERE}copy 3: step 0: states="):
        step(part)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("what", ["goal/x", "state"])
def test_a_reset_copy_repeats_all_leaves_and_the_state(make, what, vectorization):
    env = make(2, vectorization, "reset", what=what, victim=12)
    begin(env)
    step(env)
    taken = env.step(np.zeros(2, np.int64))  # copy 0 gets to 2, copy 1 fails there and is taken back to 1
    assert {path: array.reshape(2, -1).tolist() for path, array in taken.next_observations.items()} == {
        "goal/x": [[2, 2], [1, 1]], "image": [[2] * 4, [1] * 4], "level": [[2], [1]]
    }  # fmt: skip
    assert [array.dtype for array in taken.next_observations.values()] == [np.float32, np.uint8, np.int64]
    assert taken.next_states.tolist() == [[20, 20], [10, 10]]
    assert taken.rewards.tolist() == [2, 0]
    assert taken.terminated.tolist() == [False, False] and taken.truncated.tolist() == [False, True]
    assert env.reset_done()["level"].tolist() == [2, 0] and env.state().tolist() == [[20, 20], [0, 0]]
    assert taken.next_states.tolist() == [[20, 20], [10, 10]]
    after = step(env)
    assert after.next_observations["goal/x"].tolist() == [[3, 3], [1, 1]] and after.next_states.tolist() == [[30, 30], [10, 10]]


def test_ignored(make):
    env = make(2, on_nonfinite="ignore", what="goal/x", victim=12)
    begin(env)
    step(env)
    taken = step(env)
    assert np.isnan(taken.next_observations["goal/x"]).tolist() == [[False, False], [False, True]]
    assert taken.rewards.tolist() == [2, 2] and not taken.truncated.any()


@pytest.mark.parametrize("on_nonfinite", ["error", "reset"])
def test_large_finite_numbers_are_no_error(make, on_nonfinite):
    env = make(2, on_nonfinite=on_nonfinite, what="state", value=3e38)
    begin(env)
    step(env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken = step(env)  # two of 3e38 add up to infinity in float32, yet each is finite
    assert taken.next_states.tolist() == [[20, np.float32(3e38)]] * 2 and not taken.truncated.any()


# -- at resets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_nonfinite", ["error", "reset"])  # resetting again would give the same
@pytest.mark.parametrize(
    ("what", "says"), [("goal/x", r"observations/goal/x=\[ *0\. +nan\]"), ("state", r"states=\[ *0\. +nan\]")]
)
def test_the_first_reset(make, what, says, on_nonfinite):
    with pytest.raises(NonFiniteError, match=f"^{WHERE}copy 1: step 0: {says}"):
        begin(make(2, on_nonfinite=on_nonfinite, what=what, phase="reset", victim=12))


@pytest.mark.parametrize("what", ["goal/x", "state"])
def test_the_reset_of_a_single_copy(make, what):
    env = make(2, what=what, phase="reset", victim=12, length=3)
    env.reset(seed=[11, 13])
    env._venv.envs[1].unwrapped.seed = 12
    with pytest.raises(NonFiniteError, match=f"^{WHERE}copy 1: step 3: "):
        for _ in range(3):
            step(env)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("dtype", r"expected observations 'goal/x' float32 \(2,\), got float64 \(2,\)"),
        ("shape", r"expected observations 'goal/x' float32 \(2,\), got float32 \(1,\)"),
        ("kind", r"expected observations 'goal' in a dict, got float32 \(2,\)"),
        ("missing", r"expected observations 'goal' in a dict with \['x'\], got one with \[\]"),
        ("extra", r"expected observations in a dict with \['goal', 'image', 'level'\], got one with \[.*'level', 'more'\]"),
    ],
)  # fmt: skip
def test_a_wrong_leaf_is_named_at_the_first_reset(make, what, says, vectorization):
    env = make(2, vectorization, what=what, phase="reset", victim=12)
    with pytest.raises(EnvironmentFailure, match=f"^{WHERE}copy 1: reset at step 0: {says}$"):
        begin(env)


def test_what_a_vector_environment_makes_of_the_leaves_is_checked_too():
    """As of a native one, which has no single copies to ask."""
    space = gymnasium.spaces.Dict({"goal": gymnasium.spaces.Dict({"x": gymnasium.spaces.Box(0, 1, (2, 2), np.float32)})})
    for leaf, says in ((np.zeros((2, 2)), "float64 (2, 2)"), (np.zeros((2, 1), np.float32), "float32 (2, 1)"), ([0], "list")):
        expected = f"expected observations 'goal/x' float32 (2, 2), got {says}"
        assert why_not_batch(space, 2, "reset", ({"goal": {"x": leaf}}, {})) == expected
    assert why_not_batch(space, 2, "reset", ({"goal": {"x": np.zeros((2, 2), np.float32)}}, {})) == ""
    none = np.zeros(2, bool)
    good = {"goal": {"x": np.zeros((2, 2), np.float32)}}
    for answer, says in (
        ((good, np.zeros((2, 1)), none, none, {}), "expected rewards as numbers (2,), got float64 (2, 1)"),
        ((good, np.zeros(2), np.zeros(2), none, {}), "expected terminated as booleans (2,), got float64 (2,)"),
        ((good, np.zeros(2), none, none, None), "expected infos in a dict, got None"),
        ((good, np.zeros(2), none, {}), "expected (observations, rewards, terminated, truncated, infos), got 4 items"),
    ):
        assert why_not_batch(space, 2, "step", answer) == says


# -- sync, async, snapshots -----------------------------------------------------------------------------------------------


def play(env: GymnasiumEnv, steps: int) -> list[dict[str, np.ndarray]]:
    """Step and reset; return all numbers."""
    rows = []
    for _ in range(steps):
        taken = env.step(np.zeros(env.num_envs, np.int64))
        arrays = {"rewards": taken.rewards, "truncated": taken.truncated, "next_states": taken.next_states}
        arrays |= spaces.named(taken.next_observations, "next") | spaces.named(env.reset_done(), "observations")
        rows.append({name: array.copy() for name, array in {**arrays, "states": env.state()}.items()})
    return rows


def test_sync_equals_async(make):
    sync, other = (make(3, mode, "reset", what="goal/x", when=7, victim=12, length=4) for mode in ("sync", "async"))
    np.testing.assert_equal(begin(sync), begin(other))
    rows = play(sync, 12)
    np.testing.assert_equal(rows, play(other, 12))
    assert sum(row["truncated"].sum() for row in rows) == 3 + 3 + 3  # copies 0 and 2 at 4, 8, 12; copy 1 at 4, 7, 11


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_restored_snapshot_goes_on_alike(make, vectorization):
    env, other = (make(3, vectorization, length=4) for _ in range(2))
    begin(env)
    play(env, 6)
    snapshot = env.snapshot()
    rows = play(env, 7)
    begin(other)
    other.restore(snapshot)
    np.testing.assert_equal(play(other, 7), rows)
    np.testing.assert_equal(other.snapshot(), env.snapshot())


def test_actions_come_in_the_dtype_of_their_space(make):
    """Whatever an agent computes with; `Discrete(2)` is int64."""
    env, seen = make(2), []
    begin(env)
    for copy in env._venv.envs:
        copy.unwrapped.step = lambda action, own=copy.unwrapped.step: (seen.append(action), own(action))[1]
    env.step(np.array([0, 1], np.int32))
    assert [(int(action), action.dtype) for action in seen] == [(0, np.int64), (1, np.int64)]
