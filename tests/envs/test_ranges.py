"""Values outside their space: named by copy, leaf, value and space in the very step, or read as nothing at all."""

import numpy as np
import pytest
from command_line import call, summary, train
from gymnasium.spaces import Box, Discrete
from outside_envs import LEAVES, Hall

from rltrain.envs.answers import fitting, why_not_in
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.errors import EnvironmentFailure

OUTSIDE = "outside_envs:Outside-v0"
REMEDY = "; mend the environment or its space, or set env.on_invalid=ignore"


@pytest.fixture
def make():
    """Make `Outside` whose copies have the seeds 11, 12 ... once `reset` began them."""
    made = []

    def make(num_envs=2, vectorization="sync", on_invalid="error", **kwargs):
        cfg = {"id": OUTSIDE, "num_envs": num_envs, "vectorization": vectorization, "kwargs": kwargs}
        made.append(GymnasiumEnv({**cfg, "on_invalid": on_invalid}, seed=0))
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env: GymnasiumEnv, steps: int = 4):
    """Reset and step; return the last step."""
    env.reset(seed=[11 + i for i in range(env.num_envs)])
    for _ in range(steps):
        step = env.step(np.zeros(env.num_envs, np.int64))
        env.reset_done()
    return step


# -- Gymnasium -----------------------------------------------------------------------------------------------------------------

CASES = [
    ("cell", 4, "observations/in/it/0=4 is outside Discrete(4), 0 to 3"),
    ("cell", np.int8(-1), "observations/in/it/0=-1 is outside Discrete(4), 0 to 3"),
    ("floor", 4, "observations/floor=4 is outside Discrete(3, start=5), 5 to 7"),
    ("floor", 2**62, f"observations/floor={2**62} is outside Discrete(3, start=5), 5 to 7"),
    ("parts", [3, 0], "observations/parts[0]=3 is outside MultiDiscrete([3 4]), 0 to 2"),
    ("parts", [0, -1], "observations/parts[1]=-1 is outside MultiDiscrete([3 4]), 0 to 3"),
    ("alike", [[3, 0]], "observations/alike[0, 1]=0 is outside MultiDiscrete([[3 3]], start=[[1 1]]), 1 to 3"),
    ("bits", [0, 1, 2], "observations/bits[2]=2 is outside MultiBinary(3), 0 to 1"),
    ("state", [1, 2], "states[1]=2 is outside MultiDiscrete([2 2]), 0 to 1"),
]


@pytest.mark.parametrize(("leaf", "value", "says"), CASES)
def test_copy_leaf_value_and_space_are_named(make, leaf, value, says):
    with pytest.raises(EnvironmentFailure) as caught:
        play(make(leaf=leaf, value=value, when=2, victim=12))
    assert str(caught.value) == f"env.id={OUTSIDE}: copy 1: step 1: {says}{REMEDY}"


@pytest.mark.parametrize(("vectorization", "copies"), [("sync", 2), ("async", 2), ("native", 1)])
@pytest.mark.parametrize(("when", "step"), [(0, 0), (3, 2)])
def test_at_resets_and_in_last_steps_however_copies_are_stepped(make, vectorization, copies, when, step):
    with pytest.raises(
        EnvironmentFailure, match=rf"copy {copies - 1}: step {step}: observations=4 is outside Discrete\(4\), 0 to 3;"
    ):
        play(make(copies, vectorization, leaf="cell", alone=True, value=4, when=when, victim=10 + copies))


def test_the_reset_of_a_single_copy_of_a_slice(make):
    part = make(5, leaf="bits", alone=True, value=[0, 2, 0], when=0, victim=12).partition([3, 2])[1]()
    part.reset(seed=[11, 13])
    part._venv.envs[1].unwrapped.seed = 12
    with pytest.raises(EnvironmentFailure, match=r"copy 4: step 3: observations\[1\]=2 is outside"):
        for _ in range(3):
            part.step(np.zeros(2, np.int64)), part.reset_done()
    part.close()


def test_what_is_inside_passes_and_boxes_are_not_looked_at(make):
    env = make()
    assert play(env, 7).next_observations["point"].tolist() == [[7.0], [7.0]]  # of Box(-1, 1)
    assert ("observations", "point") not in env._ranges.limits and len(env._ranges.limits) == 6
    assert not GymnasiumEnv("CartPole-v1")._ranges.limits


