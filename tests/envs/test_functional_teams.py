"""Functional environments with named members: who is there, what is said of those who left, masks, states; by hand."""

import numpy as np
import pytest
from gymnasium import spaces

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from functional_teams import Pair, Shift, Walkers

from rltrain.envs.functional import TeamConfig
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, EnvironmentFailure


class Known(Walkers):
    """A walker goes where it is pushed by 0.5, beginning at 0 and 0.5; from 1 on it is out. All stop after 3 steps."""

    def reset(self, key):
        state = (jnp.array([0.0, 0.5]), jnp.int32(0))
        return state, self.observe(state)

    def step(self, key, state, actions):
        push = jnp.stack([0.5 * (2.0 * actions[name] - 1.0) for name in self.members])
        state = (state[0] + push, state[1] + 1)
        out = {name: at >= 1 for name, at in zip(self.members, state[0], strict=True)}
        rewards = {name: 10 * at for name, at in zip(self.members, state[0], strict=True)}
        return state, self.observe(state), rewards, out, dict.fromkeys(self.members, state[1] >= 3)


def make(env, copies=2, **cfg):
    return FunctionalEnv(TeamConfig(id="walkers", num_envs=copies, **cfg), seed=1, make=lambda _: env)


def rows(step, *names):
    return [[np.asarray(getattr(step, name)[member]).tolist() for member in ("walker_0", "walker_1")] for name in names]


class Numbered(Shift):
    """Observations are numbers from 5 on, so zeros, which stand for a member that is away, aren't in their space."""

    observation_space = spaces.Dict({name: spaces.Discrete(4, start=5) for name in Shift.members})

    def observe(self, state):
        return {name: state[0] + jnp.where(name == "late", 4, 5) for name in self.members}


def test_values_outside_their_space_of_those_who_are_there():
    """`late` has 4 before it comes, which is passed over; in step 4 of 4 all have 5 + 4 = 9, `late` 8; `early` has left."""
    env = make(Numbered())
    env.reset()
    idle = {name: np.zeros(2, int) for name in env.members}
    for _ in range(3):
        env.step(idle), env.reset_done()
    with pytest.raises(
        EnvironmentFailure, match=r"copy 0: step 3: observations/steady=9 is outside Discrete\(4, start=5\), 5 to 8"
    ):
        env.step(idle)


def test_a_member_that_left_is_passed_over_until_the_next_episode():
    """Walker 1 of copy 0 is out after step 1, walker 0 of copy 1 after step 2; after step 3 time is up."""
    env = make(Known(limit=3))
    assert env.members == ("walker_0", "walker_1") and env.num_agents == 2
    env.reset()
    first = env.step({"walker_0": np.array([0, 1]), "walker_1": np.array([1, 0])})
    assert rows(first, "rewards", "terminated", "valid") == [
        [[-5, 5], [10, 0]], [[False, False], [True, False]], [[True, True], [True, True]],
    ]  # fmt: skip
    np.testing.assert_allclose(first.next_observations["walker_1"], [[1, 1 / 3], [0, 1 / 3]])
    np.testing.assert_equal(*map(jax.device_get, (env.reset_done(), first.next_observations)))  # nobody begins anew

    second = env.step({"walker_0": np.array([0, 1]), "walker_1": np.array([1, 0])})
    assert rows(second, "rewards", "terminated", "valid") == [
        [[-10, 10], [0, -5]], [[False, True], [False, False]], [[True, True], [False, True]],
    ]  # fmt: skip
    np.testing.assert_allclose(second.next_states["walker_1"], [[0, 0], [-0.5, 2 / 3]])
    env.reset_done()

    third = env.step({"walker_0": np.array([1, 1]), "walker_1": np.array([1, 0])})
    assert rows(third, "rewards", "terminated", "truncated", "valid") == [
        [[-5, 0], [0, -10]], [[False, True], [True, False]], [[True, False], [False, True]], [[True, False], [False, True]],
    ]  # fmt: skip
    after = env.reset_done()
    np.testing.assert_allclose(after["walker_1"], [[0.5, 0], [0.5, 0]])
    fourth = env.step({"walker_0": np.array([0, 0]), "walker_1": np.array([0, 0])})
    assert rows(fourth, "valid") == [[[True, True], [True, True]]]


def test_states_masks_and_spaces():
    env = make(Pair(), copies=3)
    env.reset()
    assert env.info()["state"] == "own" and env.state_space.shape == (3,)
    np.testing.assert_allclose(env.state()[:, 0], env.copies.observations["walker_0"][:, 0])
    assert {name: mask.shape for name, mask in env.action_masks().items()} == {"walker_0": (3, 2), "walker_1": (3, 2)}
    assert env.step({"walker_0": np.zeros(3, int), "walker_1": np.zeros(3, int)}).valid is None
    joined = make(Pair(), state="joined")
    np.testing.assert_equal(*map(jax.device_get, (joined.reset(), joined.state())))
    assert joined.state_space == joined.observation_space and make(Pair(), state="none").state_space is None
    with pytest.raises(ConfigError, match=r"env.state=own: the environment has no states of its own; use joined or auto"):
        make(Walkers(), state="own")


