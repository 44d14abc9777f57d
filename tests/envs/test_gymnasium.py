"""GymnasiumEnv: shapes, true successors, resets, dummy rows, seeds, and what it says when a copy fails."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings

import gymnasium
import numpy as np
import pytest

from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError, EnvironmentFailure, NonFiniteError
from rltrain.seeding import EVALUATION_ENVIRONMENTS, TRAINING_ENVIRONMENTS, environment_seeds
from rltrain.structures import Step

MODES = ["sync", "async", "native"]
BROKEN = ": RuntimeError: broken on purpose"


@pytest.fixture
def make():
    """Make environments that are closed when the test ends."""
    made = []

    def make(env_id, num_envs=2, vectorization="sync", kwargs=None, seed=None, timeout=20.0, on_nonfinite="error", **arguments):
        cfg = {"id": env_id, "num_envs": num_envs, "vectorization": vectorization, "kwargs": kwargs or {}}
        made.append(GymnasiumEnv({**cfg, "timeout": timeout, "on_nonfinite": on_nonfinite}, seed=seed, **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env, steps: int, seed: int = 0) -> list[Step]:
    """Step with random actions, resetting what ended; return the steps, and in `infos` the observations to act on next."""
    generator = np.random.default_rng(seed)
    space, played = env.action_space, []
    for _ in range(steps):
        if isinstance(space, gymnasium.spaces.Discrete):
            actions = generator.integers(0, space.n, env.num_envs)
        else:
            actions = generator.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(space.dtype)
        step = env.step(actions)
        played.append(step._replace(infos={"observations": env.reset_done()}))
    return played


def assert_equal_steps(steps: list[Step], others: list[Step], cut: slice = slice(None)) -> None:
    """Compare to the bit."""
    assert len(steps) == len(others) > 0
    for one, other in zip(steps, others, strict=True):
        for name in ("next_observations", "rewards", "terminated", "truncated"):
            assert np.array_equal(getattr(one, name)[cut], getattr(other, name)), name
        assert np.array_equal(one.infos["observations"][cut], other.infos["observations"])


# -- shapes, successors, resets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", MODES)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_shapes_and_dtypes(make, vectorization, num_envs):
    env = make("CartPole-v1", num_envs, vectorization, seed=0)
    assert env.reset().shape == (num_envs, 4)
    step = env.step(np.zeros(num_envs, np.int64))
    assert step.next_observations.shape == (num_envs, 4) and step.next_observations.dtype == np.float32
    assert step.rewards.shape == (num_envs,) and step.rewards.dtype == np.float32
    for flags in (step.terminated, step.truncated):
        assert flags.shape == (num_envs,) and flags.dtype == bool
    assert step.next_states is None and env.state() is None and env.num_agents == 1
    assert env.observation_space.shape == (4,) and env.action_space.n == 2


def test_auto_is_sync(make):
    assert make("CartPole-v1", vectorization="auto").info()["vectorization"] == "sync"


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("end", ["terminated", "truncated", "both"])
def test_successors_are_true_and_only_ended_copies_are_reset(make, vectorization, end):
    env = make("sample_envs:Counting-v0", 2, vectorization, {"end": end})
    first = env.reset(seed=[2, 3])  # the copies' episodes last 2 and 3 steps
    episode = first[0, 1]
    assert first[:, 0].tolist() == [0, 0] and first[:, 2].tolist() == [2, 3]

    step = env.step(np.zeros(2, np.int64))
    assert step.next_observations[:, 0].tolist() == [1, 1] and step.rewards.tolist() == [1, 1] and step.valid is None
    assert np.array_equal(env.reset_done(), step.next_observations)  # nothing ended: nothing is reset

    step = env.step(np.zeros(2, np.int64))
    assert step.next_observations.tolist() == [[2, episode, 2], [2, episode, 3]]  # not the next's first
    assert step.terminated.tolist() == [end != "truncated", False]
    assert step.truncated.tolist() == [end != "terminated", False]
    assert env.reset_done().tolist() == [[0, episode + 1, 2], [2, episode, 3]]
    assert step.next_observations.tolist() == [[2, episode, 2], [2, episode, 3]]  # and resetting leaves it alone

    step = env.step(np.zeros(2, np.int64))
    assert step.next_observations.tolist() == [[1, episode + 1, 2], [3, episode, 3]]
    assert env.reset_done().tolist() == [[1, episode + 1, 2], [0, episode + 1, 3]]


def test_native_next_step_marks_the_dummy_row(make):
    env = make("sample_envs:Counting-v0", 2, "native", {"lengths": (2, 3)})
    env.reset()
    rows = []
    for _ in range(5):
        step = env.step(np.zeros(2, np.int64))
        valid = [True, True] if step.valid is None else step.valid.tolist()
        rows.append((step.next_observations[:, 0].tolist(), step.terminated.tolist(), valid))
        env.reset_done()
    assert rows == [
        ([1, 1], [False, False], [True, True]),
        ([2, 2], [True, False], [True, True]),
        ([0, 3], [False, True], [False, True]),  # copy 0 resets: the row did not happen
        ([1, 0], [False, False], [True, False]),  # now copy 1
        ([2, 1], [True, False], [True, True]),
    ]


def test_native_buffers_that_the_simulator_reuses_do_not_change_what_was_handed_out(make):
    env = make("sample_envs:Counting-v0", 2, "native", {"lengths": (5, 5)})
    first = env.reset()
    kept = first.copy()
    step = env.step(np.zeros(2, np.int64))
    assert np.array_equal(first, kept)
    kept = step.next_observations.copy()
    env.step(np.zeros(2, np.int64))
    assert np.array_equal(step.next_observations, kept)


def test_native_cartpole_has_a_dummy_row_after_every_episode_and_nowhere_else(make):
    env = make("CartPole-v1", 4, "native", seed=3)
    env.reset()
    ended, episodes = np.zeros(4, bool), 0
    for step in play(env, 100):
        valid = np.ones(4, bool) if step.valid is None else step.valid
        assert np.array_equal(valid, ~ended)
        assert (step.rewards[~valid] == 0).all() and (step.rewards[valid] == 1).all()
        ended = step.terminated | step.truncated
        episodes += ended.sum()
    assert episodes > 5


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_native_environments_that_hide_successors_are_refused(make, mode):
    # DISABLED here does not obey the mask: it would reset the copies that go on
    with pytest.raises(ConfigError, match=r"env.vectorization=native: .*hides true successors; use sync or async"):
        make("sample_envs:Counting-v0", 2, "native", {"mode": mode, "obeys_mask": False})


def test_native_environment_that_obeys_the_mask_is_reset_by_it(make):
    env = make("sample_envs:Counting-v0", 2, "native", {"mode": "Disabled", "lengths": (2, 3)})
    env.reset()
    for _ in range(2):
        step = env.step(np.zeros(2, np.int64))
        observations = env.reset_done()
    assert step.next_observations[:, 0].tolist() == [2, 2] and step.valid is None
    assert observations[:, 0].tolist() == [0, 2]
    assert env.step(np.zeros(2, np.int64)).valid is None


def test_native_leaves_of_a_reused_buffer(make):
    env = make("space_envs:CountingLeaves-v0", 2, "native", {"lengths": (5, 5)})
    first = env.reset()
    assert list(first) == ["rest/0", "rest/1", "steps"]
    step = env.step(np.zeros(2, np.int64))
    env.step(np.zeros(2, np.int64))
    assert first["steps"].tolist() == [[0], [0]] and step.next_observations["steps"].tolist() == [[1], [1]]


def test_native_leaves_are_probed_for_the_reset_mask(make):
    kwargs = {"mode": "Disabled", "lengths": (2, 3)}
    with pytest.raises(ConfigError, match=r"env.vectorization=native: .*hides true successors; use sync or async"):
        make("space_envs:CountingLeaves-v0", 2, "native", {**kwargs, "obeys_mask": False})
    env = make("space_envs:CountingLeaves-v0", 2, "native", kwargs)
    env.reset()
    for _ in range(2):
        step = env.step(np.zeros(2, np.int64))
        observations = env.reset_done()
    assert step.next_observations["steps"].tolist() == [[2], [2]] and step.valid is None
    assert observations["steps"].tolist() == [[0], [2]] and observations["rest/1"].tolist() == [[2], [3]]


def test_native_needs_a_vector_entry_point(make):
    with pytest.raises(ConfigError, match="MountainCar-v0 has no vector entry point; use sync or async"):
        make("MountainCar-v0", 2, "native")


def test_reward_arrays_are_not_written_to(make):
    env = make("sample_envs:Counting-v0", 2)
    env.reset(seed=[2, 2])
    first = env.step(np.zeros(2, np.int64))
    env.step(np.zeros(2, np.int64))
    assert first.rewards.tolist() == [1, 1]


# -- seeds -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_each_copy_starts_from_its_own_seed_and_goes_on_with_its_own_stream(make, vectorization):
    env = make("CartPole-v1", 3, vectorization, seed=7)
    seeds = environment_seeds(7, TRAINING_ENVIRONMENTS, 3)
    assert env.seeds == seeds
    alone = [gymnasium.make("CartPole-v1") for _ in seeds]
    assert np.array_equal(env.reset(), [one.reset(seed=seed)[0] for one, seed in zip(alone, seeds, strict=True)])
    assert np.array_equal(env.reset(), [one.reset()[0] for one in alone])  # not the same starts again


def test_roles_and_seeds_give_different_starts(make):
    streams = (1, TRAINING_ENVIRONMENTS), (2, TRAINING_ENVIRONMENTS), (1, EVALUATION_ENVIRONMENTS)
    starts = [make("CartPole-v1", 4, seed=seed, role=role).reset() for seed, role in streams]
    assert len({row.tobytes() for rows in starts for row in rows}) == 12


def test_wrong_number_of_seeds(make):
    with pytest.raises(ValueError, match="2 seeds for 3 copies; give one per copy"):
        make("CartPole-v1", 3).reset(seed=[1, 2])


def test_partitioned_equals_whole(make):
    whole = make("CartPole-v1", 5, seed=4)
    start = whole.reset()
    steps = play(whole, 60)
    parts = [pickle.loads(pickle.dumps(part))() for part in whole.partition([2, 3])]
    for part, cut in zip(parts, (slice(0, 2), slice(2, 5)), strict=True):
        assert np.array_equal(part.reset(), start[cut])
        generator = np.random.default_rng(0)
        for step in steps:
            own = part.step(generator.integers(0, 2, 5)[cut])
            assert_equal_steps([step], [own._replace(infos={"observations": part.reset_done()})], cut)
        part.close()
    assert any(step.terminated.any() for step in steps)


def test_a_partition_of_a_partition_keeps_global_numbers(make):
    first, second = make("CartPole-v1", 6, seed=4).partition([2, 4])[1]().partition([1, 3])
    assert first().seeds + second().seeds == environment_seeds(4, TRAINING_ENVIRONMENTS, 6)[2:]


def test_native_cannot_be_partitioned(make):
    assert make("CartPole-v1", 4, "native").partition([2, 2]) is None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_sync_equals_async(make, env_id):
    kwargs = {"max_episode_steps": 30}
    sync, other = (make(env_id, 3, vectorization, kwargs, seed=9) for vectorization in ("sync", "async"))
    assert np.array_equal(sync.reset(), other.reset())
    steps = play(sync, 70)
    assert_equal_steps(steps, play(other, 70))
    assert any((step.terminated | step.truncated).any() for step in steps)


@pytest.mark.parametrize("observations", ["nested", "multi discrete"])
def test_sync_equals_async_in_every_leaf(make, observations):
    kwargs = {"observations": observations, "actions": "double"}
    sync, other = (make("space_envs:Stamped-v0", 2, vectorization, kwargs, seed=9) for vectorization in ("sync", "async"))
    np.testing.assert_equal(sync.reset(), other.reset())
    for one, two in zip(play(sync, 12), play(other, 12), strict=True):
        np.testing.assert_equal(one._replace(infos=one.infos["observations"]), two._replace(infos=two.infos["observations"]))


# -- faults ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_error_in_step_names_copy_id_phase_and_step(make, vectorization):
    seeds = [11, 12, 13]
    env = make("sample_envs:Faulty-v0", 3, vectorization, {"what": "raise", "phase": "step", "when": 3, "victim": 12})
    env.reset(seed=seeds)
    env.step(np.zeros(3, np.int64))
    env.step(np.zeros(3, np.int64))
    with pytest.raises(EnvironmentFailure) as failure:
        env.step(np.zeros(3, np.int64))
    lines = str(failure.value).splitlines()
    assert lines[0] == "env.id=sample_envs:Faulty-v0: copy 1: step at step 2" + BROKEN
    assert any("sample_envs.py" in line and "in _perhaps" in line for line in lines)  # the environment's own traceback


class Refuses(gymnasium.Env):
    """Raises one of our own errors in a step; its attribute raises one that no other process can be sent."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,), np.float32), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        raise ConfigError("env.kwargs.limit", 3, "is too low")

    @property
    def odd(self):
        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__("odd")

        raise Odd(1, 2)


