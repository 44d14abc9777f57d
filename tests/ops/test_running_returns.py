"""Discounted sums of the rewards so far in each episode: gamma = 1/2."""

import numpy as np
import pytest
import torch

from rltrain.ops.returns.torch import running_returns


def sums(rewards: list[float], done: tuple[int, ...] = (), before: float = 0.0) -> tuple[list[float], float]:
    """Return one copy's sums and the one to go on from; `done` are the rows that end an episode."""
    column = torch.tensor(rewards, dtype=torch.float64)[:, None]
    ends = torch.isin(torch.arange(len(rewards)), torch.tensor(done, dtype=torch.long))[:, None]
    found, after = running_returns(column, ends, torch.tensor([before], dtype=torch.float64), 0.5)
    return found[:, 0].tolist(), float(after[0])


def test_one_episode():
    # 1,  2 + 1/2 = 2.5,  3 + 2.5/2 = 4.25,  4 + 4.25/2 = 6.125
    assert sums([1, 2, 3, 4]) == ([1.0, 2.5, 4.25, 6.125], 6.125)


def test_an_episode_goes_on_from_the_rollout_before():
    # 1 + 8/2 = 5,  2 + 5/2 = 4.5,  3 + 4.5/2 = 5.25,  4 + 5.25/2 = 6.625
    assert sums([1, 2, 3, 4], before=8.0) == ([5.0, 4.5, 5.25, 6.625], 6.625)


def test_an_end_lets_the_next_row_begin_anew():
    # the row that ends still belongs to its episode: 5, 4.5 | 3, 4 + 3/2 = 5.5
    assert sums([1, 2, 3, 4], done=(1,), before=8.0) == ([5.0, 4.5, 3.0, 5.5], 5.5)


def test_after_an_end_in_the_last_row_the_next_rollout_goes_on_from_nothing():
    assert sums([1, 2, 3, 4], done=(3,)) == ([1.0, 2.5, 4.25, 6.125], 0.0)


def test_every_row_an_episode():
    assert sums([1, 2, 3], done=(0, 1, 2), before=8.0) == ([5.0, 2.0, 3.0], 0.0)


def test_one_row():
    assert sums([3], before=8.0) == ([7.0], 7.0)
    assert sums([3], done=(0,), before=8.0) == ([7.0], 0.0)


def test_copies_do_not_mix():
    # copy 0 ends in row 1, copy 1 nowhere and begins at 8
    rewards = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    done = torch.tensor([[False, False], [True, False], [False, False]])
    found, after = running_returns(rewards, done, torch.tensor([0.0, 8.0]), 0.5)
    assert found.T.tolist() == [[1.0, 2.5, 3.0], [5.0, 4.5, 5.25]]
    assert after.tolist() == [3.0, 5.25]


@pytest.mark.parametrize("cuts", [[4, 4, 4], [1] * 12, [5, 7], [11, 1]])
def test_rollouts_one_after_the_other_equal_one_long_one(cuts):
    generator = np.random.default_rng(0)
    rewards = torch.from_numpy(generator.integers(-8, 9, (12, 3)) / 4)
    done = torch.from_numpy(generator.random((12, 3)) < 0.2)
    before = torch.zeros(3, dtype=torch.float64)
    expected, end = running_returns(rewards, done, before, 0.5)
    parts = []
    for piece, ends in zip(rewards.split(cuts), done.split(cuts), strict=True):
        found, before = running_returns(piece, ends, before, 0.5)
        parts.append(found)
    assert torch.equal(torch.cat(parts), expected) and torch.equal(before, end)  # quarters, halved 12 times: exact


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 129])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_equals_a_plain_loop(length, gamma):
    generator = np.random.default_rng(length)
    rewards, before = generator.normal(size=(length, 5)), generator.normal(size=5)
    done = generator.random((length, 5)) < 0.15
    expected, running = np.zeros((length, 5)), before.copy()
    for t in range(length):
        running = rewards[t] + gamma * running
        expected[t] = running
        running = np.where(done[t], 0.0, running)
    inputs = [torch.from_numpy(array) for array in (rewards, done, before)]
    kept = [tensor.clone() for tensor in inputs]
    found, after = running_returns(*inputs, gamma)
    assert found.numpy() == pytest.approx(expected, abs=1e-5)  # powers of gamma are single
    assert after.numpy() == pytest.approx(running, abs=1e-5)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, kept, strict=True))  # nothing is written to
