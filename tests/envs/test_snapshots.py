"""Exact snapshots: an environment put back goes on to the bit, through further resets too; where that can't be had, None."""

import copy

import numpy as np
import pytest

from rltrain import checkpoints
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


def own(name: str, seed: int, **kwargs: object) -> GymnasiumEnv:
    """Two copies of an environment in `state_envs`."""
    env = GymnasiumEnv({"id": f"state_envs:State{name}-v0", "num_envs": 2, "kwargs": kwargs}, seed=seed)
    env.reset()
    return env


@pytest.mark.parametrize(("name", "kwargs"), [
    ("Many", {}),
    *(("Wrapped", {"kind": kind}) for kind in ("statistics", "stack", "delay", "time", "actions")),
])  # fmt: skip
def test_values_of_every_kind_go_on_exactly(name, kwargs, tmp_path):
    """Through a checkpoint's file, into copies that have already lived."""
    env, other = own(name, 1, **kwargs), own(name, 99, **kwargs)
    play(env, 25, seed=1)
    play(other, 9, seed=3)
    checkpoints.write(tmp_path / "1", {"env": env.snapshot()}, {"agents": {}}, {})
    answers = play(env, 60, seed=2)
    other.restore(checkpoints.read_part(tmp_path / "1", "env", checkpoints.verify(tmp_path / "1")))
    for one, two in zip(answers, play(other, 60, seed=2), strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    "where", ["closure", "shared", "set", "iterator", "function", "object", "class", "bound", "view", "global"]
)
def test_state_that_a_snapshot_does_not_reach_has_none(where):
    env = own("Hides", 1, where=where)
    play(env, 3, seed=1)
    assert env.snapshot() is None
    plain = own("Hides", 1, where="nowhere")
    play(plain, 3, seed=1)
    assert plain.snapshot() is not None


def test_a_model_changed_by_its_environment_has_no_snapshot(here):
    pytest.importorskip("mujoco")
    env = make("Hopper-v5", seed=1)
    env.reset()
    assert env.snapshot() is not None
    env._venv.envs[1].unwrapped.model.body_mass[1] *= 2
    assert env.snapshot() is None


def test_a_snapshot_as_it_was_written_before_is_still_read():
    """One layer per number, its attributes as they are; generators by name and state."""
    env = own("Walk", 1)
    play(env, 3, seed=1)
    layers, old = env._venv.envs, []
    for layer in layers:
        walk = layer.unwrapped
        bits = walk.np_random.bit_generator
        generator = {"__generator__": "PCG64", "state": bits.state}
        old.append({"0": {}, "1": {"_np_random": generator, "position": walk.position.copy()}})
    snapshot = env.snapshot() | {"copies": old}
    answers = play(env, 20, seed=2)
    other = own("Walk", 99)
    other.restore(snapshot)
    assert all(np.array_equal(a, b) for a, b in zip(answers, play(other, 20, seed=2), strict=True))
