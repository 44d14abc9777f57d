"""Curves on a grid, which runs count, what is said of the others, one group against another."""

import json

import numpy as np
import pytest
from made_runs import EVALUATION, RETURN, START, make_run, make_sweep

from rltrain.errors import ConfigError
from rltrain.results import statistics
from rltrain.results.curves import choose_metric, on_grid, read_curves
from rltrain.results.groups import make_groups
from rltrain.results.marks import marks_of
from rltrain.results.normalizing import Scale
from rltrain.results.records import read_runs
from rltrain.results.standing import choose_pair, improvement, stand, stand_over_tasks


def read(*places, metric=EVALUATION):
    return read_curves(read_runs(places), metric)


def groups(*places, metric=EVALUATION):
    return make_groups(read(*places, metric=metric))


# -- curves ----------------------------------------------------------------------------------------------------------------


def test_curves_of_the_same_points_keep_them(tmp_path):
    make_run(tmp_path / "a", scores=[1.0, 2.0, 3.0])
    make_run(tmp_path / "b", scores=[3.0, 2.0])
    grid, values = on_grid(read(tmp_path), "env_steps")
    assert grid.tolist() == [100, 200, 300]
    np.testing.assert_equal(values, [[1, 2, 3], [3, 2, np.nan]])


def test_curves_of_other_points_are_interpolated_but_not_continued(tmp_path):
    make_run(tmp_path / "a", scores=[1.0, 3.0], every=200)
    make_run(tmp_path / "b", scores=[5.0], every=300)
    grid, values = on_grid(read(tmp_path), "env_steps")
    assert grid.tolist() == [200, 300, 400]
    np.testing.assert_equal(values, [[1, 2, 3], [np.nan, 5, np.nan]])
    many, _ = on_grid(read(tmp_path), "env_steps", most=2)
    assert many.tolist() == [200, 400]


def test_time_leaves_out_what_lies_between_a_stop_and_a_resume(tmp_path):
    """Rows come 1, 2 and 3 s after the start; the third one's is moved to 1003 s, after a resume 1001 s after the start."""
    resumed = [{"time": "2027-01-15T08:16:41+00:00", "timestep": 200}]
    run = make_run(tmp_path / "a", starts=resumed)
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace(f'"wall_time": {START + 3}', f'"wall_time": {START + 1003}'))
    assert read(run)[0].seconds.tolist() == [1, 2, 2 + 2]  # 2 s after the resume


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    run = make_run(tmp_path / "a")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace(f'"{EVALUATION}": 3.0', f'"{EVALUATION}": null'))
    assert read(run)[0].values.tolist() == [1, 2]


def test_evaluations_are_compared_where_every_run_that_is_over_has_them(tmp_path):
    make_run(tmp_path / "a")
    assert choose_metric(read_runs([tmp_path])) == (EVALUATION, "evaluations during training")
    make_run(tmp_path / "b", tag="loss/value")
    metric, why = choose_metric(read_runs([tmp_path]))
    assert metric == RETURN and "only 1 of 2 were evaluated" in why
    metric, why = choose_metric(read_runs([tmp_path / "b"]))
    assert metric == RETURN and "no evaluations" in why


def test_a_metric_that_no_run_has(tmp_path):
    make_run(tmp_path / "a")
    with pytest.raises(
        ConfigError, match=r"^metric=evaluation/episode_return: no run .* did you mean 'evaluation/episode_return_mean'"
    ):
        read(tmp_path, metric="evaluation/episode_return")
    make_run(tmp_path / "b", scores=[])
    with pytest.raises(ConfigError, match=r"no run has written metrics yet \(1 finished\)"):
        read(tmp_path / "b")


# -- standing --------------------------------------------------------------------------------------------------------------


