"""Generalised advantages: gamma = lambda = 1/2, so the trace shrinks by 1/4 a step."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from rltrain.ops.returns.torch import generalized_advantages

# without an end, every delta is 1:
#   1 + 4/2 - 2 = 1,  2 + 6/2 - 4 = 1,  3 + 8/2 - 6 = 1,  4 + 10/2 - 8 = 1
REWARDS, VALUES, NEXT_VALUES = [1, 2, 3, 4], [2, 4, 6, 8], [4, 6, 8, 10]


def advantages(rewards=REWARDS, values=VALUES, next_values=NEXT_VALUES, terminated=(), truncated=()) -> list[float]:
    """Return the advantages of one copy, alike in both; `terminated` and `truncated` are the rows where they are true."""
    columns = [torch.tensor(column, dtype=torch.float64)[:, None] for column in (rewards, values, next_values)]
    rows = torch.arange(len(rewards))[:, None]
    flags = [torch.isin(rows, torch.tensor(where, dtype=torch.long)) for where in (terminated, truncated)]
    found = generalized_advantages(*columns, *flags, 0.5, 0.5)[:, 0].tolist()
    if find_spec("jax"):
        from rltrain.ops.returns import jax as twin

        arrays = [column.float().numpy() for column in columns] + [flag.numpy() for flag in flags]
        assert twin.generalized_advantages(*arrays, 0.5, 0.5)[:, 0].tolist() == found
    return found


def test_without_an_end_the_last_row_bootstraps_from_its_successor():
    # A3 = 1,  A2 = 1 + 1/4 = 1.25,  A1 = 1 + 1.25/4 = 1.3125,  A0 = 1 + 1.3125/4 = 1.328125
    assert advantages() == [1.328125, 1.3125, 1.25, 1.0]


def test_termination_has_no_successor_and_ends_the_trace():
    # A1 = 2 - 4 = -2,  A0 = 1 - 2/4 = 0.5; the next episode is as before
    assert advantages(terminated=[1]) == [0.5, -2.0, 1.25, 1.0]


def test_truncation_bootstraps_from_the_true_successor_and_ends_the_trace():
    # the true successor of row 1 is worth 20, not 6:  A1 = 2 + 20/2 - 4 = 8,  A0 = 1 + 8/4 = 3
    assert advantages(next_values=[4, 20, 8, 10], truncated=[1]) == [3.0, 8.0, 1.25, 1.0]


def test_both_flags_true_is_a_termination():
    assert advantages(next_values=[4, 20, 8, 10], terminated=[1], truncated=[1]) == [0.5, -2.0, 1.25, 1.0]


def test_termination_in_the_last_row():
    # A3 = 4 - 8 = -4,  A2 = 1 - 4/4 = 0,  A1 = 1 + 0 = 1,  A0 = 1 + 1/4 = 1.25
    assert advantages(terminated=[3]) == [1.25, 1.0, 0.0, -4.0]


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_a_dummy_row_leaks_into_no_other(end):
    # row 1 ends the episode, row 2 did not happen: whatever stands in it, rows 0, 1 and 3 are the same
    results = [
        advantages(rewards=[1, 2, reward, 4], values=[2, 4, value, 8], next_values=[4, 6, 8, 10], **{end: [1]})
        for reward, value in ((0, 0), (1e6, -1e6))
    ]
    kept = [[row for i, row in enumerate(result) if i != 2] for result in results]
    assert kept[0] == kept[1] == ([0.5, -2.0, 1.0] if end == "terminated" else [1.25, 1.0, 1.0])


def test_copies_do_not_mix():
    # copy 0 terminates in row 1, copy 1 nowhere
    both = [torch.tensor([column, column], dtype=torch.float64).T for column in (REWARDS, VALUES, NEXT_VALUES)]
    terminated = torch.zeros(4, 2, dtype=torch.bool)
    terminated[1, 0] = True
    result = generalized_advantages(*both, terminated, torch.zeros_like(terminated), 0.5, 0.5)
    assert result.T.tolist() == [[0.5, -2.0, 1.25, 1.0], [1.328125, 1.3125, 1.25, 1.0]]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 129])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.9)])
def test_equals_a_plain_loop(length, gamma, gae_lambda):
    generator = np.random.default_rng(length)
    rewards, values, next_values = generator.normal(size=(3, length, 5))
    terminated, truncated = generator.random((2, length, 5)) < 0.15
    expected, following = np.zeros((length, 5)), np.zeros(5)
    for t in reversed(range(length)):
        for n in range(5):
            bootstrap = 0.0 if terminated[t, n] else next_values[t, n]
            trace = 0.0 if terminated[t, n] or truncated[t, n] else following[n]
            following[n] = rewards[t, n] + gamma * bootstrap - values[t, n] + gamma * gae_lambda * trace
        expected[t] = following
    inputs = [torch.from_numpy(array) for array in (rewards, values, next_values, terminated, truncated)]
    kept = [tensor.clone() for tensor in inputs]
    result = generalized_advantages(*inputs, gamma, gae_lambda)
    assert result.numpy() == pytest.approx(expected, abs=1e-5)
    assert all(torch.equal(tensor, before) for tensor, before in zip(inputs, kept, strict=True))  # nothing is written to
