"""Which episodes count, and the figures made of them, against numbers worked out by hand."""

import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.evaluation import EpisodeCounter, TeamCounter, episode_quota, interquartile_mean, summarize
from rltrain.structures import Step
from rltrain.trainers import SequentialTrainer


def step(rewards, terminated=None, truncated=None, valid=None, **infos) -> Step:
    none = np.zeros(len(rewards), bool)
    flags = [none if flag is None else np.array(flag, bool) for flag in (terminated, truncated)]
    valid = None if valid is None else np.array(valid)
    return Step(np.zeros((len(rewards), 1)), None, np.array(rewards, np.float32), *flags, valid, infos)


@pytest.mark.parametrize(
    ("episodes", "copies", "quota"),
    [(10, 4, [3, 3, 2, 2]), (8, 4, [2, 2, 2, 2]), (3, 4, [1, 1, 1, 0]), (1, 1, [1]), (5, 2, [3, 2])],
)
def test_quota(episodes, copies, quota):
    assert episode_quota(episodes, copies).tolist() == quota


def test_each_copys_first_episodes_count_not_the_first_to_end():
    counter = EpisodeCounter(episode_quota(3, 2))  # two of copy 0, one of copy 1
    # copy 0 ends an episode at every step, with returns 1, 2, 3, 4; copy 1 plays one of four steps, return 10 + 20 + 30 + 40
    for t in range(4):
        assert counter.is_full is False
        done = counter.record(step([t + 1, 10 * (t + 1)], terminated=[True, False], truncated=[False, t == 3]))
        assert done.tolist() == [True, t == 3]
    assert counter.is_full
    assert counter.results() == {"returns": [1.0, 2.0, 100.0], "lengths": [1, 1, 4], "successes": []}


def test_a_copy_without_a_quota_is_not_waited_for():
    counter = EpisodeCounter(np.array([1, 0]))
    counter.record(step([5, 7], terminated=[True, True]))
    assert counter.is_full and counter.results()["returns"] == [5.0]


def test_rows_that_did_not_happen_count_for_nothing():
    counter = EpisodeCounter(np.array([2]))
    for reward, terminated, valid in ((1, True, True), (99, False, False), (2, False, True), (3, True, True)):
        counter.record(step([reward], terminated=[terminated], valid=[valid]))
    assert counter.results() == {"returns": [1.0, 5.0], "lengths": [1, 2], "successes": []}


def test_successes_are_taken_at_the_end_of_episodes():
    counter = EpisodeCounter(np.array([2, 1]))
    counter.record(step([0, 0], is_success=np.array([True, True])))
    counter.record(step([0, 0], terminated=[True, True], is_success=np.array([False, True])))
    counter.record(step([0, 0], terminated=[True, False], is_success=np.array([True, False])))
    assert counter.results()["successes"] == [0.0, 1.0, 1.0]


def evaluate(episodes: int | None, timesteps: int = 1) -> dict:
    """Evaluate on native copies of 2 and 50 steps, whose returns are 1 + 2 = 3 and 1 + ... + 50 = 1275."""
    cfg = {"id": "sample_envs:Counting-v0", "num_envs": 2, "vectorization": "native", "kwargs": {"lengths": (2, 50)}}
    env = GymnasiumEnv(cfg)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=2))
    return SequentialTrainer(env, agent, cfg={"timesteps": timesteps, "disable_progressbar": True}).eval(episodes)["agent"]


def test_short_episodes_do_not_crowd_out_long_ones():
    # the first five to end would be 3, 3, 3, 3, 3
    assert evaluate(5) == {"returns": [3.0, 3.0, 3.0, 1275.0, 1275.0], "lengths": [2, 2, 2, 50, 50], "successes": []}


def test_without_a_number_of_episodes_all_that_end_in_the_timesteps_count():
    # copy 0: two steps and a dummy row, over and over: its 20 turns hold 7 episodes; copy 1 is in its first
    assert evaluate(None, timesteps=20)["returns"] == [3.0] * 7


def test_the_same_evaluation_twice_starts_from_the_same_seeds():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 3}, seed=5)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=3))
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 1, "disable_progressbar": True, "stochastic_evaluation": True})
    first = trainer.eval(7)["agent"]
    assert len(first["returns"]) == 7 and len(set(first["returns"])) > 1
    assert trainer.eval(7)["agent"] == first


# -- figures -----------------------------------------------------------------------------------------------------------------