def test_ignored(make):
    step = play(make(on_invalid="ignore", leaf="parts", value=[3, -1], victim=12), 1)
    assert step.next_observations["parts"].tolist() == [[2, 3], [3, -1]]
    assert play(make(on_invalid="ignore", leaf="state", value=[5, 5]), 1).next_states.tolist() == [[5, 5]] * 2


def narrow(space):
    """Return the space with numbers of one byte, which Gymnasium has an argument for since 1.2."""
    space.dtype = np.dtype(np.int8)
    return space


@pytest.mark.parametrize(
    ("space", "right", "wrong"),
    [
        (Discrete(4), [0, 99, -1, True, np.uint8(7), np.array(3)], [0.5, None, "1", np.array([1]), 2**63, np.uint64(2**63)]),
        (narrow(Discrete(4)), [0, 127, np.int64(5)], [128, np.int64(256), np.array(-129)]),
        (
            Box(-1, 1, (), np.float32),
            [np.array(9, np.float32), np.float32(9), 9.0],
            [np.array(9.0), np.zeros(1, np.float32), "x"],
        ),
    ],
)
def test_the_kind_is_another_question_than_the_value(space, right, wrong):
    """What its dtype can't hold would come out as another number."""
    for value in right:
        assert not why_not_in(space, value), value
    for value in wrong:
        assert why_not_in(space, value) and not fitting(space)(value), value


# -- PettingZoo ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"value": 8}, "step 0: observations/host=8"),
        ({"value": 0, "when": 3}, "step 2: observations/host=0"),
        ({"value": 8, "when": 0}, "step 0: observations/host=8"),
        ({"value": 0, "when": 2, "who": "guest"}, "step 1: observations/guest/floor=0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("on_invalid", ["error", "ignore"])
def test_members(how, says, on_invalid):
    kinds = iter((Hall(), Hall(**how)))
    env = PettingZooEnv({"id": "hall", "num_envs": 2, "on_invalid": on_invalid}, seed=0, make=lambda: next(kinds, Hall()))

    def play():
        env.reset()
        for _ in range(9):  # those who are away are no error
            env.step({name: np.zeros(2, np.int64) for name in env.members}), env.reset_done()

    if on_invalid == "ignore":
        return play()
    with pytest.raises(EnvironmentFailure) as caught:
        play()
    assert str(caught.value) == f"env.id=hall: copy 1: {says} is outside Discrete(3, start=5), 5 to 7{REMEDY}"


# -- the program ---------------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_the_sentence_or_goes_on(here):
    run = ("plugins=[outside_envs]", f"env={OUTSIDE}", "env.num_envs=2", "env.kwargs.leaf=cell", "env.kwargs.value=4",
           "env.kwargs.alone=true", "env.kwargs.when=2", "trainer.timesteps=32")  # fmt: skip
    result = train(*run, "run.dir=run", status=1)
    says = f"env.id={OUTSIDE}: copy 0: step 1: observations=4 is outside Discrete(4), 0 to 3{REMEDY}"
    assert result.err.splitlines()[-1] == f"error: {says}"
    assert summary(here / "run")["exit_reason"] == f"failed: EnvironmentFailure: {says}"
    train(*run, "run.dir=ignored", "env.on_invalid=ignore")
    assert call("eval", "ignored", "episodes=2").status == 0


# -- what networks read --------------------------------------------------------------------------------------------------------


def test_what_is_outside_is_zeros_for_both_backends():
    """Nothing of one part runs over into the next one's columns."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    from rltrain.models.inputs.jax import Inputs as JaxInputs
    from rltrain.models.inputs.torch import Inputs

    cases = [
        ("cell", [0, 3, 4, -1], [[1, 0, 0, 0], [0, 0, 0, 1], [0] * 4, [0] * 4]),
        ("floor", [5, 4, 8, 0], [[1, 0, 0], [0] * 3, [0] * 3, [0] * 3]),
        ("parts", [[2, 0], [3, 0], [-1, 4]], [[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0] * 7]),
        ("alike", [[[1, 3]], [[0, 4]]], [[1, 0, 0, 0, 0, 1], [0] * 6]),
        ("bits", [[1, 0, 2]], [[1, 0, 2]]),
    ]
    for leaf, rows, expected in cases:
        rows = np.array(rows, LEAVES[leaf].dtype)
        inputs, twin = Inputs(LEAVES[leaf], torch.device("cpu"), normalize=False), JaxInputs(LEAVES[leaf], normalize=False)
        assert inputs(torch.from_numpy(rows)).tolist() == expected, leaf
        assert twin.read(rows).tolist() == expected, leaf
        assert jax.jit(twin.read)(rows).tolist() == expected, leaf
