"""Episode statistics by hand; metrics in files that stay right when a run is killed and goes on."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rltrain.tracking import WINDOW, EpisodeStatistics, MetricsWriter, TeamStatistics, replace_text


def flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


def rewards(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# -- episode statistics --------------------------------------------------------------------------------------------------------


def test_a_team_by_hand():
    """Two copies: b takes part in the second one only. An episode's return is the mean over those who took part."""
    statistics = TeamStatistics(2, ["a", "b"])
    none, there = flags(0, 0), {"a": flags(1, 1), "b": flags(0, 1)}
    assert (
        statistics.record({"a": rewards(1, 2), "b": rewards(9, 4)}, {"a": none, "b": none}, {"a": none, "b": none}, there) is None
    )
    ends = {"a": flags(1, 1), "b": flags(1, 1)}
    done = statistics.record({"a": rewards(1, 2), "b": rewards(9, 8)}, ends, {"a": none, "b": none}, there)
    assert done.tolist() == [True, True]
    assert list(statistics.returns) == [2, (4 + 12) / 2] and statistics.env_steps == 4 and statistics.episodes == 2
    summary = statistics.summary()["members"]
    assert summary["b"] == {"env_steps": 2, "episodes": 1, "episode_return_mean": 12, "episode_length_mean": 2}
    assert summary["a"]["episode_return_mean"] == 3 and summary["a"]["env_steps"] == 4
    other = TeamStatistics(2, ["a", "b"])
    other.restore(statistics.snapshot())
    assert other.summary() == statistics.summary()


def test_a_teams_rollout_at_once_is_as_step_by_step():
    """Member b takes part in half of the steps; episodes of single copies end within."""
    generator = np.random.default_rng(0)
    gains = {name: generator.normal(size=(7, 2)).astype(np.float32) for name in "ab"}
    there = {"a": np.ones((7, 2), bool), "b": generator.random((7, 2)) < 0.5}
    done = np.zeros((7, 2), bool)
    done[[1, 3, 4], [0, 1, 0]] = True
    one, other = TeamStatistics(2, ["a", "b"]), TeamStatistics(2, ["a", "b"])
    one.record_rollout(gains, done, there)
    for t in range(7):
        ends = dict.fromkeys("ab", done[t])
        rows = ({name: values[name][t] for name in "ab"} for values in (gains, there))
        other.record(next(rows), ends, dict.fromkeys("ab", done[t] & False), next(rows))
    np.testing.assert_equal(one.snapshot(), other.snapshot())
    assert one.episodes == 3 and one.members["b"].env_steps == there["b"].sum() < 14


def test_returns_and_lengths_by_hand():
    statistics = EpisodeStatistics(2)
    assert statistics.summary() == {"env_steps": 0, "episodes": 0, "episode_return_mean": None, "episode_length_mean": None}
    assert statistics.record(rewards(1, 10), flags(0, 0), flags(0, 0)) is None
    assert statistics.record(rewards(2, 20), flags(1, 0), flags(0, 0)).tolist() == [True, False]
    assert statistics.record(rewards(4, 40), flags(0, 0), flags(0, 1)).tolist() == [False, True]
    assert statistics.record(rewards(8, 80), flags(1, 0), flags(1, 0)).tolist() == [True, False]
    # copy 0: 1 + 2, then 4 + 8; copy 1: 10 + 20 + 40, and 80 in the running episode
    assert list(statistics.returns) == [3.0, 70.0, 12.0] and list(statistics.lengths) == [2, 3, 2]
    assert statistics.summary() == {"env_steps": 8, "episodes": 3, "episode_return_mean": 85 / 3, "episode_length_mean": 7 / 3}


def test_rows_that_did_not_happen_count_for_nothing():
    statistics = EpisodeStatistics(2)
    statistics.record(rewards(1, 1), flags(1, 0), flags(0, 0))
    statistics.record(rewards(99, 1), flags(0, 0), flags(0, 0), flags(0, 1))  # copy 0 only resets
    statistics.record(rewards(1, 1), flags(1, 1), flags(0, 0), flags(1, 1))
    assert list(statistics.returns) == [1.0, 1.0, 3.0] and list(statistics.lengths) == [1, 1, 3]
    assert statistics.env_steps == 5


def test_the_last_hundred_episodes_make_the_mean():
    statistics = EpisodeStatistics(1)
    for i in range(WINDOW + 50):
        statistics.record(rewards(i), flags(1), flags(0))
    # 50 ... 149
    assert statistics.summary()["episode_return_mean"] == 99.5 and statistics.episodes == 150


def test_forgotten_episodes_begin_anew():
    statistics = EpisodeStatistics(2)
    statistics.record(rewards(5, 5), flags(0, 0), flags(0, 0))
    statistics.forget_running(flags(1, 0))
    statistics.record(rewards(1, 1), flags(1, 1), flags(0, 0))
    assert list(statistics.returns) == [1.0, 6.0] and list(statistics.lengths) == [1, 2]


