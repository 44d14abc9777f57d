"""Copies of PettingZoo environments that go on where others stopped."""

import numpy as np
import pytest

pytest.importorskip("pettingzoo")

from team_envs import Forgetful, Relay
from team_plays import drawn, idle, relay, same

from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.envs.pettingzoo_snapshots import cut, join, pick
from rltrain.errors import EnvironmentFailure


@pytest.mark.parametrize("steps", [0, 1, 24, 25, 60])
def test_snapshot_goes_on_exactly(steps):
    env, other = (PettingZooEnv({"id": "mpe/simple_spread_v3", "num_envs": 2}, seed=5) for _ in range(2))
    generator = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        env.step(drawn(env, generator))
        env.reset_done()
    snapshot = env.snapshot()
    other.restore(other.join_snapshots(env.cut_snapshot(snapshot, [1, 1])))
    assert same(env.reset_done(), other.reset_done()) and same(env.state(), other.state())
    for _ in range(30):
        actions = drawn(env, generator)
        one, two = env.step(actions), other.step(actions)
        assert same(one.next_observations, two.next_observations) and same(one.rewards, two.rewards)
        assert same(env.reset_done(), other.reset_done()) and same(one.next_states, two.next_states)


def test_snapshot_of_members_that_come_and_go():
    env, other = relay(), relay()
    env.reset()
    for _ in range(3):
        env.step(idle(env))
        env.reset_done()
    other.restore(env.snapshot())
    assert other.step(idle(other)).valid["early"].tolist() == [False, False]


def test_no_snapshot_where_an_episode_comes_out_otherwise():
    env = relay(kind=Forgetful)
    env.reset()
    env.step(idle(env))
    assert env.snapshot() is None


def test_an_episode_is_its_seed_its_number_and_the_actions_by_member():
    """Three steps; early is gone after the second, late comes for the second."""
    env = relay()
    env.reset()
    for t in range(4 + 3):
        env.step({"early": np.full(2, 1), "late": np.full((2, 2), 0.1 * t), "steady": np.array([t % 2, 1])})
        env.reset_done()
    episode = pick(env.snapshot(), 0)
    assert (episode.seed, episode.number) == (env.seeds[0], 1)
    assert {name: rows.shape for name, rows in episode.played.items()} == {"early": (3,), "late": (3, 2), "steady": (3,)}
    assert episode.played["early"].tolist() == [1, 1, 0] and episode.played["steady"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(episode.played["late"][:, 0], [0, 0.5, 0.6])


def test_cut_and_joined_is_the_same():
    whole = {"seeds": [1, 2, 3], "there": {"a": np.array([True, False, True])}, "action_masks": None, "timestep": 7}
    one, two = cut(whole, [2, 1])
    assert (one["seeds"], two["seeds"], two["timestep"], two["action_masks"]) == ([1, 2], [3], 7, None)
    assert one["there"]["a"].tolist() == [True, False]
    np.testing.assert_equal(join([one, two]), whole)


def test_another_version_of_an_environment_is_told_apart():
    class Longer(Relay):
        def observe(self, names):
            return {name: seen if name == "late" else seen + self.count for name, seen in super().observe(names).items()}

    env = relay()
    env.reset(), env.step(idle(env))
    with pytest.raises(
        EnvironmentFailure, match=r"env\.id=relay: copy 0: its episode comes out otherwise when it is played again"
    ):
        relay(kind=Longer).restore(env.snapshot())
