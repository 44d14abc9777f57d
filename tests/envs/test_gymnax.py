"""gymnax's environments: rewards, successors and flags as gymnax's own step has them, without its resets; training; settings."""

import copy

import numpy as np
import pytest

gymnax = pytest.importorskip("gymnax")

import jax
from gymnasium import spaces

from rltrain.agents.base import Agent
from rltrain.agents.ppo.jax import PPO
from rltrain.envs.gymnax import GymnaxEnv
from rltrain.errors import ConfigError
from rltrain.trainers import SequentialTrainer

MINATAR = [f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")]
CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0"]
LIMIT = 4


def make(id: str, copies: int = 3, **kwargs) -> GymnaxEnv:
    return GymnaxEnv({"id": id, "num_envs": copies, "kwargs": kwargs}, seed=1)


def actions(env: GymnaxEnv, generator: np.random.Generator) -> np.ndarray:
    if isinstance(env.action_space, spaces.Discrete):
        return generator.integers(env.action_space.n, size=env.num_envs)
    low, high = env.action_space.low, env.action_space.high
    return generator.uniform(low, high, (env.num_envs, *low.shape)).astype(np.float32)


@pytest.mark.parametrize("id", CLASSIC + MINATAR)
def test_a_step_is_gymnaxs_own_without_its_reset(id):
    env = make(id, max_steps_in_episode=LIMIT)
    theirs, params = gymnax.make(id)
    params = params.replace(max_steps_in_episode=LIMIT)
    step_env = jax.jit(jax.vmap(lambda key, state, action: theirs.step_env(key, state, action, params)))
    generator, truncated, time = np.random.default_rng(0), 0, np.zeros(3, int)
    observations = env.reset()
    for t in range(3 * LIMIT):
        assert all(env.observation_space.contains(row) for row in np.array(observations))
        chosen, before = actions(env, generator), env.copies
        keys = jax.vmap(lambda key, t=t: jax.random.fold_in(key, 2 * t))(before.keys)
        successors, states, rewards, terminated, _ = step_env(keys, before.env, chosen)
        step = env.step(chosen)
        time += 1
        np.testing.assert_allclose(step.next_observations, successors, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(step.rewards, rewards, rtol=1e-6)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, (time == LIMIT) & ~np.asarray(terminated))
        np.testing.assert_array_equal(states.time, time)
        observations = env.reset_done()
        done = step.terminated | step.truncated
        np.testing.assert_array_equal(np.array(observations)[~done], np.array(step.next_observations)[~done])
        time[done] = 0
        truncated += step.truncated.sum()
        np.testing.assert_array_equal(env.copies.env.time, time)
    assert truncated >= 3


@pytest.mark.parametrize(
    ("id", "observations", "choices"),
    [
        ("CartPole-v1", (4,), 2),
        ("Acrobot-v1", (6,), 3),
        ("MountainCar-v0", (2,), 3),
        ("Asterix-MinAtar", (10, 10, 4), 5),
        ("Breakout-MinAtar", (10, 10, 4), 3),
        ("Freeway-MinAtar", (10, 10, 7), 3),
        ("Seaquest-MinAtar", (10, 10, 10), 6),
        ("SpaceInvaders-MinAtar", (10, 10, 6), 4),
    ],
)
def test_spaces(id, observations, choices):
    env = make(id)
    assert env.observation_space.shape == observations and env.observation_space.dtype == np.float32
    assert env.action_space == spaces.Discrete(choices)
    if "MinAtar" in id:
        assert (env.observation_space.low == 0).all() and (env.observation_space.high == 1).all()


def test_spaces_keep_their_types():
    assert make("Pendulum-v1", max_torque=3).action_space == spaces.Box(-3, 3, (1,), np.float32)
    assert make("Catch-bsuite").observation_space.dtype == np.int32
    assert np.asarray(make("Catch-bsuite").reset()).dtype == np.int32


def fall(env: GymnaxEnv) -> tuple[int, object]:
    """Push CartPole to the right until the first copy's episode ends."""
    env.reset()
    for t in range(1, 500):
        step = env.step(np.ones(env.num_envs, int))
        if step.terminated[0] or step.truncated[0]:
            return t, step
        env.reset_done()
    raise AssertionError


def test_a_fall_is_a_termination_with_its_true_successor():
    env = make("CartPole-v1")
    fell, step = fall(env)
    angle = abs(float(step.next_observations[0, 2]))
    assert step.terminated[0] and not step.truncated[0] and angle > 12 * 2 * np.pi / 360 and 7 <= fell <= 12
    assert step.rewards[0] == 1
    assert np.abs(np.array(env.reset_done())[0]).max() <= 0.05
    # a fall at the very time limit is still a termination
    at, step = fall(make("CartPole-v1", max_steps_in_episode=fell))
    assert at == fell and step.terminated[0] and not step.truncated[0]
    at, step = fall(make("CartPole-v1", max_steps_in_episode=fell - 1))
    assert at == fell - 1 and step.truncated[0] and not step.terminated[0]


def test_the_mountain_car_arrives():
    env = make("MountainCar-v0", copies=1)
    observations, steps = env.reset(), 0
    while steps < 200:  # pushing along with the velocity swings it up
        step = env.step(np.where(np.array(observations)[:, 1] >= 0, 2, 0))
        steps += 1
        if step.terminated[0] or step.truncated[0]:
            break
        observations = env.reset_done()
    assert step.terminated[0] and not step.truncated[0] and steps < 200 and step.next_observations[0, 0] >= 0.5


def trainer(id: str, timesteps: int, fused: str = "true", horizon: int | None = None, **cfg) -> SequentialTrainer:
    env = make(id, copies=16, max_steps_in_episode=13)
    cfg = {"rollout_length": 16, "epochs": 2, "minibatches": 2, **cfg}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=16, cfg=cfg, seed=1))
    how = {"timesteps": timesteps, "fused": fused, "disable_progressbar": True}
    return SequentialTrainer(env=env, agents=agent, cfg=how, horizon=horizon)