def test_any_error_reaches_this_process(make):
    """Gymnasium's own way of raising a copy's error again makes one of the same type, of a single argument."""
    env = GymnasiumEnv({"id": "refuses", "num_envs": 2, "vectorization": "async"}, make=Refuses)
    env.reset()
    with pytest.raises(ConfigError, match=r"^env.kwargs.limit=3: is too low$") as refused:
        env.step(np.zeros(2, np.int64))
    assert (refused.value.key, refused.value.value) == ("env.kwargs.limit", 3)
    env.close()
    env = GymnasiumEnv({"id": "refuses", "num_envs": 1, "vectorization": "async"}, make=Refuses)
    with pytest.raises(EnvironmentFailure, match=r"env.id=refuses: copy 0: get_attr odd at step 0: Odd: odd"):
        env.get_attr("odd")
    env.close()


def test_an_id_that_only_this_process_knows(make):
    """Its copies' processes are told what it stands for; what can't be told is one sentence."""
    gymnasium.register("OnlyHere-v0", lambda **_: Refuses())
    lock = threading.Lock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = make("OnlyHere-v0", 2, "async")
        assert env.reset().shape == (2, 1)
        gymnasium.register("OnlyHere-v0", lambda **_: (Refuses(), lock)[0])
        with pytest.raises(ConfigError, match=r"^env.vectorization=async: OnlyHere-v0 can't be sent .*pickle.*; register it by"):
            make("OnlyHere-v0", 2, "async")
    del gymnasium.registry["OnlyHere-v0"]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_error_in_reset(make, vectorization):
    env = make("sample_envs:Faulty-v0", 2, vectorization, {"phase": "reset", "victim": 12})
    with pytest.raises(EnvironmentFailure, match=r"^env.id=sample_envs:Faulty-v0: copy 1: reset at step 0" + BROKEN):
        env.reset(seed=[11, 12])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_error_in_make(make, vectorization):
    with pytest.raises(EnvironmentFailure, match=r"^env.id=sample_envs:Faulty-v0: copy 0: make at step 0" + BROKEN):
        make("sample_envs:Faulty-v0", 2, vectorization, {"phase": "make"})