def test_numbers_of_a_group(tmp_path):
    (group,) = groups(make_sweep(tmp_path, rates=[0.01]))  # final scores 2, 3, 4, 5, 6
    standing = stand(group, "CartPole-v1")
    assert (standing.n, standing.mean, standing.median, standing.iqm, standing.best) == (5, 4, 4, 4, 6)
    assert standing.interval == pytest.approx(statistics.interval(statistics.iqm, [np.array([2.0, 3, 4, 5, 6])]))
    assert (standing.env_steps_per_second, standing.failures, standing.so_far) == (100, 0, False)


def test_fewer_than_five_runs_claim_no_interval(tmp_path):
    (group,) = groups(make_sweep(tmp_path, rates=[0.01], seeds=[1, 2, 3, 4]))
    standing = stand(group, "CartPole-v1")
    assert (standing.n, standing.interval) == (4, None)


def test_finished_runs_count_and_the_others_are_said(tmp_path):
    make_run(tmp_path / "a", seed=1, scores=[0.0, 10.0])
    make_run(tmp_path / "b", seed=2, scores=[0.0, 20.0])
    make_run(tmp_path / "c", seed=3, scores=[99.0], reason="failed: ValueError: no")
    make_run(tmp_path / "d", seed=4, scores=[99.0], reason="stopped by SIGTERM")
    make_run(tmp_path / "e", seed=5, scores=[99.0], reason=None)
    (group,) = groups(tmp_path)
    standing = stand(group, "CartPole-v1")
    assert (standing.n, standing.mean, standing.failures) == (2, 15, 2)  # the killed one failed, too
    marks = {curve.record.directory.name: marks_of(curve, group.curves, EVALUATION) for curve in group.curves}
    assert (marks["a"], marks["b"]) == ([], [])
    assert marks["c"] == ["failed: ValueError: no at 33 %"]
    assert marks["d"] == ["stopped by SIGTERM at 33 %"]
    assert marks["e"] == ["unfinished at 33 %"]


def test_without_a_finished_run_those_under_way_count(tmp_path):
    make_run(tmp_path / "a", scores=[1.0, 5.0], reason=None)
    (group,) = groups(tmp_path)
    standing = stand(group, "CartPole-v1")
    assert (standing.n, standing.mean, standing.so_far) == (1, 5, True)
    make_run(tmp_path / "b" / "c", scores=[], reason="failed: at once")
    assert stand(groups(tmp_path)[0], "CartPole-v1").n == 1
    assert stand(make_groups(read(tmp_path))[0], "CartPole-v1").failures == 2


@pytest.mark.parametrize(
    ("how", "mark"),
    [
        ({"version": "0.9"}, "versions: rltrain 0.9 torch 2, others rltrain 1.0 torch 2"),
        ({"host": "there"}, "machine: there cpu, others here cpu"),
        ({"steps": 600}, "600 env steps, others 300 env steps"),
        (
            {"settings": {"evaluation": {"interval": 7, "episodes": 10}}},
            "evaluated every 7 timesteps, 10 episodes, others every 100",
        ),
        (
            {"starts": [{"time": "2027-01-15T09:00:00+00:00", "changed": {"total_env_steps": 9, "seed": 2}}]},
            "resumed once, with other seed",
        ),
        ({"scores": []}, f"has no {EVALUATION}"),
    ],
)
def test_runs_that_are_not_like_the_others_are_marked(tmp_path, how, mark):
    make_run(tmp_path / "a", seed=1)
    make_run(tmp_path / "b", seed=2)
    make_run(tmp_path / "c", seed=3, **how)
    (group,) = groups(tmp_path)
    found = [marks_of(curve, group.curves, EVALUATION) for curve in group.curves]
    assert found[:2] == [[], []] and any(mark in one for one in found[2]), found


