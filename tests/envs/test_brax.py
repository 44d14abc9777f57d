"""Brax's environments without Brax's wrappers: time limits, terminations, repeated actions, training, settings."""

import copy

import numpy as np
import pytest

pytest.importorskip("brax")

import jax
from command_line import call
from gymnasium import spaces

from rltrain.agents.base import Agent
from rltrain.agents.ppo.jax import PPO
from rltrain.envs.brax import BraxEnv
from rltrain.errors import ConfigError
from rltrain.trainers import SequentialTrainer


def make(copies: int = 3, id: str = "inverted_pendulum", **kwargs) -> BraxEnv:
    return BraxEnv({"id": id, "num_envs": copies, "kwargs": {"backend": "spring", **kwargs}}, seed=1)


def play(env: BraxEnv, actions: list[np.ndarray]) -> list:
    env.reset()
    steps = []
    for action in actions:
        steps.append(env.step(action))
        env.reset_done()
    return steps


def constant(value: float, times: int) -> list[np.ndarray]:
    return [np.full((3, 1), value, np.float32)] * times


def test_a_time_limit_truncates_and_a_fall_terminates():
    """Pushed, the pole falls within 30 steps; its angle is then beyond 0.2, as Brax's own rule says."""
    env = make()
    steps = play(env, constant(1.0, 40))
    fell = [int(np.argmax([step.terminated[i] for step in steps])) for i in range(3)]
    assert all(2 < at < 30 for at in fell) and not any(step.truncated.any() for step in steps)
    for i, at in enumerate(fell):
        assert abs(steps[at].next_observations[i, 1]) > 0.2  # the true successor, not the next episode's beginning
        assert abs(steps[at - 1].next_observations[i, 1]) <= 0.2
    # the same actions with the time limit at the first one's fall, which is a fall all the same
    limit = fell[0] + 1
    cut = play(make(episode_length=limit), constant(1.0, limit))[-1]
    standing = np.array(fell) >= limit
    assert cut.terminated[0] and not cut.truncated[0] and (cut.truncated | ~standing).all()
    np.testing.assert_array_equal(cut.next_observations[0], steps[limit - 1].next_observations[0])


def test_a_step_is_braxs_own():
    env = make(episode_length=5)
    theirs, state = env.pure.env.env.env, None
    own_step = jax.jit(jax.vmap(theirs.step))
    generator = np.random.default_rng(0)
    env.reset()
    for _ in range(5):
        actions = generator.uniform(-1, 1, (3, 1)).astype(np.float32)
        state = own_step(env.copies.env[0] if state is None else state, actions)
        step = env.step(actions)
        np.testing.assert_allclose(step.next_observations, state.obs, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(step.rewards, state.reward, rtol=1e-5)
    assert step.truncated.all()
    assert np.abs(np.array(env.reset_done())).max() <= 0.01 + 1e-6  # a fresh beginning
    np.testing.assert_array_equal(env.copies.env[1], 0)


@pytest.mark.slow
def test_an_action_is_repeated_until_the_episode_ends():
    single = play(make(), constant(1.0, 40))
    at = int(np.argmax([step.terminated[0] for step in single]))  # the step at which the first copy falls
    repeat = 3 if at % 3 != 2 else 4  # so that it falls in the middle of the repeats
    repeated = play(make(action_repeat=repeat), constant(1.0, at // repeat + 1))
    assert repeated[-1].terminated[0] and not any(step.terminated[0] for step in repeated[:-1])
    np.testing.assert_allclose(repeated[-1].next_observations[0], single[at].next_observations[0], rtol=1e-4, atol=1e-4)
    assert repeated[0].rewards[0] == pytest.approx(sum(step.rewards[0] for step in single[:repeat]), rel=1e-5)
    assert repeated[-1].rewards[0] == pytest.approx(
        sum(step.rewards[0] for step in single[at // repeat * repeat : at + 1]), rel=1e-5
    )
    cut = play(make(action_repeat=repeat, episode_length=repeat * 2), constant(0.0, 2))
    assert not cut[0].truncated.any() and cut[1].truncated.all()  # a time limit counts the simulator's steps


def test_spaces():
    env = make()
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert env.action_space == spaces.Box(-1, 1, (1,), np.float32)


def trainer(timesteps: int, fused: str = "true", horizon: int | None = None) -> SequentialTrainer:
    env = make(copies=4, episode_length=20)
    cfg = {"rollout_length": 16, "epochs": 2, "minibatches": 2, "network": {"policy_sizes": [8], "value_sizes": [8]}}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=4, cfg=cfg, seed=1))
    how = {"timesteps": timesteps, "fused": fused, "disable_progressbar": True}
    return SequentialTrainer(env=env, agents=agent, cfg=how, horizon=horizon)


def numbers(made: SequentialTrainer) -> dict:
    parts, exact = made.snapshot()
    assert exact
    parts["trainer"].pop("training_seconds")
    return parts


@pytest.mark.slow
def test_fused_equals_stepped_equals_resumed():
    fused, stepped, first, rest = trainer(50), trainer(50, "false"), trainer(24, horizon=50), trainer(50)
    for made in (fused, stepped, first):
        made.train()
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    np.testing.assert_equal(numbers(fused), numbers(stepped))
    np.testing.assert_equal(numbers(rest), numbers(fused))
    assert fused.agents[0].statistics.episodes >= 8


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("halfcheeta", {}, r"env.id=halfcheeta: Brax has no such environment; did you mean 'halfcheetah'"),
        ("ant", {"backend": "sprng"}, r"env.kwargs.backend=sprng: Brax has no such backend; did you mean 'spring'"),
        ("ant", {"episode_lenght": 5}, r"env.kwargs.episode_lenght=5: ant has no such parameter; did you mean 'episode_length'"),
        ("ant", {"episode_length": 0}, r"env.kwargs.episode_length=0: must be at least 1"),
        ("ant", {"action_repeat": 1.5}, r"env.kwargs.action_repeat=1.5: must be a whole number"),
        ("ant", {"healthy_reward": "high"}, r"env.kwargs.healthy_reward=high: must be a finite number"),
        ("ant", {"healthy_z_range": [0.2]}, r"env.kwargs.healthy_z_range=\[0.2\]: must be finite numbers in the shape \(2,\)"),
        ("swimmer", {"backend": "spring"}, r"env.kwargs=.*swimmer refuses them: Unsupported backend: spring"),
    ],
)
def test_bad_settings_say_what_would_be_right(id, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        make(id=id, **kwargs)


def test_nothing_but_figures_is_printed(here, capfd):
    result = call("train", "backend=jax", "env=brax", "env.id=halfcheeta", "dry_run=true")
    assert result.status == 2 and result.out == "" and capfd.readouterr().out == ""