@pytest.mark.parametrize(("vectorization", "env_id"), [("sync", "BrokenSecond"), ("async", "BrokenInWorker")])
def test_error_in_make_of_another_copy(make, vectorization, env_id):
    others = set(multiprocessing.active_children())
    with pytest.raises(EnvironmentFailure, match=f"^env.id=sample_envs:{env_id}-v0: copy 1: make at step 0" + BROKEN):
        make(f"sample_envs:{env_id}-v0", 2, vectorization)
    assert wait_until(lambda: set(multiprocessing.active_children()) <= others)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_error_in_close(make, vectorization):
    others = set(multiprocessing.active_children())
    env = make("sample_envs:Faulty-v0", 2, vectorization, {"phase": "close", "victim": 12})
    env.reset(seed=[11, 12])
    with pytest.raises(EnvironmentFailure, match=r"^env.id=sample_envs:Faulty-v0: copy 1: close at step 0" + BROKEN):
        env.close()
    env.close()  # a second time is nothing
    assert wait_until(lambda: set(multiprocessing.active_children()) <= others)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_error_in_close_does_not_hide_the_first(make, vectorization):
    env = make("sample_envs:Faulty-v0", 2, vectorization, {"phase": "close", "victim": 12})
    env.reset()
    with pytest.raises(ZeroDivisionError, match="the first"):
        try:
            raise ZeroDivisionError("the first")
        finally:
            env.close()


