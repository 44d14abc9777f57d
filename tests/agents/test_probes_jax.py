"""Off-policy agents in JAX on probe environments, as the twins in PyTorch in `test_probes`."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.jax import DDPG
from rltrain.agents.ddqn.jax import DDQN
from rltrain.agents.dqn.jax import DQN
from rltrain.agents.sac.jax import SAC
from rltrain.agents.td3.jax import TD3
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Progress
from rltrain.trainers import SequentialTrainer

AGENTS = {"dqn": DQN, "ddqn": DDQN, "ddpg": DDPG, "td3": TD3, "sac": SAC}
CFG: dict[str, Any] = {
    "learning_starts": 30, "update_interval": 1, "gradient_steps": 1, "batch_size": 32, "memory_size": 2000,
    "learning_rate": 0.01, "discount_factor": 0.5, "polyak": 0.05, "target_update_interval": 1,
}  # fmt: skip
EXTRAS = {"prioritized": True, "n_steps": 3, "normalize_observations": True}
DUELING = {"network": {"sizes": [16], "dueling": True}, "loss": "squared"}
DRIFTING = {"noise": "ornstein_uhlenbeck", "noise_scale": 2.0}


def learn(agent: str, probe: str, timesteps: int, **cfg: Any) -> Any:
    """Train an agent on a probe."""
    env = GymnasiumEnv({"id": f"probe_envs:{probe}-v0", "num_envs": 4}, seed=1)
    q = agent in ("dqn", "ddqn")
    network = {"sizes": [16]} if q else {"policy_sizes": [16], "critic_sizes": [16]}
    own: dict[str, Any] = {"noise_scale": 0.3}
    if q or agent == "sac":
        own = {"epsilon_end": 0.2} if q else {"entropy_coefficient": 0.01}  # so that values are of rewards
    settings = {**CFG, "network": network, **own, **cfg}
    made = Agent(AGENTS[agent](env.observation_space, env.action_space, num_envs=4, cfg=settings, seed=1))
    SequentialTrainer(env, made, cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    return made.algorithm


def q_values(algorithm: Any, *observations: float) -> list[list[float]]:
    """Return the values of every choice at each observation, the mean over critics."""
    pure, state = algorithm.pure, algorithm.state
    inputs = pure.inputs(state.observation_moments, jax.numpy.array(observations)[:, None])
    if "q" in state.learners:
        return np.asarray(pure.network.values(state.learners["q"].parameters, inputs)).tolist()
    return np.asarray(pure.critic_network.values(state.learners["critics"].parameters, inputs).mean(0)).tolist()


def acts(algorithm: Any, *observations: float) -> list[Any]:
    rows = np.array(observations, np.float32)[:, None]
    actor = algorithm.init_actor(len(rows), 0)
    return np.ravel(algorithm.act(actor, rows, explore=False, progress=Progress(0, 1))[1]).tolist()


SLOW = pytest.mark.slow
CHOOSING = pytest.mark.parametrize(
    ("agent", "cfg"),
    [
        pytest.param("dqn", {}, id="dqn", marks=SLOW), pytest.param("dqn", {**DUELING, **EXTRAS}, id="dqn+"),
        pytest.param("ddqn", {}, id="ddqn", marks=SLOW), pytest.param("sac", {}, id="sac", marks=SLOW),
        pytest.param("sac", EXTRAS, id="sac+", marks=SLOW),
    ],
)  # fmt: skip


@CHOOSING
def test_choices_by_observation(agent, cfg):
    algorithm = learn(agent, "PolicyFromObservation", 350, **cfg)
    assert acts(algorithm, -1.0, 1.0) == [0, 1]
    below, above = q_values(algorithm, -1.0, 1.0)
    assert below == pytest.approx([1.0, -1.0], abs=0.25) and above == pytest.approx([-1.0, 1.0], abs=0.25)


@pytest.mark.slow
@CHOOSING
def test_values_of_a_later_reward(agent, cfg):
    found = q_values(learn(agent, "Discounting", 400, **cfg), 0.0, 1.0)
    assert [value for (value,) in found] == pytest.approx([0.5, 1.0], abs=0.05)


@pytest.mark.slow
@CHOOSING
def test_values_at_a_time_limit(agent, cfg):
    # 1 / (1 - 0.8) = 5; as an end: at most 1 + 0.8 + 0.64 = 2.44; from the next episode's first observation: in between
    found = q_values(learn(agent, "Truncation", 900, discount_factor=0.8, **cfg), -1.0, 1.0)
    assert [value for (value,) in found] == pytest.approx([0.0, 5.0], abs=0.4)


@pytest.mark.parametrize("agent", [pytest.param("dqn", marks=SLOW), pytest.param("sac", marks=SLOW)])
def test_n_step_returns_bring_credit_to_the_first_of_two_actions(agent):
    algorithm = learn(agent, "TwoStepPolicy", 600, n_steps=2)
    assert acts(algorithm, -1.0, 1.0) == [1, 0]
    worse, better = q_values(algorithm, -1.0)[0]
    assert worse < 0.1 and better > 0.35  # gamma = 1/2, less what exploring loses at the second step


@pytest.mark.parametrize(
    ("agent", "cfg"),
    [
        pytest.param("ddpg", {}, id="ddpg", marks=SLOW), pytest.param("ddpg", DRIFTING, id="ddpg-ou", marks=SLOW),
        pytest.param("td3", {}, id="td3", marks=SLOW), pytest.param("td3", EXTRAS, id="td3+", marks=SLOW),
        pytest.param("sac", {}, id="sac"), pytest.param("sac", EXTRAS, id="sac+", marks=SLOW),
    ],
)  # fmt: skip
def test_actions_by_observation(agent, cfg):
    algorithm = learn(agent, "ContinuousTarget", 1200 if agent == "td3" else 800, **cfg)
    assert acts(algorithm, -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.35)


@pytest.mark.slow
def test_an_entropy_coefficient_that_learns_keeps_the_entropy():
    """Two choices of which one is right: without a bonus the entropy would go to 0, here it is held at 0.5."""
    algorithm = learn("sac", "Advantage", 700, entropy_coefficient="auto", target_entropy=0.5, entropy_learning_rate=0.02)
    pure, state = algorithm.pure, algorithm.state
    logits = pure._logits(state.learners["policy"].parameters, jax.numpy.zeros((1, 1)), None)
    log_probs = jax.nn.log_softmax(logits)
    assert float(-(jax.numpy.exp(log_probs) * log_probs).sum()) == pytest.approx(0.5, abs=0.1)
    assert acts(algorithm, 0.0) == [1]