def looks(step):
    """What a step says of each member of copy 0."""
    valid = [True] * 3 if step.valid is None else [bool(step.valid[name][0]) for name in Shift.members]
    ends = [f"{'T' * int(step.terminated[name][0])}{'t' * int(step.truncated[name][0])}" for name in Shift.members]
    return valid, ends, [float(step.rewards[name][0]) for name in Shift.members]


def counts(observations):
    return [float(observations[name][0, 0]) for name in Shift.members]


@pytest.mark.parametrize("kind", ["flagged", "vanishing"])
def test_members_that_come_late(kind):
    """What the PettingZoo environment of the same members says in its test; twice, so that a reset brings everything back."""

    class Vanishing(Shift):
        """`early` goes without a flag."""

        def step(self, key, state, actions):
            after, observations, rewards, terminated, truncated = super().step(key, state, actions)
            return after, observations, rewards, {**terminated, "early": jnp.bool_(False)}, truncated

        def present(self, state):
            return {**super().present(state), "early": state[0] < 2}

    flag = {"flagged": "T", "vanishing": "t"}[kind]
    env = make({"flagged": Shift, "vanishing": Vanishing}[kind]())
    observations = env.reset()
    idle = {name: np.zeros(2, int) for name in env.members}
    for _ in range(2):
        assert float(observations["early"][0, 1]) >= 1 and np.asarray(observations["late"]).tolist() == [[0, 0], [0, 0]]
        steps, seen = [], []
        for _ in range(4):
            steps.append(env.step(idle))
            observations = env.reset_done()
            seen.append(counts(steps[-1].next_observations))
        valid, ends, rewards = ([look[i] for look in map(looks, steps)] for i in range(3))
        assert valid == [[True, False, True], [True, True, True], [False, True, True], [False, True, True]]
        assert ends == [["", "", ""], [flag, "", ""], ["", "", ""], ["T", "t", "t"]]
        assert rewards == [[1, 0, 1], [2, 20, 2], [0, 30, 3], [0, 40, 4]]
        assert seen == [[1, 1, 1], [2, 2, 2], [0, 3, 3], [0, 4, 4]]  # late is there to act after step 1, early is gone after 2
        assert counts(observations) == [0, 0, 0]


def test_nobody_comes_twice_and_an_episode_without_anybody_ends():
    class Flickering(Shift):
        """Everyone is there but after step 2."""

        def step(self, key, state, actions):
            *others, _, truncated = super().step(key, state, actions)
            return *others, dict.fromkeys(self.members, jnp.bool_(False)), truncated

        def present(self, state):
            return {"early": state[0] != 2, "late": state[0] >= 3, "steady": (state[0] != 2) | (self.length == 3)}

    idle = {name: np.zeros(2, int) for name in Shift.members}
    env = make(Flickering())
    env.reset()
    env.step(idle), env.reset_done()
    assert looks(env.step(idle))[1] == ["t", "T", "t"] and counts(env.reset_done()) == [0, 0, 0]  # nobody waits for late
    stays = Flickering()
    stays.length = 3
    env = make(stays)
    env.reset()
    env.step(idle), env.step(idle)
    assert looks(env.step(idle)) == ([False, False, True], ["T", "T", "t"], [0, 0, 3])  # early would be there again


def test_a_late_member_goes_on_from_a_snapshot():
    env, other = make(Shift()), make(Shift())
    idle = {name: np.zeros(2, int) for name in Shift.members}
    env.reset(), env.step(idle), env.reset_done()
    other.restore(env.snapshot())
    for _ in range(5):
        one, two = env.step(idle), other.step(idle)
        np.testing.assert_equal(*(jax.device_get((step.valid, step.rewards, step.next_observations)) for step in (one, two)))
        np.testing.assert_equal(*map(jax.device_get, (env.reset_done(), other.reset_done())))


def test_dicts_without_a_member_say_what_to_do():
    class Silent(Shift):
        def observe(self, state):
            found = super().observe(state)
            del found["late"]
            return found

    with pytest.raises(
        EnvironmentFailure, match=r"reset: observations: nothing of late; .* says by present\(state\) who is there"
    ):
        make(Silent())

    class Unpaid(Shift):
        def step(self, key, state, actions):
            after, observations, rewards, *flags = super().step(key, state, actions)
            return after, observations, {"steady": rewards["steady"]}, *flags

    with pytest.raises(EnvironmentFailure, match="step: rewards: nothing of early, late"):
        make(Unpaid())

    class Summed(Shift):
        def step(self, key, state, actions):
            after, observations, rewards, *flags = super().step(key, state, actions)
            return after, observations, sum(rewards.values()), *flags

    with pytest.raises(EnvironmentFailure, match=r"step: rewards: expected a dict by member, got float32 \(\)"):
        make(Summed())
