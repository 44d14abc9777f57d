"""Observations as network inputs: every kind of space, in order, and the statistics that normalise them."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.models.inputs.torch import Inputs

CPU = torch.device("cpu")


def make(space: gymnasium.Space, *, normalize: bool = False) -> Inputs:
    return Inputs(space, CPU, normalize=normalize)


# -- one array -----------------------------------------------------------------------------------------------------------------


def test_numbers_are_laid_side_by_side():
    flat = make(Box(-1, 1, (2, 3), np.float64))
    assert flat.size == 6
    inputs = flat(torch.arange(12, dtype=torch.float64).reshape(2, 2, 3))
    assert inputs.dtype == torch.float32 and inputs.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_scalars_are_columns():
    assert make(Box(-1, 1, (), np.float32))(torch.tensor([0.5, 0.25])).tolist() == [[0.5], [0.25]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float16])
def test_numbers_of_any_type_become_float32(dtype):
    inputs = make(Box(0, 100, (2,), dtype))(torch.from_numpy(np.array([[0, 1], [2, 100]], dtype)))
    assert inputs.dtype == torch.float32 and inputs.tolist() == [[0, 1], [2, 100]]


def test_discrete_observations_become_one_hot_from_start():
    one_hot = make(Discrete(3, start=5))
    assert one_hot.size == 3
    inputs = one_hot(torch.tensor([5, 7, 6]))
    assert inputs.dtype == torch.float32 and inputs.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_each_of_several_discrete_ones_becomes_one_hot_from_its_start():
    several = make(MultiDiscrete([2, 3], start=[0, -1]))
    assert several.size == 5
    inputs = several(torch.tensor([[0, -1], [1, 1], [1, 0]]))
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 1, 0, 1, 0]]


def test_a_matrix_of_discrete_ones():
    several = make(MultiDiscrete([[2, 3], [1, 2]], start=[[0, 0], [9, 4]]))
    assert several.size == 8
    assert several(torch.tensor([[[1, 2], [9, 5]]])).tolist() == [[0, 1, 0, 0, 1, 1, 0, 1]]


def test_one_part_alone():
    assert make(MultiDiscrete([3], start=[2]))(torch.tensor([[2], [4]])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_bits_become_numbers():
    inputs = make(MultiBinary((2, 2)))(torch.tensor([[[0, 1], [1, 1]]], dtype=torch.int8))
    assert inputs.dtype == torch.float32 and inputs.tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_whole_numbers_of_any_type_become_one_hot(dtype):
    values = np.array([[1, 0], [0, 2]], dtype)
    assert make(MultiDiscrete([2, 3]))(torch.from_numpy(values)).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert make(Discrete(3))(torch.from_numpy(values[1])).tolist() == [[1, 0, 0], [0, 0, 1]]


# -- composite -----------------------------------------------------------------------------------------------------------------

NESTED = Dict(
    {
        "b": Tuple((Discrete(2, start=1), Box(-9, 9, (2,), np.float64))),
        "a": Dict({"x": MultiBinary(2), "w": MultiDiscrete([2, 2])}),
    }
)


def test_leaves_stand_side_by_side_in_the_order_of_the_space():
    inputs = make(NESTED)
    assert list(inputs.leaves) == list(spaces.leaves(NESTED)) == ["a/w", "a/x", "b/0", "b/1"]  # Gymnasium sorts keys
    assert inputs.size == 4 + 2 + 2 + 2
    arrays = {
        "b/1": torch.tensor([[7.0, -8.0]], dtype=torch.float64), "a/x": torch.tensor([[1, 0]], dtype=torch.int8),
        "b/0": torch.tensor([2]), "a/w": torch.tensor([[0, 1]]),
    }  # fmt: skip
    expected = [[1, 0, 0, 1, 1, 0, 0, 1, 7, -8]]
    assert inputs(arrays).tolist() == expected
    assert inputs(dict(reversed(arrays.items()))).tolist() == expected  # the order of the arrays means nothing


def test_a_flattened_observation_is_read_as_it_was():
    inputs = make(NESTED)
    NESTED.seed(0)
    value = NESTED.sample()
    rows = {path: torch.from_numpy(np.asarray(array)[None]) for path, array in spaces.flatten(NESTED, value).items()}
    kept = [value["a"]["w"], value["a"]["x"], value["b"][0], value["b"][1]]
    one_hot = np.eye(2)[kept[0]].ravel(), kept[1], np.eye(2)[kept[2] - 1], kept[3]
    assert inputs(rows)[0].tolist() == pytest.approx(np.concatenate(one_hot).tolist())


def test_a_part_of_a_space_that_can_not_be_read_is_named():
    space = Dict({"a": Box(-1, 1, (1,)), "words": gymnasium.spaces.Text(3)})
    with pytest.raises(ConfigError, match=r"env\.observation_space=Dict\(.*: Text\(.*can't be read; this agent reads Box, Disc"):
        make(space)
    with pytest.raises(ConfigError, match=r"env\.state_space=Sequence"):
        Inputs(gymnasium.spaces.Sequence(Discrete(2)), CPU, normalize=False, key="env.state_space")


# -- statistics ----------------------------------------------------------------------------------------------------------------


def test_reading_never_moves_the_statistics_and_folding_does():
    inputs = make(Box(-np.inf, np.inf, (1,)), normalize=True)
    rows = torch.tensor([[1.0], [3.0]])
    assert inputs(rows).tolist() == [[1.0], [3.0]]  # nothing is known yet
    inputs.fold(rows, None)
    # mean 2, variance 1
    for _ in range(3):
        assert inputs(torch.tensor([[1.0], [2.0], [5.0]])).flatten().tolist() == pytest.approx([-1.0, 0.0, 3.0], abs=1e-6)
    assert float(inputs.moments.count) == 2
    inputs.fold(torch.tensor([[8.0]]), None)
    # 1, 3, 8: mean 4, variance (9 + 1 + 16) / 3
    assert inputs(torch.tensor([[8.0]])).item() == pytest.approx(4 / (26 / 3) ** 0.5, abs=1e-6)


def test_rows_of_weight_zero_are_not_folded_in():
    inputs = make(Box(-np.inf, np.inf, (1,)), normalize=True)
    inputs.fold(torch.tensor([[1.0], [1e9], [3.0]]), torch.tensor([1.0, 0.0, 1.0]))
    assert [float(inputs.moments.mean), float(inputs.moments.variance), float(inputs.moments.count)] == [2.0, 1.0, 2.0]


def test_what_is_far_out_is_clipped_to_ten_deviations():
    inputs = make(Box(-np.inf, np.inf, (1,)), normalize=True)
    inputs.fold(torch.tensor([[1.0], [3.0]]), None)
    assert inputs(torch.tensor([[1e6], [-1e6]])).tolist() == [[10.0], [-10.0]]


def test_statistics_of_composite_observations_are_those_of_the_columns():
    inputs = make(Dict({"n": Box(-9, 9, (1,)), "c": Discrete(2)}), normalize=True)
    rows = {"n": torch.tensor([[2.0], [4.0], [6.0], [8.0]]), "c": torch.tensor([0, 0, 0, 1])}
    inputs.fold(rows, None)
    assert inputs.moments.mean.tolist() == [0.75, 0.25, 5.0] and inputs.moments.variance.tolist() == [0.1875, 0.1875, 5.0]
    normalized = inputs(rows)
    assert normalized.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert normalized.std(0, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_without_normalising_nothing_is_folded_in():
    inputs = make(Box(-9, 9, (1,)))
    inputs.fold(torch.tensor([[1.0], [3.0]]), None)
    assert float(inputs.moments.count) == 0 and inputs(torch.tensor([[7.0]])).tolist() == [[7.0]]


def test_observations_are_not_written_to():
    rows = torch.tensor([[1.0], [3.0]])
    inputs, kept = make(Box(-9, 9, (1,)), normalize=True), rows.clone()
    inputs.fold(rows, None)
    inputs(rows)
    assert torch.equal(rows, kept)