def test_copies_of_a_partition_are_named_by_their_global_number(make):
    env = make("sample_envs:Faulty-v0", 5, kwargs={"phase": "reset", "victim": 15})
    part = env.partition([2, 3])[1]()
    with pytest.raises(EnvironmentFailure, match="copy 4: reset"):
        part.reset(seed=[13, 14, 15])


def test_a_killed_copy_is_named_and_no_process_is_left(make):
    env = make("CartPole-v1", 3, "async", seed=0)
    env.reset()
    processes = env._venv.processes
    os.kill(processes[1].pid, signal.SIGKILL)
    expected = r"^env.id=CartPole-v1: copy 1 \(exit code -9\): step at step 0: its process ended"
    with pytest.raises(EnvironmentFailure, match=expected):
        for _ in range(2):  # the first request may still have fitted into the pipe
            env.step(np.zeros(3, np.int64))
    env.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("phase", ["reset", "step"])
def test_a_hanging_copy_ends_after_the_timeout(make, phase):
    kwargs = {"what": "hang", "phase": phase, "victim": 12, "when": 1}
    env = make("sample_envs:Faulty-v0", 2, "async", kwargs, timeout=1.0)
    processes = env._venv.processes
    started = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=rf"copy 1: {phase} at step 0: no answer in 1 s \(env.timeout\)") as failure:
        env.reset(seed=[11, 12])
        env.step(np.zeros(2, np.int64))
    assert "copy 1 hangs here" in str(failure.value) and "sample_envs.py" in str(failure.value)  # its stack
    env.close()
    assert time.monotonic() - started < 5
    assert not any(process.is_alive() for process in processes)


