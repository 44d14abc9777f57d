"""Losses and their gradients against numbers worked out by hand, and against autograd."""

import math

import pytest
import torch

from rltrain.ops import losses


def rows(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # min(3, 1.2 x 2): above the clip, nothing more to gain
        (1.5, -2.0, 3.0, 3.0),  # min(-3, -2.4): above the clip and worse: pulled back, slope -r A
        (0.5, 2.0, -1.0, -1.0),  # min(1, 0.8 x 2): below the clip and worse: pulled back
        (0.5, -2.0, 1.6, 0.0),  # min(-1, -1.6): below the clip, nothing more to gain
        (1.1, 2.0, -2.2, -2.2),  # inside
        (0.9, -2.0, 1.8, 1.8),
        (1.0, 0.5, -0.5, -0.5),
    ],
)
def test_clipped_surrogate(ratio, advantage, loss, slope):
    computed = losses.clipped_surrogate(torch, rows(ratio), rows(advantage), 0.2)
    assert [float(x) for x in computed] == pytest.approx([loss, slope], abs=1e-12)


def test_slope_of_the_clipped_surrogate_is_autograds():
    generator = torch.Generator().manual_seed(0)
    log_ratios = torch.randn(500, generator=generator, dtype=torch.float64).mul(0.5).requires_grad_()
    advantages = torch.randn(500, generator=generator, dtype=torch.float64)
    ratios = log_ratios.exp()
    loss = -torch.min(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages)
    loss.sum().backward()
    computed, slope = losses.clipped_surrogate(torch, ratios.detach(), advantages, 0.2)
    assert torch.allclose(computed, loss.detach(), atol=1e-12) and torch.allclose(slope, log_ratios.grad, atol=1e-12)
    assert 50 < (slope == 0).sum() < 450  # both sides of the clip were met


@pytest.mark.parametrize(
    ("value", "clip", "error", "slope"),
    [
        (2.0, None, 9.0, -6.0),  # (2 - 5)^2, 2 (2 - 5)
        (2.0, 0.5, 12.25, 0.0),  # V_old = 1: clipped to 1.5, (1.5 - 5)^2 > 9
        (1.3, 0.5, 13.69, -7.4),  # inside: (1.3 - 5)^2, 2 (1.3 - 5)
        (0.0, 0.5, 25.0, -10.0),  # moved the wrong way: 25 > (0.5 - 5)^2 = 20.25
        (9.0, 0.5, 16.0, 8.0),  # past the return: 16 > 12.25
    ],
)
def test_squared_error(value, clip, error, slope):
    computed = losses.squared_error(torch, rows(value), rows(1.0), rows(5.0), clip)
    assert [float(x) for x in computed] == pytest.approx([error, slope], abs=1e-12)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_slope_of_the_squared_error_is_autograds(clip):
    generator = torch.Generator().manual_seed(0)
    values, old, returns = (torch.randn(500, generator=generator, dtype=torch.float64) for _ in range(3))
    values.requires_grad_()
    loss = (values - returns) ** 2
    if clip is not None:
        loss = torch.max(loss, (old + (values - old).clamp(-clip, clip) - returns) ** 2)
    loss.sum().backward()
    computed, slope = losses.squared_error(torch, values.detach(), old, returns, clip)
    assert torch.allclose(computed, loss.detach(), atol=1e-12) and torch.allclose(slope, values.grad, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True], ids=["all rows", "some rows"])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_gradients_of_the_actor_critic_loss_are_autograds(clip, weighted):
    """PPO's loss written out, on log-probabilities, values and entropies of which some rows did not happen."""
    generator = torch.Generator().manual_seed(0)
    log_probs, old_log_probs, advantages, values, old_values, returns, entropies = (
        torch.randn(500, generator=generator, dtype=torch.float64) for _ in range(7)
    )
    weights = (torch.rand(500, generator=generator) < 0.7).double() if weighted else None
    read = [log_probs.requires_grad_(), values.requires_grad_(), entropies.requires_grad_()]
    ratios = (log_probs - old_log_probs).exp()
    policy = -torch.min(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages)
    value = (values - returns) ** 2
    if clip is not None:
        value = torch.max(value, (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2)
    means = [losses.mean(torch, x, weights) for x in (policy, value, entropies)]
    loss = losses.actor_critic_loss(*means, 0.5, 0.01)
    assert torch.allclose(loss, means[0] + 0.5 * means[1] - 0.01 * means[2], atol=1e-12)
    with torch.no_grad():
        _, to_log_probs = losses.clipped_surrogate(torch, ratios, advantages, 0.2)
        _, to_values = losses.squared_error(torch, values, old_values, returns, clip)
        shares = losses.shares(torch, advantages, weights)
        computed = losses.actor_critic_gradients(to_log_probs, to_values, shares, 0.5, 0.01)
    for one, other in zip(computed, torch.autograd.grad(loss, read), strict=True):
        assert other.any() and torch.allclose(one, other, atol=1e-12)


def test_approximate_kl():
    # r - 1 - log r: 0 at 1; 2 - 1 - 0.693147 = 0.306853; 1/2 - 1 + 0.693147 = 0.193147
    ratios = rows(1.0, 2.0, 0.5)
    assert losses.approximate_kl(ratios, ratios.log()).tolist() == pytest.approx([0.0, 1 - math.log(2), math.log(2) - 0.5])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0], 1.0),
        ([2.0, 2.0, 2.0], 0.0),  # knows nothing but the mean
        ([3.0, 2.0, 1.0], -3.0),  # errors -2, 0, 2: variance 8/3 against 2/3
        ([6.0, 7.0, 8.0], 1.0),  # a constant error explains as much
        ([1.5, 2.0, 2.5], 0.75),  # errors -1/2, 0, 1/2: variance 1/6 against 2/3
    ],
)
def test_explained_variance(values, expected):
    assert float(losses.explained_variance(torch, rows(*values), rows(1.0, 2.0, 3.0))) == pytest.approx(expected)