def test_runs_of_one_seed_are_said_to_be_alike(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        make_run(tmp_path / name, seed=seed, agents={"ppo": {"count": 2}})
    (group,) = groups(tmp_path)
    found = [marks_of(curve, group.curves, EVALUATION) for curve in group.curves]
    names = [curve.record.name for curve in group.curves[::2]]
    assert found == [[f"has the seed of {names[2]}"]] * 2 + [[]] * 2 + [[f"has the seed of {names[0]}"]] * 2


def test_over_tasks(tmp_path):
    make_sweep(tmp_path / "a", rates=[0.01], env="A-v0")  # 2 to 6
    make_sweep(tmp_path / "b", rates=[0.01], env="B-v0", seeds=[1, 2, 3, 4, 5, 9])  # 2 to 6, and 10
    make_sweep(tmp_path / "c", rates=[0.01], env="C-v0")  # of which no scale is known
    (group,) = groups(tmp_path)
    scales = {"A-v0": Scale(0, 10, ""), "B-v0": Scale(2, 4, "")}
    standing = stand_over_tasks(group, ["A-v0", "B-v0", "C-v0"], scales)
    a, b = np.array([0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0, 0.5, 1, 1.5, 2, 4])
    assert (standing.n, standing.tasks, standing.mean) == (11, 2, pytest.approx((a.mean() + b.mean()) / 2))
    assert standing.iqm == pytest.approx(np.sort([*a, *b])[2:-2].mean())
    assert standing.optimality_gap == pytest.approx(1 - np.minimum([*a, *b], 1).mean())
    assert stand_over_tasks(group, ["C-v0"], scales) is None


# -- one against another ---------------------------------------------------------------------------------------------------


def test_improvement_on_all_pairs_and_on_equal_seeds(tmp_path):
    low, high = groups(make_sweep(tmp_path, rates=[0.001, 0.01]))  # the second one is 0.9 higher on every seed
    found = improvement(high, low, ["CartPole-v1"])
    assert found.probability == 15 / 25  # of seeds i and j, where i >= j
    assert (found.pairs, found.paired, found.paired_interval) == (5, 1, (1, 1))
    assert found.interval[0] < 0.6 < found.interval[1]


def test_improvement_without_common_seeds(tmp_path):
    make_sweep(tmp_path / "a", rates=[0.01], seeds=[1, 2])
    make_sweep(tmp_path / "b", rates=[0.02], seeds=[3, 4])
    found = improvement(*reversed(groups(tmp_path)), ["CartPole-v1"])
    assert (found.probability, found.interval, found.pairs, found.paired) == (1, None, 0, None)


def test_agents_that_are_seeds_of_one_run_are_paired_by_their_place(tmp_path):
    for rate in (0.1, 0.2):
        scores = {"ppo_0": [rate], "ppo_1": [1 - rate]}
        make_run(tmp_path / str(rate), agents={"ppo": {"learning_rate": rate, "count": 2}}, scores=scores)
    low, high = groups(tmp_path)
    found = improvement(high, low, ["CartPole-v1"])
    assert (found.pairs, found.paired, found.probability) == (2, 0.5, 0.5)  # 0.2 > 0.1, 0.8 < 0.9; of all: both beat 0.1


def test_which_groups_are_compared(tmp_path):
    made = groups(make_sweep(tmp_path, rates=[0.001, 0.01, 0.011], seeds=[1]))
    assert [group.name for group in choose_pair(made, ["0.01", "learning_rate=0.001"])] == [
        "learning_rate=0.01",
        "learning_rate=0.001",
    ]
    for wanted, says in {
        ("0.01",): "must be two groups",
        ("0.01", "0.01"): "is one group twice",
        ("0.01", "0.5"): "no such group",
        ("0.01", "rate"): "means several groups",
    }.items():
        with pytest.raises(ConfigError, match=says):
            choose_pair(made, wanted)


def test_json_of_a_damaged_run_is_said(tmp_path):
    make_run(tmp_path / "a")
    (make_run(tmp_path / "b", seed=2) / "summary.json").write_text(json.dumps([]))
    (group,) = groups(tmp_path)
    assert "summary.json can't be read" in marks_of(group.curves[1], group.curves, EVALUATION)