def test_summary_by_hand():
    # sorted 1 2 3 4 5 6 7 20: mean 48/8 = 6; deviations squared 25 16 9 4 1 0 1 196 = 252, / 7 = 36
    returns = [20.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0]
    figures = summarize({"returns": returns, "lengths": [1, 2, 3, 4, 5, 6, 7, 8], "successes": [1.0, 0.0, 0.0, 0.0]})
    low, high = figures.pop("mean_interval")
    assert figures == {
        "episodes": 8, "mean": 6.0, "std": 6.0, "median": 4.5, "iqm": 4.5, "min": 1.0, "max": 20.0, "length_mean": 4.5,
        "success_rate": 0.25,
    }  # fmt: skip
    # the standard error is sqrt(252/8) / sqrt(8) = 1.98; the distribution is skewed to the right
    assert 2.8 < low < 3.5 and 9.8 < high < 10.9 and high - 6 > 6 - low


def test_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        results = {"returns": generator.normal(10, 3, 100).tolist(), "lengths": [1], "successes": []}
        low, high = summarize(results, resamples=400)["mean_interval"]
        hits += low <= 10 <= high
    assert 180 <= hits <= 199  # 95 % of 200 is 190; four standard errors are 12


def test_summary_is_the_same_for_the_same_episodes():
    results = {"returns": list(np.random.default_rng(1).normal(size=30)), "lengths": [1], "successes": []}
    np.random.seed(1)
    first = summarize(results)
    np.random.seed(2)
    assert summarize(results) == first


def test_many_episodes_need_little_memory():
    import tracemalloc

    results = {"returns": [1.0, 2.0] * 10_000, "lengths": [1], "successes": []}
    tracemalloc.start()
    low, high = summarize(results, resamples=1000)["mean_interval"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 1.5 +- 1.96 x 0.5 / sqrt(20000) = 1.5 +- 0.00693
    assert [low, high] == pytest.approx([1.49307, 1.50693], abs=1e-3)
    assert peak < 100e6  # at once, 1000 x 20000 picks would take 320 MB


def test_one_episode_and_none():
    one = summarize({"returns": [4.0], "lengths": [9], "successes": []})
    assert one["mean"] == one["median"] == one["iqm"] == 4.0 and one["std"] == 0.0 and one["mean_interval"] == [4.0, 4.0]
    assert one["success_rate"] is None
    none = summarize({"returns": [], "lengths": [], "successes": []})
    assert none["episodes"] == 0 and none["mean"] is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 4.5),  # 3 4 5 6
        ([8, 100, 1, 5], 6.5),  # 5 8
        ([1, 2, 9], 4.0),  # a quarter of three, rounded down: none is dropped
        ([0, 1, 2, 3, 1000], 2.0),  # 1 2 3
        ([7], 7.0),
    ],
)
def test_interquartile_mean(values, expected):
    assert interquartile_mean(np.array(values)) == expected


def test_a_team_by_hand():
    """One copy, two episodes that count: in the first only a takes part, in the second b leaves first; a third is too many."""
    counter = TeamCounter(np.array([2]), ["a", "b"])

    def play(a, b, over, valid=(True, True), b_leaves=False):
        flags = {"a": np.array([over]), "b": np.array([over or b_leaves])}
        rewards = {"a": np.array([a], np.float32), "b": np.array([b], np.float32)}
        none = {name: np.zeros(1, bool) for name in rewards}
        valid = {name: np.array([here]) for name, here in zip(("a", "b"), valid, strict=True)}
        return counter.record(Step({}, None, rewards, flags, none, valid, {}))

    play(1, 9, False, valid=(True, False))
    assert play(2, 9, True, valid=(True, False)).tolist() == [True]
    assert play(3, 5, False, b_leaves=True).tolist() == [False] and not counter.is_full
    play(4, 9, True, valid=(True, False))
    assert counter.is_full
    play(50, 50, True)
    results = counter.results()
    assert results["returns"] == [3, (7 + 5) / 2] and results["lengths"] == [2, 2]
    assert results["members"]["a"] == {"returns": [3, 7], "lengths": [2, 2], "successes": []}
    assert results["members"]["b"] == {"returns": [5], "lengths": [1], "successes": []}
    figures = summarize(results)
    assert figures["mean"] == 4.5 and figures["sum_mean"] == (3 + 12) / 2 and figures["members"]["b"]["mean"] == 5
