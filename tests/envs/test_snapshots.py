"""Exact snapshots: an environment put back goes on to the bit, through further resets too; where that can't be had, None."""

import copy

import numpy as np
import pytest

from rltrain.envs.gymnasium import GymnasiumEnv

EXACT = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
MUJOCO = ["HalfCheetah-v5", "Hopper-v5"]


def make(env_id: str, seed: int, vectorization: str = "sync") -> GymnasiumEnv:
    """Two copies whose episodes last at most 15 steps, so that what follows the snapshot holds several resets."""
    cfg = {"id": env_id, "num_envs": 2, "vectorization": vectorization, "kwargs": {"max_episode_steps": 15}}
    return GymnasiumEnv(cfg, seed=seed)


def play(env: GymnasiumEnv, steps: int, seed: int) -> list[np.ndarray]:
    """Return everything that the environment answered to random actions."""
    generator, space, answers = np.random.default_rng(seed), env.action_space, []
    for _ in range(steps):
        if hasattr(space, "n"):
            actions = generator.integers(0, space.n, 2)
        else:
            actions = generator.uniform(space.low, space.high, (2, *space.shape)).astype(space.dtype)
        step = env.step(actions)
        answers += [step.next_observations, step.rewards, step.terminated, step.truncated, env.reset_done()]
    return answers


def assert_goes_on_exactly(env_id: str, before: int, vectorization: str = "sync") -> None:
    """Snapshot after `before` steps; a fresh environment of another seed and the same one must both go on alike."""
    env = make(env_id, seed=1, vectorization=vectorization)
    env.reset()
    play(env, before, seed=1)
    snapshot = env.snapshot()
    kept = copy.deepcopy(snapshot)
    answers = play(env, 50, seed=2)
    other = make(env_id, seed=99, vectorization=vectorization)
    other.reset()
    play(other, 8, seed=3)
    for again in (env, other):
        again.restore(kept)
        assert all(np.array_equal(a, b) for a, b in zip(answers, play(again, 50, seed=2), strict=True))
        again.close()
    assert sum(flags.sum() for flags in answers[3::5]) >= 4  # episodes ended meanwhile
    for one, two in zip(snapshot["copies"], kept["copies"], strict=True):
        np.testing.assert_equal(one, two)  # what was handed out did not change as the environment went on
    assert np.array_equal(snapshot["observations"], kept["observations"])


@pytest.mark.parametrize("env_id", EXACT)
@pytest.mark.parametrize("before", [0, 7])
def test_classic_control_goes_on_exactly(env_id, before):
    assert_goes_on_exactly(env_id, before)


@pytest.mark.parametrize("env_id", MUJOCO)
def test_mujoco_goes_on_exactly(env_id, here):  # MuJoCo writes a log where it stands
    pytest.importorskip("mujoco")
    assert_goes_on_exactly(env_id, 7)


def test_async_goes_on_exactly():
    assert_goes_on_exactly("CartPole-v1", 7, "async")


def test_native_snapshot_does_not_change_as_the_environment_goes_on():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2, "vectorization": "native"}, seed=1)
    env.reset()
    play(env, 30, seed=1)
    snapshot = env.snapshot()
    kept = copy.deepcopy(snapshot)
    answers = play(env, 60, seed=2)
    np.testing.assert_equal(snapshot, kept)
    other = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2, "vectorization": "native"}, seed=5)
    other.restore(kept)
    assert all(np.array_equal(a, b) for a, b in zip(answers, play(other, 60, seed=2), strict=True))


def test_an_object_of_an_unknown_kind_has_no_snapshot():
    env = GymnasiumEnv({"id": "sample_envs:Opaque-v0", "num_envs": 2})
    env.reset(seed=[3, 4])
    assert env.snapshot() is None


def test_an_environment_may_speak_for_itself():
    env = GymnasiumEnv({"id": "sample_envs:SpeaksForItself-v0", "num_envs": 2})
    env.reset(seed=[3, 4])
    play(env, 5, seed=1)
    snapshot = env.snapshot()
    answers = play(env, 10, seed=2)
    other = GymnasiumEnv({"id": "sample_envs:SpeaksForItself-v0", "num_envs": 2})
    other.restore(snapshot)
    assert all(np.array_equal(a, b) for a, b in zip(answers, play(other, 10, seed=2), strict=True))


def test_one_list_held_in_two_places_has_no_snapshot():
    # restored, it would be two lists, and a change of one no longer a change of the other
    env = GymnasiumEnv({"id": "sample_envs:Counting-v0", "num_envs": 1})
    env.reset(seed=[3])
    assert env.snapshot() is not None
    inner = env._venv.envs[0].unwrapped
    inner.one = [1]
    inner.other = inner.one
    assert env.snapshot() is None


def test_two_views_of_one_array_have_no_snapshot():
    env = GymnasiumEnv({"id": "sample_envs:Counting-v0", "num_envs": 1})
    env.reset(seed=[3])
    inner = env._venv.envs[0].unwrapped
    inner.state = np.zeros(4)
    assert env.snapshot() is not None
    inner.velocity = inner.state[2:]
    assert env.snapshot() is None