def numbers(made: SequentialTrainer) -> dict:
    parts, exact = made.snapshot()
    assert exact
    parts["trainer"].pop("training_seconds")
    return parts


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "Breakout-MinAtar"])
def test_fused_equals_stepped_equals_resumed(id):
    fused, stepped, first, rest = trainer(id, 56), trainer(id, 56, "false"), trainer(id, 20, horizon=56), trainer(id, 56)
    for made in (fused, stepped, first):
        made.train()
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    assert fused.agents[0].updates == 3 and fused.agents[0].statistics.episodes >= 4 * 16
    np.testing.assert_equal(numbers(fused), numbers(stepped))
    np.testing.assert_equal(numbers(rest), numbers(fused))


def test_continuous_actions_are_within_their_bounds():
    made = trainer("Pendulum-v1", 1, "false", network={"initial_log_std": 1.5})
    agent, seen = made.agents[0], []
    observations = made.env.reset()
    for t in range(20):
        drawn = agent.act(observations, timestep=t, timesteps=20)
        assert all(made.env.action_space.contains(row) for row in drawn)
        seen.append(drawn)
        made.env.step(drawn)
        observations = made.env.reset_done()
    assert np.min(seen) == -2 and np.max(seen) == 2 and len(np.unique(seen)) > 10


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("CartPole-v2", {}, r"env.id=CartPole-v2: gymnax has no such environment; did you mean 'CartPole-v1'"),
        ("CartPole-v1", {"gravitty": 9}, r"env.kwargs.gravitty=9: CartPole-v1 has no such parameter; did you mean 'gravity'"),
        ("CartPole-v1", {"gravity": "low"}, r"env.kwargs.gravity=low: must be a finite number; the default is 9.8"),
        ("CartPole-v1", {"gravity": float("nan")}, r"env.kwargs.gravity=nan: must be a finite number"),
        ("CartPole-v1", {"max_steps_in_episode": 2.5}, r"env.kwargs.max_steps_in_episode=2.5: must be a whole number"),
        ("CartPole-v1", {"max_steps_in_episode": 0}, r"env.kwargs.max_steps_in_episode=0: must be at least 1"),
        ("CartPole-v1", {"max_steps_in_episode": True}, r"env.kwargs.max_steps_in_episode=.*: must be a whole number"),
        (
            "Acrobot-v1",
            {"available_torque": [1, 2]},
            r"available_torque=.*: must be finite numbers in the shape \(3,\)",
        ),
    ],
)
def test_bad_settings_say_what_would_be_right(id, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        make(id, **kwargs)


def test_settings_reach_the_environment():
    strong, usual = make("Acrobot-v1", available_torque=[-5, 0, 5]), make("Acrobot-v1")
    after = []
    for env in (strong, usual):
        env.reset()
        after.append(np.array(env.step(np.zeros(3, int)).next_observations))
    assert np.abs(after[0] - after[1]).max() > 0.1
