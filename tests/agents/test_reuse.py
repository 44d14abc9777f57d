"""One agent in several loops, saved and loaded; several agents in one loop."""

import os
import signal
import threading

import pytest

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.checkpoints import tree_sha256
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import CheckpointError, ConfigError, RunError, StorageError
from rltrain.trainers import SequentialTrainer

QUIET = {"disable_progressbar": True}


def make_agent(copies: int = 2, name: str = "agent", **cfg) -> Agent:
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": copies})
    return Agent(PPO(env.observation_space, env.action_space, num_envs=copies, cfg={"rollout_length": 8, **cfg}), name=name)


def train(agent: Agent, timesteps: int) -> SequentialTrainer:
    trainer = SequentialTrainer(
        GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=1), agent, cfg={"timesteps": timesteps, **QUIET}
    )
    trainer.train()
    return trainer


def test_an_agent_that_stopped_within_a_rollout_trains_on_in_a_new_loop():
    agent = make_agent()
    train(agent, 12)  # 8 timesteps learned from, 4 in the memory
    train(agent, 16)
    assert agent.updates == 3


def test_saved_and_loaded_it_is_the_same_agent(tmp_path):
    agent, other = make_agent(), make_agent()
    train(agent, 12)
    agent.save(tmp_path / "kept")
    other.load(tmp_path / "kept")
    assert tree_sha256(agent.snapshot()) == tree_sha256(other.snapshot())
    train(other, 16)
    assert other.updates == 3


def test_save_replaces_a_checkpoint_and_nothing_else(tmp_path):
    agent = make_agent()
    agent.save(tmp_path / "kept")
    agent.save(tmp_path / "kept")
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    with pytest.raises(StorageError, match="is there and is not a checkpoint"):
        agent.save(tmp_path / "mine")
    assert thesis.read_text() == "years"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"copies": 3}, "it was trained on 2 copies, here are 3"),
        ({"network": {"policy_sizes": [16, 64]}}, r"policy.weights.0 has shape \(64, 4\) there and \(16, 4\) here"),
        ({"name": "somebody"}, "holds no agents/somebody/policy"),
    ],
)
def test_load_says_what_does_not_fit(tmp_path, other, says):
    make_agent().save(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=says):
        make_agent(**other).load(tmp_path / "kept")


def test_an_update_of_a_rollout_that_is_not_full_is_an_error():
    agent = make_agent()
    train(agent, 4)
    with pytest.raises(RunError, match="an update is due, but the rollout has 4 of 8 timesteps"):
        agent.post_interaction(7, 8)


def test_two_agents_of_one_name_are_refused():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 4})
    with pytest.raises(ConfigError, match=r"agents=\['agent', 'agent'\]: each agent needs a name of its own"):
        SequentialTrainer(env, [make_agent(), make_agent()], cfg={"timesteps": 8, **QUIET})


def test_an_interrupt_reaches_a_script_and_leaves_the_trainer_usable():
    agent = make_agent()
    trainer = SequentialTrainer(
        GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=1), agent, cfg={"timesteps": 1_000_000, **QUIET}
    )
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert 0 < trainer.timestep < 1_000_000
    assert len(trainer.eval(4)["agent"]["returns"]) == 4


def test_metrics_are_means_over_the_updates_since_they_were_read(monkeypatch):
    agent = make_agent()
    monkeypatch.setattr(agent.algorithm, "update", lambda progress: {"loss/policy": float(progress.timestep)})
    for timestep in (7, 15, 23):
        agent.post_interaction(timestep, 100)
    assert agent.read_metrics() == {"loss/policy": 15.0}
    assert agent.read_metrics() == {}
    agent.post_interaction(31, 100)
    assert agent.read_metrics() == {"loss/policy": 31.0}
