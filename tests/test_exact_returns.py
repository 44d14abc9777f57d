"""Returns are sums of an environment's own numbers in float64; what no float32 holds, in which agents learn, is told as such."""

import numpy as np
import pytest
from command_line import call, summary, train

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.structures import Step, mean_of_those_who_played, most_exact
from rltrain.trainers import ParallelTrainer, SequentialTrainer

PAYER = "reward_envs:Payer-v0"
LARGE = [1e8, 1.0]  # 100,000,001 has no float32


def make(rewards, num_envs=3, kind=GymnasiumEnv, **cfg):
    return kind({"id": PAYER, "num_envs": num_envs, "kwargs": {"rewards": rewards}, **cfg}, seed=0)


def make_agent(env, copies=None, kind=Agent, name="agent", **cfg):
    cfg = {"rollout_length": 4, "minibatches": 1, "epochs": 1, "network": {"policy_sizes": [4], "value_sizes": [4]}, **cfg}
    return kind(PPO(env.observation_space, env.action_space, num_envs=copies or env.num_envs, cfg=cfg), name=name)


def returns_of(env, kind=Agent):
    """Return the returns that training and an evaluation see."""
    agent = make_agent(env, kind=kind)
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 4, "disable_progressbar": True})
    try:
        trainer.train()
        return [*agent.statistics.returns, *trainer.eval(episodes=3)["agent"]["returns"]]
    finally:
        trainer.close()


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_of_a_gymnasium_environment(vectorization):
    assert set(returns_of(make(LARGE, vectorization=vectorization))) == {100_000_001.0}


def test_on_the_command_line(tmp_path):
    """Seven tenths are not below seven tenths: not rounded, and their mean over three is not a bit less."""
    train(f"env={PAYER}", "total_env_steps=64", f"run.dir={tmp_path / 'run'}")
    assert summary(tmp_path / "run")["agents"]["ppo"]["episode_return_mean"] == 0.7
    figures = call("eval", str(tmp_path / "run"), "episodes=3", "fail_under=0.7", f"run.dir={tmp_path / 'there'}")
    assert figures.status == 0, figures.text
    assert call("eval", str(tmp_path / "run"), "episodes=3", "fail_under=0.7000000000000001").status == 1


def test_of_a_team(tmp_path):
    pytest.importorskip("pettingzoo")
    arguments = ("env=pettingzoo", "env.id=reward_envs:team", "agents=ippo", "total_env_steps=32", "env.num_envs=2", "seed=1")
    small = ("agents.ippo.rollout_length=8", "tracking.tensorboard=false", f"run.dir={tmp_path / 'run'}")
    result = call("train", *arguments, *small)
    assert result.status == 0, result.text
    agent = summary(tmp_path / "run")["agents"]["ippo"]
    assert {agent["episode_return_mean"], *(one["episode_return_mean"] for one in agent["members"].values())} == {0.7}
    result = call("eval", str(tmp_path / "run"), "episodes=3", "fail_under=0.7", "random=false")
    assert result.status == 0, result.text


@pytest.mark.parametrize("placement", ["shared", pytest.param("partitioned", marks=pytest.mark.slow)])
def test_through_workers(placement):
    env = make(LARGE)
    agents = [make_agent(env, copies, name=name) for name, copies in (("one", 1), ("two", 2))]
    cfg = {"timesteps": 4, "disable_progressbar": True, "placement": placement}
    ParallelTrainer(env, agents, [1, 2], cfg=cfg).train()
    assert [list(agent.statistics.returns) for agent in agents] == [[100_000_001.0] * 2, [100_000_001.0] * 4]
    env.close()


# -- one's own wrappers and agents, which know rewards in float32 only ----------------------------------------------------------


class Halved(GymnasiumEnv):
    def step(self, actions):
        step = super().step(actions)
        return step._replace(rewards=step.rewards / 2)


class HalvedInPlace(GymnasiumEnv):
    def step(self, actions):
        step = super().step(actions)
        step.rewards[:] = step.rewards / 2
        return step