def test_rewards_are_added_in_double_precision():
    statistics = EpisodeStatistics(1)
    statistics.record(rewards(2**24), flags(0), flags(0))
    for _ in range(10):
        statistics.record(rewards(1), flags(0), flags(0))
    statistics.record(rewards(0), flags(1), flags(0))
    assert list(statistics.returns) == [2**24 + 10]  # float32 would stay at 2^24


def test_an_environments_own_numbers_are_averaged_where_it_gave_them():
    statistics = EpisodeStatistics(3)
    # Gymnasium fills the copies that gave nothing with 0 and says so in `_r`
    statistics.record_info({"r": np.array([4.0, 0.0, 0.0]), "_r": flags(1, 0, 0), "speed": np.array([1.0, 2.0, 3.0])})
    statistics.record_info({"r": np.array([0.0, 8.0, 6.0]), "_r": flags(0, 1, 1), "name": np.array(["a", "b", "c"])})
    assert statistics.read_info() == {"info/r": 6.0, "info/speed": 2.0}
    assert statistics.read_info() == {}


def test_snapshot_and_restore():
    statistics, other = EpisodeStatistics(2), EpisodeStatistics(2)
    statistics.record(rewards(1, 10), flags(1, 0), flags(0, 0))
    statistics.record_info({"speed": np.array([1.0, 2.0])})
    snapshot = statistics.snapshot()
    statistics.record(rewards(7, 7), flags(0, 0), flags(0, 0))
    other.restore(snapshot)
    for one in (statistics, other):
        one.record(rewards(2, 20), flags(1, 1), flags(0, 0))
    assert list(other.returns) == [1.0, 2.0, 30.0] and list(other.lengths) == [1, 1, 2]  # without the sevens
    assert list(statistics.returns) == [1.0, 9.0, 37.0]
    assert other.env_steps == 4 and other.episodes == 3 and other.read_info() == {"info/speed": 1.5}


# -- metrics -------------------------------------------------------------------------------------------------------------------


def write(directory, timesteps, *, value=lambda t: float(t), resumed_at=None, agents=("ppo",), close=True, tensorboard=True):
    """Write a row per timestep and agent, four env steps each."""
    writer = MetricsWriter(directory, list(agents), tensorboard=tensorboard, resumed_at=resumed_at)
    for t in timesteps:
        for agent in agents:
            writer.write(agent, t, 4 * t, {"loss": value(t)})
    if close:
        writer.close()
    return writer


def rows(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def curve(directory) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("loss")]


def test_rows_are_written_as_they_come(tmp_path):
    writer = write(tmp_path, [10, 20], close=False)
    written = [(row["timestep"], row["env_steps"], row["agent"], row["loss"]) for row in rows(tmp_path)]
    assert written == [(10, 40, "ppo", 10.0), (20, 80, "ppo", 20.0)]
    writer.close()
    assert curve(tmp_path) == [(40, 10.0), (80, 20.0)]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write(tmp_path, [1, 2], value=lambda t: float("nan") if t == 1 else float("inf"))
    assert [row["loss"] for row in rows(tmp_path)] == [None, None]  # valid JSON


def test_a_run_that_goes_on_has_no_double_curve(tmp_path):
    # killed after timestep 50, half a row written; the last checkpoint is of timestep 30
    write(tmp_path, [10, 20, 30, 40, 50], close=False)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"wall_time": 1.0, "timest')
    write(tmp_path, [40, 50, 60], value=lambda t: -float(t), resumed_at=(30, {"ppo": 120}))
    expected = [(10, 10.0), (20, 20.0), (30, 30.0), (40, -40.0), (50, -50.0), (60, -60.0)]
    assert [(row["timestep"], row["loss"]) for row in rows(tmp_path)] == expected
    assert curve(tmp_path) == [(4 * t, loss) for t, loss in expected]


def test_killed_twice(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [20, 30, 40], value=lambda t: 100.0 + t, resumed_at=(10, {"ppo": 40}))
    write(tmp_path, [30, 40], value=lambda t: 200.0 + t, resumed_at=(20, {"ppo": 80}))
    expected = [(10, 10.0), (20, 120.0), (30, 230.0), (40, 240.0)]
    assert [(row["timestep"], row["loss"]) for row in rows(tmp_path)] == expected
    assert curve(tmp_path) == [(4 * t, loss) for t, loss in expected]


def test_a_fresh_run_cuts_nothing(tmp_path):
    write(tmp_path, [10])
    write(tmp_path, [5])
    assert [row["timestep"] for row in rows(tmp_path)] == [10, 5]


def test_several_agents_have_a_curve_each(tmp_path):
    write(tmp_path, [1, 2], agents=("a", "b"))
    assert [(row["agent"], row["timestep"]) for row in rows(tmp_path)] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert curve(tmp_path / "a") == curve(tmp_path / "b") == [(4, 1.0), (8, 2.0)]


def test_without_tensorboard_no_events_are_written(tmp_path):
    write(tmp_path, [1], tensorboard=False)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_replacing_a_file_that_cannot_be_written_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "text"
    replace_text(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
