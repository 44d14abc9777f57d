"""Scores of tasks: those that are shipped, those of one's own, and files that are none."""

import gymnasium
import numpy as np
import pytest
import yaml

from rltrain.errors import ConfigError
from rltrain.results.normalizing import SHIPPED, read_scales


def test_shipped_scores():
    scales = read_scales(["CartPole-v1", "Nowhere-v0", "ALE/Pong-v5"])
    assert list(scales) == ["CartPole-v1", "ALE/Pong-v5"]
    assert scales["CartPole-v1"].normalize(np.array([22.1, 475.0, 248.55])).tolist() == pytest.approx([0, 1, 0.5])
    assert "reward_threshold" in scales["CartPole-v1"].source and "Wang et al. 2016" in scales["ALE/Pong-v5"].source


def test_references_are_the_thresholds_of_gymnasium():
    shipped = yaml.safe_load(SHIPPED.read_text())
    tasks = [task for source, tasks in shipped.items() if "reward_threshold" in source for task in tasks]
    scales = read_scales(tasks)
    assert {task: scales[task].reference for task in tasks} == {task: gymnasium.spec(task).reward_threshold for task in tasks}
    every = read_scales([task for tasks in shipped.values() for task in tasks])
    assert len(every) == 64 and all(scale.random < scale.reference for scale in every.values())


def test_scores_of_ones_own_win(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "mine:\n  CartPole-v1: {random: 0, reference: 500}\n  Own-v0: {random: -1, reference: 1}\n"
    )
    scales = read_scales(["CartPole-v1", "Own-v0"], str(tmp_path / "own.yaml"))
    assert {task: (one.random, one.reference, one.source) for task, one in scales.items()} == {
        "CartPole-v1": (0, 500, "mine"),
        "Own-v0": (-1, 1, "mine"),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "can't be read"),
        ("a: [", "can't be read"),
        ("- 1", "must be sources"),
        ("mine: {Own-v0: {random: 1}}", "Own-v0: must be {random: NUMBER"),
        ("mine: {Own-v0: {random: 1, reference: 1}}", "Own-v0: must be"),
        ("mine: {Own-v0: {random: .nan, reference: 1}}", "Own-v0: must be"),
        ("mine: {Own-v0: 3}", "Own-v0: must be"),
    ],
)
def test_files_that_hold_no_scores(tmp_path, text, says):
    file = tmp_path / "own.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"^scores=.*own\S*: ") as error:
        read_scales(["Own-v0"], str(file))
    assert says in str(error.value)
