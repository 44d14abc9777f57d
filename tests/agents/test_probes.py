"""Agents on probe environments: each solved in about a second, or wrong in a way that the probe's docstring names."""

import pytest
import torch

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.ddqn.torch import DDQN
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.ppo.torch import PPO
from rltrain.agents.sac.torch import SAC
from rltrain.agents.td3.torch import TD3
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
        logits = algorithm.networks.logits(algorithm.inputs(torch.tensor([[observation]])))
        return float(algorithm.distribution.log_prob(logits, torch.tensor([action])).exp())


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
    assert float(algorithm.distribution.log_std.detach().exp()) < 0.5


def test_truncation():
    # 1 / (1 - 0.9) = 10; as an end: at most 2.71; from the next episode's first observation: about 6.4 and 3.6
    algorithm = solve("Truncation", 80, discount_factor=0.9, learning_rate=0.02, epochs=8, grad_norm_clip=0.0)
    assert values(algorithm, -1.0, 1.0) == pytest.approx([0.0, 10.0], abs=0.5)


def test_entropy_bonus_keeps_the_policy_open():
    # action 1 earns more, yet a large bonus holds both probabilities near 1/2; of the wrong sign it would drive one to 1
    assert 0.3 < probability(solve("Advantage", 40, entropy_scale=5.0), 0.0, 1) < 0.8


# -- off-policy --------------------------------------------------------------------------------------------------------------

OFF_POLICY = {"dqn": DQN, "ddqn": DDQN, "ddpg": DDPG, "td3": TD3, "sac": SAC}
CRITICS_CFG = {
    "learning_starts": 30, "update_interval": 1, "gradient_steps": 1, "batch_size": 32, "memory_size": 2000,
    "learning_rate": 0.01, "discount_factor": 0.5, "polyak": 0.05, "target_update_interval": 1,
}  # fmt: skip
EXTRAS = {"prioritized": True, "n_steps": 3, "normalize_observations": True}
QUIET = {"entropy_coefficient": 0.01}  # so that values are of rewards


def learn(agent: str, probe: str, timesteps: int, **cfg):
    """Train an off-policy agent on a probe."""
    env = GymnasiumEnv({"id": f"probe_envs:{probe}-v0", "num_envs": 4}, seed=1)
    q = agent in ("dqn", "ddqn")
    network = {"sizes": [16]} if q else {"policy_sizes": [16], "critic_sizes": [16]}
    own = {"epsilon_end": 0.2} if q else QUIET if agent == "sac" else {"noise_scale": 0.3}
    settings = {**CRITICS_CFG, "network": network, **own, **cfg}
    algorithm = OFF_POLICY[agent](env.observation_space, env.action_space, num_envs=4, cfg=settings, seed=1)
    SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    return algorithm


def q_values(algorithm, *observations: float) -> list[list[float]]:
    """Return the values of every choice at each observation, the mean over critics."""
    learner = algorithm.learners.get("q") or algorithm.learners["critics"]
    with torch.no_grad():
        found = learner.network.values(algorithm.inputs(torch.tensor(observations)[:, None]))
    return (found if found.ndim == 2 else found.mean(0)).tolist()


CHOOSE = [("dqn", {}), ("dqn", {"network": {"sizes": [16], "dueling": True}, "loss": "squared"}), ("dqn", EXTRAS), ("ddqn", {}),
          ("sac", {}), ("sac", EXTRAS)]  # fmt: skip
NAMES = ["dqn", "dueling", "dqn+", "ddqn", "sac", "sac+"]
CHOOSING = pytest.mark.parametrize(("agent", "cfg"), CHOOSE, ids=NAMES)
OF_BOTH = [
    pytest.param(*parts, id=name, marks=[] if name in ("dqn", "sac+") else [pytest.mark.slow])
    for parts, name in zip(CHOOSE, NAMES, strict=True)
]


@CHOOSING
def test_values_of_a_constant_and_of_an_observation(agent, cfg):
    assert q_values(learn(agent, "ConstantValue", 150, **cfg), 0.0)[0] == pytest.approx([1.0], abs=0.05)
    found = q_values(learn(agent, "ValueFromObservation", 250, **cfg), -1.0, 1.0)
    assert [value for (value,) in found] == pytest.approx([-1.0, 1.0], abs=0.1)


@CHOOSING
def test_values_of_a_later_reward(agent, cfg):
    found = q_values(learn(agent, "Discounting", 400, **cfg), 0.0, 1.0)
    assert [value for (value,) in found] == pytest.approx([0.5, 1.0], abs=0.05)


@CHOOSING
def test_choices_by_observation(agent, cfg):
    algorithm = learn(agent, "PolicyFromObservation", 350, **cfg)
    assert acts(algorithm, -1.0, 1.0) == [0, 1]
    below, above = q_values(algorithm, -1.0, 1.0)
    assert below == pytest.approx([1.0, -1.0], abs=0.25) and above == pytest.approx([-1.0, 1.0], abs=0.25)


@pytest.mark.parametrize("agent", ["dqn", "ddqn", "sac"])
def test_n_step_returns_bring_credit_to_the_first_of_two_actions(agent):
    """The second observation doesn't tell what the first action was: one reward per target can't tell the two apart."""
    algorithm = learn(agent, "TwoStepPolicy", 600, n_steps=2)
    assert acts(algorithm, -1.0, 1.0) == [1, 0]
    worse, better = q_values(algorithm, -1.0)[0]
    assert worse < 0.1 and better > 0.35  # gamma = 1/2, less what exploring loses at the second step


@pytest.mark.parametrize(("agent", "cfg"), OF_BOTH)
def test_values_at_a_time_limit(agent, cfg):
    # 1 / (1 - 0.8) = 5; as an end: at most 1 + 0.8 + 0.64 = 2.44; from the next episode's first observation: in between
    found = q_values(learn(agent, "Truncation", 900, discount_factor=0.8, **cfg), -1.0, 1.0)
    assert [value for (value,) in found] == pytest.approx([0.0, 5.0], abs=0.4)


@pytest.mark.parametrize(
    ("agent", "cfg"),
    [("ddpg", {}), ("ddpg", {"noise": "ornstein_uhlenbeck", "noise_scale": 2.0}), pytest.param("td3", {}, marks=pytest.mark.slow),
     ("td3", EXTRAS), pytest.param("sac", {}, marks=pytest.mark.slow), ("sac", EXTRAS)],
    ids=["ddpg", "ddpg-ou", "td3", "td3+", "sac", "sac+"],
)  # fmt: skip
def test_actions_by_observation(agent, cfg):
    algorithm = learn(agent, "ContinuousTarget", 1200 if agent == "td3" else 800, **cfg)
    assert acts(algorithm, -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.35)


def test_an_entropy_coefficient_that_learns_keeps_the_entropy():
    """Two choices of which one is right: without a bonus the entropy would go to 0, here it is held at 0.5."""
    algorithm = learn("sac", "Advantage", 700, entropy_coefficient="auto", target_entropy=0.5, entropy_learning_rate=0.02)
    with torch.no_grad():
        log_probs = torch.log_softmax(algorithm._logits(algorithm.inputs(torch.zeros(1, 1)), None), 1)
    assert float(-(log_probs.exp() * log_probs).sum()) == pytest.approx(0.5, abs=0.1)
    assert acts(algorithm, 0.0) == [1]