class Rebuilt(GymnasiumEnv):
    def step(self, actions):
        step = super().step(actions)
        return Step(*step[:2], step.rewards / 2, *step[3:7])


@pytest.mark.parametrize("kind", [Halved, HalvedInPlace, Rebuilt])
def test_a_wrapper_that_changes_rewards_is_believed(kind):
    assert set(returns_of(make([0.7], kind=kind))) == {float(np.float32(0.7) / 2)}


class Explicit(Agent):
    """Names every keyword that there was."""

    def record_transition(
        self, *, observations, states=None, actions, rewards, next_observations, next_states=None, terminated, truncated,
        valid=None, infos, timestep, timesteps,
    ):  # fmt: skip
        assert rewards.dtype == np.float32
        super().record_transition(
            observations=observations, states=states, actions=actions, rewards=rewards, next_observations=next_observations,
            next_states=next_states, terminated=terminated, truncated=truncated, valid=valid, infos=infos, timestep=timestep,
            timesteps=timesteps,
        )  # fmt: skip


def test_an_agent_that_names_the_keywords_of_record_transition():
    assert set(returns_of(make(LARGE), kind=Explicit)) == {100_000_001.0}


def test_a_loop_of_ones_own():
    env = make(LARGE)
    agent, observations = make_agent(env), env.reset()
    for timestep in range(2):
        now = {"timestep": timestep, "timesteps": 2}
        actions = agent.act(observations, **now)
        step = env.cut(env.step(actions), slice(0, 3))
        agent.record_transition(observations=observations, actions=actions, **step._asdict(), **now)
        observations = env.reset_done()
    assert list(agent.statistics.returns) == [100_000_001.0] * 3
    env.close()


# -- by hand ------------------------------------------------------------------------------------------------------------------


def test_most_exact():
    exact = np.array([0.7, 1e8 + 1])
    rewards = exact.astype(np.float32)
    assert most_exact(rewards, exact) is exact and most_exact(rewards, None) is rewards
    assert most_exact(rewards * 2, exact).tolist() == (rewards * 2).tolist()
    found = most_exact({"a": rewards, "b": rewards + 1}, {"a": exact, "b": exact})
    assert found["a"] is exact and found["b"].dtype == np.float32


def test_the_mean_of_those_who_played():
    returns = np.array([[0.7, 5.0, 0.0], [0.7, 0.0, 0.0], [0.7, 2.0, 0.0]])
    played = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    assert mean_of_those_who_played(returns, played).tolist() == [0.7, 3.5, 0.0]  # (5 + 2) / 2


# -- beyond float32 -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("obey", ["error", "ignore"])
def test_a_reward_beyond_float32_is_told(obey, tmp_path):
    beyond = (f"env={PAYER}", "env.kwargs.rewards=[1.0,1e39]", f"env.on_nonfinite={obey}", "total_env_steps=64")
    result = train(*beyond, f"run.dir={tmp_path / 'run'}", status=1)
    assert result.err.splitlines()[-1].startswith(f"error: env.id={PAYER}: copy 0: step 1: rewards=1e+39 is beyond float32")


def test_a_reward_beyond_float32_is_told_of_a_team():
    pytest.importorskip("pettingzoo")
    import reward_envs

    env = PettingZooEnv({"id": "team", "num_envs": 2}, make=lambda: reward_envs.team([-1e300]))
    env.reset()
    with pytest.raises(Exception, match=r"copy 0: step 0: rewards/a=-1e\+300 is beyond float32"):
        env.step({name: np.zeros(2, np.int64) for name in "abc"})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("reward", "kept"), [(3e38, np.float32(3e38)), (1e39, 0.0)])
def test_where_nonfinite_numbers_end_episodes(reward, kept):
    env = make([reward], on_nonfinite="reset")
    env.reset()
    step = env.step(np.zeros(3, np.int64))
    assert step.rewards.tolist() == [kept] * 3 and step.truncated.all() == (kept == 0)
    assert most_exact(step.rewards, step.exact_rewards).tolist() == [0.0 if kept == 0 else reward] * 3
    env.close()