def test_explained_variance_of_returns_that_do_not_vary_is_zero():
    assert float(losses.explained_variance(torch, rows(1.0, 2.0), rows(5.0, 5.0))) == 0.0


def test_standardize():
    # mean 2, variance 2/3: the standard deviation of the rows, not the estimate for more of them
    assert losses.standardize(torch, rows(1.0, 2.0, 3.0)).tolist() == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5)])


def test_standardize_equal_rows_gives_zeros():
    assert losses.standardize(torch, rows(3.0, 3.0, 3.0)).tolist() == [0.0, 0.0, 0.0]


def test_rows_of_weight_zero_do_not_count():
    weights = rows(1.0, 0.0, 1.0, 1.0)
    x, y, plain = rows(1.0, 1e6, 2.0, 3.0), rows(2.0, -1e6, 2.0, 2.5), rows(1.0, 2.0, 3.0)
    happened = weights.bool()
    assert float(losses.mean(torch, x, weights)) == 2.0
    assert losses.shares(torch, x, weights).tolist() == pytest.approx([1 / 3, 0.0, 1 / 3, 1 / 3])
    assert losses.standardize(torch, x, weights)[happened].tolist() == pytest.approx(losses.standardize(torch, plain).tolist())
    expected = float(losses.explained_variance(torch, y[happened], plain))
    assert float(losses.explained_variance(torch, y, x, weights)) == pytest.approx(expected)


def test_without_weights_every_row_has_the_same_share():
    assert losses.shares(torch, rows(5.0, 6.0, 7.0, 8.0)).tolist() == [0.25] * 4


def test_no_row_happened():
    assert float(losses.mean(torch, rows(1.0, 2.0), rows(0.0, 0.0))) == 0.0
    assert losses.shares(torch, rows(1.0, 2.0), rows(0.0, 0.0)).tolist() == [0.0, 0.0]
