"""Agents on probe environments: each solved in about a second, or wrong in a way that the probe's docstring names."""

import pytest
import torch

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Progress
from rltrain.trainers import SequentialTrainer

PPO_CFG = {
    "rollout_length": 16, "epochs": 4, "minibatches": 2, "learning_rate": 0.01, "discount_factor": 0.5, "entropy_scale": 0.0,
    "network": {"policy_sizes": [16], "value_sizes": [16]},
}  # fmt: skip
NORMALISED = {"normalize_observations": True, "normalize_values": True}


def solve(name: str, updates: int, **cfg) -> PPO:
    """Train PPO on a probe."""
    env = GymnasiumEnv({"id": f"probe_envs:{name}-v0", "num_envs": 8}, seed=1)
    algorithm = PPO(env.observation_space, env.action_space, num_envs=8, cfg={**PPO_CFG, **cfg}, seed=1)
    updates += cfg.get("normalize_observations", False)
    SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": 16 * updates, "disable_progressbar": True}).train()
    return algorithm


def values(algorithm: PPO, *observations: float) -> list[float]:
    with torch.no_grad():
        return algorithm._values(algorithm.inputs(torch.tensor(observations)[:, None])).tolist()


def acts(algorithm: PPO, *observations: float) -> list:
    rows = torch.tensor(observations)[:, None]
    return algorithm.act(None, rows, explore=False, progress=Progress(0, 1))[1].reshape(-1).tolist()


def probability(algorithm: PPO, observation: float, action: int) -> float:
    with torch.no_grad():
        heads = algorithm.networks.heads(algorithm.inputs(torch.tensor([[observation]])))
        return float(algorithm.head.log_prob(heads, torch.tensor([action])).exp())


@pytest.mark.parametrize("cfg", [{}, NORMALISED], ids=["plain", "normalised"])
def test_constant_value(cfg):
    assert values(solve("ConstantValue", 40, **cfg), 0.0) == pytest.approx([1.0], abs=0.05)


@pytest.mark.parametrize("cfg", [{}, NORMALISED], ids=["plain", "normalised"])
def test_value_from_observation(cfg):
    assert values(solve("ValueFromObservation", 40, **cfg), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.1)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95])
def test_discounting(gae_lambda):
    algorithm = solve("Discounting", 60, gae_lambda=gae_lambda)
    assert values(algorithm, 0.0, 1.0) == pytest.approx([0.5, 1.0], abs=0.05)


def test_advantage():
    algorithm = solve("Advantage", 40)
    assert acts(algorithm, 0.0) == [1] and probability(algorithm, 0.0, 1) > 0.95
    assert values(algorithm, 0.0) == pytest.approx([1.0], abs=0.1)


@pytest.mark.parametrize("cfg", [{}, NORMALISED], ids=["plain", "normalised"])
def test_policy_from_observation(cfg):
    algorithm = solve("PolicyFromObservation", 50, **cfg)
    assert acts(algorithm, -1.0, 1.0) == [0, 1]
    assert min(probability(algorithm, -1.0, 0), probability(algorithm, 1.0, 1)) > 0.95


def test_credit_reaches_the_first_of_two_actions():
    algorithm = solve("TwoStepPolicy", 80, entropy_scale=0.01)
    assert acts(algorithm, -1.0, 1.0) == [1, 0]
    assert min(probability(algorithm, -1.0, 1), probability(algorithm, 1.0, 0)) > 0.9


@pytest.mark.parametrize("cfg", [{}, NORMALISED], ids=["plain", "normalised"])
def test_continuous_target(cfg):
    algorithm = solve("ContinuousTarget", 100, **cfg)
    assert acts(algorithm, -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.25)
    # acting in units of half the range, 3: the deviation shrinks from 1 as the target is found
    assert float(algorithm.head.log_std.detach().exp()) < 0.5


def test_truncation():
    # 1 / (1 - 0.9) = 10; as an end: at most 2.71; from the next episode's first observation: about 6.4 and 3.6
    algorithm = solve("Truncation", 80, discount_factor=0.9, learning_rate=0.02, epochs=8, grad_norm_clip=0.0)
    assert values(algorithm, -1.0, 1.0) == pytest.approx([0.0, 10.0], abs=0.5)


def test_entropy_bonus_keeps_the_policy_open():
    # action 1 earns more, yet a large bonus holds both probabilities near 1/2; of the wrong sign it would drive one to 1
    assert 0.3 < probability(solve("Advantage", 40, entropy_scale=5.0), 0.0, 1) < 0.8