def wait_until(condition, seconds: float = 5.0) -> bool:
    """Tell whether `condition` comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("wrong_shape", r"expected observations float32 \(3,\), got float32 \(1,\)"),
        ("wrong_dtype", r"expected observations float32 \(3,\), got float64 \(3,\)"),
        ("wrong_kind", r"expected observations float32 \(3,\), got list"),
    ],
)
def test_wrong_observations_are_refused_at_the_first_reset(make, vectorization, what, expected):
    env = make("sample_envs:Faulty-v0", 2, vectorization, {"what": what, "phase": "reset", "victim": 12})
    with pytest.raises(EnvironmentFailure, match=f"copy 1: reset at step 0: {expected}"):
        env.reset(seed=[11, 12])


# -- numbers that aren't finite ----------------------------------------------------------------------------------------------


def nonfinite(make, what: str, on_nonfinite: str, phase: str = "step") -> GymnasiumEnv:
    kwargs = {"what": what, "phase": phase, "when": 2, "victim": 12}
    env = make("sample_envs:Faulty-v0", 2, kwargs=kwargs, on_nonfinite=on_nonfinite)
    env.reset(seed=[11, 12])
    env.step(np.zeros(2, np.int64))
    return env


NONFINITE = [("nan_observation", r"observations=\[ *2\. +nan"), ("nan_reward", "rewards=nan"), ("inf_reward", "rewards=-inf")]


@pytest.mark.parametrize(("what", "says"), NONFINITE)
def test_nonfinite_numbers_are_an_error_at_that_step(make, what, says):
    env = nonfinite(make, what, "error")
    expected = f"^env.id=sample_envs:Faulty-v0: copy 1: step 1: {says}.* is not finite; .*on_nonfinite=reset"
    with pytest.raises(NonFiniteError, match=expected):
        env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("what", ["nan_observation", "nan_reward"])
def test_nonfinite_numbers_truncate_and_reset_the_copy(make, what):
    env = nonfinite(make, what, "reset")
    episode = env.reset_done()[:, 1].copy()
    step = env.step(np.zeros(2, np.int64))
    assert step.next_observations[:, 0].tolist() == [2, 1]  # copy 1 repeats its last observation
    assert step.rewards.tolist() == [2, 0]
    assert step.terminated.tolist() == [False, False] and step.truncated.tolist() == [False, True]
    assert env.reset_done().tolist() == [[2, episode[0], 1000], [0, episode[1] + 1, 1000]]


def test_nonfinite_numbers_may_be_ignored(make):
    step = nonfinite(make, "nan_reward", "ignore").step(np.zeros(2, np.int64))
    assert step.rewards[0] == 2 and np.isnan(step.rewards[1]) and not step.truncated.any()


@pytest.mark.parametrize("on_nonfinite", ["error", "reset"])  # resetting again would give the same
def test_nonfinite_observation_of_a_reset_is_an_error(make, on_nonfinite):
    with pytest.raises(NonFiniteError, match="copy 1: step 0: observations="):
        nonfinite(make, "nan_observation", on_nonfinite, phase="reset")


@pytest.mark.filterwarnings("ignore:overflow")
def test_large_finite_numbers_are_no_error(make):
    # four float32 of 2e38 add up to infinity, yet each is finite
    env = make("sample_envs:Counting-v0", 2)
    env._observations = env.reset(seed=[5, 5])
    large = np.full((2, 3), 2e38, np.float32)
    env._call = lambda phase, actions: (large, np.ones(2), np.zeros(2, bool), np.zeros(2, bool), {})
    step = env.step(np.zeros(2, np.int64))
    assert np.array_equal(step.next_observations, large) and not step.truncated.any()


def test_native_cannot_reset_one_copy_over_a_nonfinite_number(make):
    with pytest.raises(ConfigError, match=r"env.on_nonfinite=reset: CartPole-v1 native can't reset a single copy"):
        make("CartPole-v1", 2, "native", on_nonfinite="reset")


# -- ids -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("Pendulun-v1", "did you mean 'Pendulum-v1'"),
        ("no_such_module:X-v0", "module 'no_such_module' can't be imported"),
        ("", "must be text, not empty"),
    ],
)
def test_unknown_ids(env_id, says):
    with pytest.raises(ConfigError, match=says) as error:
        GymnasiumEnv(env_id)
    assert error.value.exit_status == 2 and str(error.value).startswith("env.id=")


def test_kwargs_that_the_environment_does_not_take():
    with pytest.raises(ConfigError, match=r"env.kwargs={'gravity': 1}: CartPole-v1 does not take them"):
        GymnasiumEnv({"id": "CartPole-v1", "kwargs": {"gravity": 1}})


def test_make_replaces_the_id():
    from sample_envs import Counting

    env = GymnasiumEnv({"id": "my own", "num_envs": 2}, make=Counting)
    assert env.reset(seed=[2, 3])[:, 2].tolist() == [2, 3]


# -- attributes of the copies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_attributes_are_read_and_set_and_kept(make, mode):
    env, other = (make("CartPole-v1", 3, mode, seed=1) for _ in range(2))
    env.reset()
    assert env.get_attr("gravity") == [9.8] * 3
    env.set_attr("gravity", 3)
    assert env.get_attr("gravity") == [3] * 3
    env.set_attr("gravity", [1.0, 20.0, 300.0])
    other.restore(env.snapshot())
    assert env.get_attr("gravity") == other.get_attr("gravity") == [1.0, 20.0, 300.0]
    pushed = [one.step(np.zeros(3, np.int64)).next_observations for one in (env, other)]
    assert np.array_equal(*pushed)
    with pytest.raises(ValueError, match="gravity: 2 values for 3 copies; give one, or one per copy"):
        env.set_attr("gravity", [1, 2])
    with pytest.raises(EnvironmentFailure, match=r"env.id=CartPole-v1: .*set_attr gravitie.*gravitie"):
        env.set_attr("gravitie", 1)


def test_a_native_environment_has_no_copies_to_ask(make):
    env = make("CartPole-v1", 4, "native", seed=3)
    for call in (lambda: env.get_attr("gravity"), lambda: env.set_attr("gravity", 1)):
        with pytest.raises(ConfigError, match=r"env.vectorization=native: has no gravity of single copies; use sync or async"):
            call()
