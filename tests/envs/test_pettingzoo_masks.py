"""Masks of named members: beside observations, in infos, of environments that take turns; and what doesn't fit."""

import numpy as np
import pytest

pytest.importorskip("pettingzoo")

from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from team_envs import Doors, DoorsInInfos, DoorsInTurns

from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.envs.pettingzoo_masks import Masks
from rltrain.errors import EnvironmentFailure


def make(kind, copies=2):
    return PettingZooEnv({"id": "doors", "num_envs": copies}, seed=1, make=kind)


@pytest.mark.parametrize("kind", [Doors, DoorsInInfos, DoorsInTurns])
def test_masks_go_with_the_observations_to_act_on(kind):
    env = make(kind)
    observations = env.reset()
    assert {key: array.shape for key, array in observations.items()} == (
        {"a/observation": (2, 2), "b/observation": (2, 2), "b/sign": (2,)} if kind is DoorsInInfos
        else {"a": (2, 2), "b/observation": (2, 2), "b/sign": (2,)}
    )  # fmt: skip
    where = "a/observation" if kind is DoorsInInfos else "a"
    for t in range(9):  # over two ends of episodes
        open_door = (observations[where].sum(axis=1) % 3).astype(int)
        masks = env.action_masks()
        assert masks["a"].tolist() == np.eye(3, dtype=bool)[open_door].tolist()
        assert masks["b"].tolist() == (np.eye(3, dtype=bool)[open_door] | np.eye(3, dtype=bool)[2]).tolist()
        step = env.step({"a": open_door, "b": np.array([2, 2])})
        assert step.truncated["a"].all() == ((t + 1) % 4 == 0) and not step.terminated["b"].any()
        observations = env.reset_done()


def test_what_only_masks_are_taken_out_of():
    """A mask alone stays what is seen; where there are no choices it is an observation as any other."""
    mask, box, two = Box(0, 1, (2,), np.int8), Box(0, 1, (1,), np.float32), Discrete(2)
    observed = {
        "a": Dict({"action_mask": mask}),
        "b": Dict({"action_mask": mask, "x": box}),
        "c": Dict({"action_mask": mask, "x": box}),
    }
    masks = Masks("here", 1, observed, {"a": two, "b": two, "c": box})
    assert masks.spaces == {"a": observed["a"], "b": Dict({"x": box}), "c": observed["c"]}
    assert masks.rows["a"].tolist() == [[True, True]] and list(masks.rows) == ["a", "b"]
    masks.take(0, {"b": {"action_mask": np.array([0, 1], np.int8), "x": 5}}, {})
    assert masks.rows["b"].tolist() == [[False, True]] and masks.observed("b", {"action_mask": 0, "x": 5}) == {"x": 5}


def test_a_member_that_is_not_there_may_do_anything():
    masks = Masks("here", 2, {"a": Box(0, 1)}, {"a": MultiDiscrete([2, 2])})
    there = np.array([True, False])
    assert masks.allowed({"a": there}, 0) is None
    masks.take(0, {}, {"a": {"action_mask": [1, 0, 0, 1]}})
    masks.take(1, {}, {"a": {"action_mask": [0, 0, 0, 0]}})
    assert masks.allowed({"a": there}, 0)["a"].tolist() == [[True, False, False, True], [True] * 4]
    masks.forget(np.array([True, False]))
    assert masks.rows["a"].tolist() == [[True] * 4, [False] * 4]
    masks.take(0, {}, {"a": {"action_mask": [1, 0, 0, 0]}})
    with pytest.raises(EnvironmentFailure, match="here: copy 5: action_mask of a allows no action in dimension 1"):
        masks.allowed({"a": there}, 5)


def test_masks_that_do_not_fit():
    masks = Masks("here", 1, {"a": Box(0, 1)}, {"a": Discrete(3)})
    for wrong, shape in ((1, r"\(\)"), ([1, 1], r"\(2,\)")):
        with pytest.raises(
            EnvironmentFailure, match=rf"here: action_mask of a: expected one number per choice, \(3,\), got {shape}"
        ):
            masks.take(0, {}, {"a": {"action_mask": wrong}})
    env = make(lambda: Doors(closed_at=1))
    env.reset()
    open_door = np.argmax(env.action_masks()["a"], axis=1)
    env.step({"a": open_door, "b": open_door})
    with pytest.raises(EnvironmentFailure, match=r"env\.id=doors: copy 0: action_mask of a allows no action"):
        env.action_masks()


def test_masks_that_come_after_the_first_reset_are_refused():
    """A rollout whose first row has none would have lost them without a word."""

    class Tardy(DoorsInInfos):
        def infos(self):
            return super().infos() if self.count else {name: {} for name in self.agents}

    env = make(Tardy)
    env.reset()
    assert env.action_masks() is None
    open_door = np.array([copy.env.start % 3 for copy in env._copies])
    sentence = "env.id=doors: action_mask of a comes after a step, but nobody's did after reset; give it there too"
    with pytest.raises(EnvironmentFailure, match=sentence):
        env.step({"a": open_door, "b": open_door})


def test_masks_are_kept():
    env, other = make(Doors), make(Doors)
    env.reset()
    env.step({name: np.argmax(mask, axis=1) for name, mask in env.action_masks().items()})
    env.reset_done()
    other.restore(other.join_snapshots(env.cut_snapshot(env.snapshot(), [1, 1])))
    np.testing.assert_equal(other.action_masks(), env.action_masks())
