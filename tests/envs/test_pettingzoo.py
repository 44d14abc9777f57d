import numpy as np
import pytest

pytest.importorskip("pettingzoo")

from team_envs import Failing, Relay, Stateful, Turns
from team_plays import drawn, idle, relay, same

from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.errors import ConfigError, EnvironmentFailure, NonFiniteError
from rltrain.seeding import EPISODES, seed32


def test_members_leave_and_come():
    env = relay()
    first = env.reset()
    assert env.members == ("early", "late", "steady") and env.num_agents == 3
    assert {key: array.shape for key, array in first.items()} == {
        "early": (2, 1), "late/count": (2, 2), "late/kind": (2,), "steady": (2, 3)
    }  # fmt: skip
    valid, ends, rewards = [], [], []
    for _ in range(4):
        step = env.step(idle(env))
        valid.append([True] * 3 if step.valid is None else [bool(step.valid[name][0]) for name in env.members])
        ends.append([f"{'T' * int(step.terminated[name][0])}{'t' * int(step.truncated[name][0])}" for name in env.members])
        rewards.append([step.rewards[name][1] for name in env.members])
        observations = env.reset_done()
    assert valid == [[True, False, True], [True, True, True], [False, True, True], [False, True, True]]
    # the last to leave ends the episode: then the one that left before is flagged, too
    assert ends == [["", "", ""], ["T", "", ""], ["", "", ""], ["T", "t", "t"]]
    assert rewards == [[1, 0, 1], [2, 20, 2], [0, 30, 3], [0, 40, 4]]
    assert step.next_observations["steady"][0, 0] == 4 and observations["steady"][0, 0] == 0  # the true successor, then the start
    assert step.next_observations["early"][0, 0] == 0  # it has left: zeros
    assert step.infos["steady"]["count"].tolist() == [4, 4] and "early" not in step.infos


def test_each_copy_ends_on_its_own():
    env = relay()
    env.reset()
    for _ in range(3):
        env.step(idle(env))
        env.reset_done()
    env._copies[0].env.length = 100
    step = env.step(idle(env))
    assert step.truncated["steady"].tolist() == [False, True] and step.terminated["early"].tolist() == [False, True]
    assert env.reset_done()["steady"][:, 0].tolist() == [4, 0]


def test_state_is_the_environments_own_or_all_observations():
    joined, own = relay(), relay(kind=Stateful)
    assert joined.state_space is joined.observation_space and joined.info()["state"] == "joined"
    assert own.state_space.shape == (2,) and own.info()["state"] == "own"
    joined.reset(), own.reset()
    assert same(joined.state(), joined.reset_done())
    for _ in range(4):
        before, step = own.state(), own.step(idle(own))
    assert before[:, 0].tolist() == [3, 3] and step.next_states[:, 0].tolist() == [4, 4]
    own.reset_done()
    assert own.state()[:, 0].tolist() == [0, 0] and step.next_states[:, 0].tolist() == [4, 4]
    assert relay(state="none").state_space is None and relay(state="none").state() is None
    with pytest.raises(ConfigError, match=r"env.state=own: relay has no state\(\)"):
        relay(state="own")


def test_streams_depend_on_the_copys_own_number_only():
    whole = PettingZooEnv({"id": "mpe/simple_spread_v3", "num_envs": 3}, seed=5)
    parts = [make() for make in whole.partition([1, 2])]
    generator = np.random.default_rng(0)
    found, slices = whole.reset(), [part.reset() for part in parts]
    for _ in range(60):  # over two ends of episodes
        for key, array in found.items():
            assert np.array_equal(array, np.concatenate([part[key] for part in slices]))
        actions = drawn(whole, generator)
        whole.step(actions)
        parts[0].step({name: rows[:1] for name, rows in actions.items()})
        parts[1].step({name: rows[1:] for name, rows in actions.items()})
        found, slices = whole.reset_done(), [part.reset_done() for part in parts]
    assert not np.array_equal(found["agent_0"][0], found["agent_0"][1])


def test_it_is_the_environment_of_its_makers():
    """Two episodes against the environment as PettingZoo hands it out."""
    from mpe2 import simple_spread_v3

    env, theirs = PettingZooEnv({"id": "mpe/simple_spread_v3", "num_envs": 1}, seed=5), simple_spread_v3.parallel_env()
    generator = np.random.default_rng(0)
    for episode in range(2):
        ours = env.reset() if episode == 0 else env.reset_done()
        seed = env.seeds[0] if episode == 0 else seed32(env.seeds[0], EPISODES, episode)
        observations, _ = theirs.reset(seed=seed)
        for t in range(25):
            assert all(np.array_equal(ours[name][0], observations[name]) for name in env.members)
            assert np.array_equal(env.state()[0], theirs.state())
            actions = drawn(env, generator)
            step = env.step(actions)
            observations, rewards, _, truncated, _ = theirs.step({name: rows[0] for name, rows in actions.items()})
            assert [float(step.rewards[name][0]) for name in env.members] == pytest.approx(list(rewards.values()), rel=1e-6)
            assert {bool(step.truncated[name][0]) for name in env.members} == set(truncated.values()) == {t == 24}
            ours = step.next_observations


def test_failures_name_copy_phase_and_step():
    env = relay(kind=Failing)
    env.reset()
    env.step(idle(env)), env.step(idle(env))
    with pytest.raises(EnvironmentFailure, match=r"env.id=relay: copy 0: step at step 2: RuntimeError: out of batons"):
        env.step(idle(env))


def test_nonfinite_rewards_name_the_member():
    class Mad(Relay):
        def step(self, actions):
            answer = super().step(actions)
            answer[1]["steady"] = float("nan")
            return answer

    env = relay(kind=Mad)
    env.reset()
    with pytest.raises(NonFiniteError, match="copy 0: step 0: rewards/steady=nan is not finite"):
        env.step(idle(env))
    env = relay(kind=Mad, on_nonfinite="reset")
    env.reset()
    step = env.step(idle(env))
    assert step.rewards["steady"].tolist() == [0, 0] and step.truncated["early"].all() and not step.terminated["early"].any()


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        ("mpe/simple_spred_v3", "env.id=mpe/simple_spred_v3: no such environment; did you mean 'simple_spread_v3'"),
        (
            "simple_spread_v3",
            "env.id=simple_spread_v3: no such environment; write family/name_v0 with a family of mpe, butterfly",
        ),
        ("nowhere:thing", "env.id=nowhere:thing: module 'nowhere' can't be imported"),
        ("team_envs:Turn", "has no Turn; did you mean 'Turns'"),
        ("team_envs:Turns", "its agents take turns"),
        ({"id": "mpe/simple_spread_v3", "kwargs": {"M": 2}}, r"env.kwargs=\['M'\]: mpe/simple_spread_v3 does not take them"),
    ],
)
def test_bad_ids(cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        PettingZooEnv(cfg)


def test_turn_based_make_is_refused():
    with pytest.raises(ConfigError, match="its agents take turns"):
        relay(kind=Turns)
