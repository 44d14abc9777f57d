"""Random actions: in every space, by member, as far as masks allow, the same from the same seed."""

import numpy as np
import pytest
from gymnasium import spaces

from rltrain.agents.random import RandomAgent

SPACES = [spaces.Discrete(3, start=2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.Box(-2, 1, (2,), np.float32)]


def drawn(agent, masks=None, seed=3, times=50):
    agent.begin_evaluation(2, seed)
    return [agent.act(None, None, masks, timestep=0) for _ in range(times)]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_actions_are_of_the_space_and_of_the_seed(space):
    rows = np.concatenate(drawn(RandomAgent("a", space)))
    assert all(space.contains(row) for row in rows) and (rows.max(axis=0) > rows.min(axis=0)).all()
    again, other = (np.concatenate(drawn(RandomAgent("b", space), seed=seed)) for seed in (3, 4))
    assert np.array_equal(rows, again) and not np.array_equal(rows, other)


def test_masks_by_member():
    """Copy 0 may do the last choice only, copy 1 all but it; the parts of b likewise."""
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.MultiDiscrete([2, 2]), "c": spaces.Discrete(2)})
    masks = {"a": np.array([[0, 0, 1], [1, 1, 0]], bool), "b": np.array([[0, 1, 1, 0], [1, 0, 1, 1]], bool)}
    rows = drawn(RandomAgent("team", space, ("a", "b", "c")), masks)
    assert {tuple(row["a"]) for row in rows} == {(2, 0), (2, 1)}
    assert {tuple(row["b"].ravel()) for row in rows} == {(1, 0, 0, 0), (1, 0, 0, 1)}
    assert {value for row in rows for value in row["c"]} == {0, 1}
