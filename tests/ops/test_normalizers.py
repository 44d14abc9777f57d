"""Running moments: in pieces as all at once, and never NaN."""

import pytest
import torch

from rltrain.ops import normalizers
from rltrain.ops.normalizers import Moments


def empty(*shape: int) -> Moments:
    return Moments(*(torch.full(size, number, dtype=torch.float64) for size, number in ((shape, 0.0), (shape, 1.0), ((), 0.0))))


def data(seed: int = 0) -> torch.Tensor:
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 5 * rows + torch.tensor([0.0, 100.0, -3.0])


def test_fold_by_hand():
    # rows 1, 3: mean 2, variance ((1 - 2)^2 + (3 - 2)^2) / 2 = 1; then 8: mean 4, variance (9 + 1 + 16) / 3
    two = normalizers.fold(torch, empty(1), torch.tensor([[1.0], [3.0]], dtype=torch.float64))
    assert [float(x) for x in two] == [2.0, 1.0, 2.0]
    three = normalizers.fold(torch, two, torch.tensor([[8.0]], dtype=torch.float64))
    assert [float(x) for x in three] == pytest.approx([4.0, 26 / 3, 3.0])


@pytest.mark.parametrize("sizes", [[100], [1, 99], [33, 33, 34], [1] * 100])
def test_pieces_equal_all_at_once(sizes):
    rows, moments = data(), empty(3)
    for piece in rows.split(sizes):
        moments = normalizers.fold(torch, moments, piece)
    assert float(moments.count) == 100
    assert torch.allclose(moments.mean, rows.mean(0), atol=1e-10)
    assert torch.allclose(moments.variance, rows.var(0, correction=0), atol=1e-10)


def test_rows_of_weight_zero_do_not_count():
    rows, weights = data(), (torch.arange(100) % 3 > 0).double()
    spoiled = torch.where(weights[:, None] > 0, rows, 1e6)
    moments = empty(3)
    for piece, weight in zip(spoiled.split(20), weights.split(20), strict=True):
        moments = normalizers.fold(torch, moments, piece, weight)
    kept = rows[weights > 0]
    assert float(moments.count) == len(kept) == 66
    assert torch.allclose(moments.mean, kept.mean(0), atol=1e-10)
    assert torch.allclose(moments.variance, kept.var(0, correction=0), atol=1e-9)


def test_no_row_that_happened_changes_nothing():
    moments = normalizers.fold(torch, empty(3), data())
    after = normalizers.fold(torch, moments, data(1), torch.zeros(100, dtype=torch.float64))
    assert all(torch.equal(one, other) for one, other in zip(moments, after, strict=True))
    none = normalizers.fold(torch, empty(3), data(), torch.zeros(100, dtype=torch.float64))
    assert float(none.count) == 0 and torch.isfinite(normalizers.normalize(torch, none, data())).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_give_variance_one(count):
    moments = empty(3) if count == 0 else normalizers.fold(torch, empty(3), data()[:1])
    assert normalizers.scale(torch, moments).tolist() == [1.0, 1.0, 1.0]
    assert torch.allclose(normalizers.normalize(torch, moments, data()), data() - moments.mean)


def test_one_weighted_row_gives_variance_one():
    weights = torch.zeros(100, dtype=torch.float64)
    weights[7] = 1
    moments = normalizers.fold(torch, empty(3), data(), weights)
    assert torch.allclose(moments.mean, data()[7]) and normalizers.scale(torch, moments).tolist() == [1.0, 1.0, 1.0]


def test_a_constant_column_stays_finite():
    moments = normalizers.fold(torch, empty(1), torch.full((50, 1), 7.0, dtype=torch.float64))
    assert normalizers.normalize(torch, moments, torch.tensor([[7.0]], dtype=torch.float64)).tolist() == [[0.0]]
    assert torch.isfinite(normalizers.normalize(torch, moments, torch.tensor([[8.0]], dtype=torch.float64))).all()


def test_normalize_standardizes_and_clips():
    moments = Moments(*(torch.tensor(x, dtype=torch.float64) for x in (2.0, 9.0, 50.0)))
    x = torch.tensor([2.0, 5.0, -100.0, 100.0], dtype=torch.float64)
    # (5 - 2) / 3 = 1; (-100 - 2) / 3 = -34
    assert normalizers.normalize(torch, moments, x).tolist() == pytest.approx([0.0, 1.0, -34.0, 98 / 3])
    assert normalizers.normalize(torch, moments, x, 10.0).tolist() == pytest.approx([0.0, 1.0, -10.0, 10.0])


def test_denormalize_undoes_normalize():
    moments = normalizers.fold(torch, empty(3), data())
    assert torch.allclose(normalizers.denormalize(torch, moments, normalizers.normalize(torch, moments, data(1))), data(1))


def test_single_precision_keeps_the_variance_of_a_column_far_from_zero():
    rows = data().float() + 1e4
    moments = Moments(torch.zeros(3), torch.ones(3), torch.zeros(()))
    for piece in rows.split(7):
        moments = normalizers.fold(torch, moments, piece)
    assert torch.allclose(moments.variance, rows.double().var(0, correction=0).float(), rtol=1e-2)
