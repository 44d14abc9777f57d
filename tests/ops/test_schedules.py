"""Values over a run: how much of the horizon is over, what each kind gives there, and the learning rate that follows the KL."""

import numpy as np
import pytest

from rltrain.ops.schedules import KINDS, adapted, fraction, scheduled
from rltrain.structures import Progress


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [2.0, 2.0, 2.0, 2.0]),
        ("linear", [2.0, 1.75, 1.5, 1.0]),  # 2 (1 - d / 2)
        # 2 (1/2 + 1/2 (1 + cos(pi d)) / 2), cos(pi / 4) = 0.707107: 2 (0.5 + 0.25 x 1.707107) = 1.853553
        ("cosine", [2.0, 1.853553, 1.5, 1.0]),
        ("exponential", [2.0, 1.681793, 1.414214, 1.0]),  # 2 / 2^d: the fourth root and the root of 2 are 1.189207, 1.414214
    ],
)
def test_from_2_to_a_half_of_it(kind, expected):
    values = [float(scheduled(np, kind, 2.0, 0.5, done)) for done in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [2.0, 1.5, 1.0, 0.0]),
        ("cosine", [2.0, 1.707107, 1.0, 0.0]),  # 1 + cos(pi d)
    ],
)
def test_from_2_to_nothing(kind, expected):
    values = [float(scheduled(np, kind, 2.0, 0.0, done)) for done in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [2.0, 3.5, 5.0, 8.0]),  # 2 (1 + 3 d)
        ("cosine", [2.0, 2.878680, 5.0, 8.0]),  # 2 (4 - 3 (1 + cos(pi d)) / 2): 2 (4 - 1.5 x 1.707107)
        ("exponential", [2.0, 2.828427, 4.0, 8.0]),  # 2 x 4^d
    ],
)
def test_an_end_above_1_grows(kind, expected):
    values = [float(scheduled(np, kind, 2.0, 4.0, done)) for done in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_begins_at_the_first_value_to_the_bit(kind):
    assert scheduled(np, kind, 2.5e-4, 0.1, fraction(np, Progress(127, 10_000), 128)) == 2.5e-4


@pytest.mark.parametrize(("kind", "end"), [("constant", 2.0), ("linear", 1.0), ("cosine", 1.0), ("exponential", 1.0)])
def test_stays_at_its_end_beyond_the_horizon(kind, end):
    # 64 timesteps were the horizon; rollouts of 16 begin at 64, 80 and 960
    values = [scheduled(np, kind, 2.0, 0.5, fraction(np, Progress(t, 64), 16)) for t in (79, 95, 975)]
    assert values == pytest.approx([end] * 3, abs=1e-12)


def test_the_first_update_has_0_and_the_second_of_four_a_quarter():
    # rollouts of 16 in a horizon of 64: updates follow the timesteps 15, 31, 47, 63
    assert [float(fraction(np, Progress(t, 64), 16)) for t in (15, 31, 47, 63)] == [0.0, 0.25, 0.5, 0.75]


def test_a_horizon_that_is_no_multiple_of_the_rollout():
    # rollouts of 3 begin at 0, 3 and 6 of 10 timesteps
    assert [float(fraction(np, Progress(t, 10), 3)) for t in (2, 5, 8)] == pytest.approx([0.0, 0.3, 0.6])


def test_every_timestep():
    assert [float(fraction(np, Progress(t, 4), 1)) for t in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.0161, 1 / 1.5),
        (1.0, 1 / 1.5),
        (0.016, 1.0),  # above 2 x 0.008, not at it
        (0.008, 1.0),
        (0.004, 1.0),  # below 0.008 / 2, not at it
        (0.0039, 1.5),
        (1e-6, 1.5),
    ],
)
def test_the_learning_rate_follows_the_kl(kl, factor):
    assert float(adapted(np, 3e-4, kl, 0.008)) == pytest.approx(3e-4 * factor, rel=1e-12)


@pytest.mark.parametrize(
    ("learning_rate", "kl", "expected"),
    [
        (1.2e-6, 1.0, 1e-6),  # 1.2e-6 / 1.5 = 8e-7
        (1e-6, 1.0, 1e-6),
        (8e-3, 1e-3, 1e-2),  # 8e-3 x 1.5 = 1.2e-2
        (1e-2, 1e-3, 1e-2),
        (0.05, 0.01, 0.05),  # near its target nothing changes, be it outside
        (0.05, 1.0, 0.01),  # 0.05 / 1.5 = 0.033
        (1e-7, 1e-3, 1e-6),
    ],
)
def test_an_adapted_learning_rate_has_bounds(learning_rate, kl, expected):
    assert float(adapted(np, learning_rate, kl, 0.01)) == pytest.approx(expected, rel=1e-12)


def test_a_factor_up_and_one_down_cancel_out():
    up = adapted(np, 3e-4, 1e-3, 0.01)
    assert float(adapted(np, up, 1.0, 0.01)) == pytest.approx(3e-4, rel=1e-12)
