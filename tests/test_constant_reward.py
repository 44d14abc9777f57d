"""Reward 1 at every step, no end but a time limit of 10, gamma 0.9: the value is 1 / (1 - 0.9) = 10 everywhere.

It is less wherever a truncation is taken for an end, or a native environment's dummy row (reward 0) for a step.
"""

import numpy as np
import pytest
import torch

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import SequentialTrainer

MODES = [("sync", 1), ("sync", 3), ("async", 3), ("native", 3)]
CFG = {
    "rollout_length": 32, "epochs": 8, "minibatches": 4, "learning_rate": 1e-2, "grad_norm_clip": 0.0, "discount_factor": 0.9,
    "network": {"policy_sizes": [8], "value_sizes": [16]},
}  # fmt: skip


def train(vectorization: str, num_envs: int, timesteps: int, cfg: dict, *, constant_value: float | None = None) -> Agent:
    """Train PPO; with `constant_value`, from a value network that says it of every observation."""
    env = GymnasiumEnv({"id": "sample_envs:Constant-v0", "num_envs": num_envs, "vectorization": vectorization}, seed=0)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=num_envs, cfg=cfg))
    if constant_value is not None:
        snapshot = agent.algorithm.snapshot()
        parameters = snapshot["policy"]["parameters"]
        parameters["value.weights.1"][:] = 0.0
        parameters["value.biases.1"][:] = constant_value
        agent.algorithm.restore(snapshot)
    try:
        SequentialTrainer(env, agent, cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    finally:
        env.close()
    return agent


def values(agent: Agent) -> np.ndarray:
    """Return the value of every observation there is."""
    observations = torch.tensor([[-1.0], [1.0]])
    with torch.no_grad():
        return agent.algorithm._values(agent.algorithm.inputs(observations)).numpy()


@pytest.mark.parametrize(("vectorization", "num_envs"), MODES)
def test_ten_is_the_fixed_point_of_the_targets(vectorization, num_envs):
    # 10 = 1 + 0.9 x 10: every delta is 0, so every return is 10. 33 timesteps: the rollout ends within an episode
    cfg = {**CFG, "rollout_length": 33, "epochs": 1, "minibatches": 1}
    agent = train(vectorization, num_envs, 33, cfg, constant_value=10.0)
    assert agent.metrics["loss/value"] < 1e-9
    assert values(agent) == pytest.approx([10.0, 10.0], abs=1e-4)


@pytest.mark.parametrize(("vectorization", "num_envs", "normalize"), [(*mode, False) for mode in MODES] + [("native", 3, True)])
def test_the_learned_value_is_ten_everywhere(vectorization, num_envs, normalize):
    cfg = {**CFG, "normalize_observations": normalize, "normalize_values": normalize}
    agent = train(vectorization, num_envs, 32 * 40, cfg, constant_value=7.0)
    assert values(agent) == pytest.approx([10.0, 10.0], abs=0.1)
