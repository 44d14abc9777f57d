"""What the off-policy agents' settings refuse, in one sentence that names key, value and remedy, and what they are by default."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary

from rltrain import config
from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.ddqn.config import DDQNConfig
from rltrain.agents.ddqn.torch import DDQN
from rltrain.agents.dqn.config import DQNConfig
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.sac.config import SACConfig
from rltrain.agents.sac.torch import SAC
from rltrain.agents.td3.config import TD3Config
from rltrain.agents.td3.torch import TD3
from rltrain.checks import build, changed_fixed
from rltrain.errors import ConfigError

CONFIGS = {"dqn": DQNConfig, "ddqn": DDQNConfig, "ddpg": DDPGConfig, "td3": TD3Config, "sac": SACConfig}
ALGORITHMS = {"dqn": DQN, "ddqn": DDQN, "ddpg": DDPG, "td3": TD3, "sac": SAC}
CONTINUOUS = Box(-2, 2, (2,), np.float32)
OBSERVATIONS = Box(-1, 1, (3,), np.float32)


def refusal(name: str, **cfg: Any) -> str:
    """Return the sentence with which settings are refused, as a command that is wrong."""
    with pytest.raises(ConfigError) as refused:
        build(CONFIGS[name], cfg, f"agents.{name}").check_copies(4, f"agents.{name}")
    assert refused.value.exit_status == 2
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "cfg", "expected"),
    [
        ("dqn", {"gradient_steps": "all"},
         "agents.dqn.gradient_steps=all: must be a whole number >= 1 and <= 10000000 or one of auto"),
        ("sac", {"gradient_steps": 0}, "agents.sac.gradient_steps=0: must be a whole number >= 1 and <= 10000000 or one of auto"),
        ("sac", {"polyak": 0}, "agents.sac.polyak=0: must be a finite number > 0 and <= 1"),
        ("sac", {"entropy_coefficient": "aut"}, "agents.sac.entropy_coefficient=aut: must be a finite number >= 0 and"),
        ("dqn", {"batch_size": 100, "memory_size": 99},
         "agents.dqn.batch_size=100: more than agents.dqn.memory_size=99; give at most that many"),
        ("dqn", {"epsilon": 0.1, "epsilon_end": 0.2},
         "agents.dqn.epsilon_end=0.2: more than agents.dqn.epsilon=0.1, where it begins"),
        ("dqn", {"epsilon_schedule": "exponential", "epsilon_end": 0},
         "agents.dqn.epsilon_schedule=exponential: never reaches agents.dqn.epsilon_end=0; give a value above 0, such as 0.01"),
        ("td3", {"noise_scale_schedule": "exponential"},
         "agents.td3.noise_scale_schedule=exponential: never reaches agents.td3.noise_scale_end=0; give a value above 0"),
        ("dqn", {"memory_mapped": "false", "memory_directory": "there"},
         "agents.dqn.memory_directory=there: has no effect while agents.dqn.memory_mapped=false; leave it out"),
        ("dqn", {"memory_size": 11, "n_steps": 3, "batch_size": 4},
         "agents.dqn.memory_size=11: less than 3 timesteps of 4 copies; give at least 12"),
        ("dqn", {"memory_size": 7, "batch_size": 4},
         "agents.dqn.memory_size=7: less than 2 timesteps of 4 copies; give at least 8"),
        ("dqn", {"memory_size": 11, "batch_size": 10},
         "agents.dqn.memory_size=11: in whole timesteps of 4 copies less than agents.dqn.batch_size=10; give more"),
        ("td3", {"target_update_interval": 2, "policy_delay": 3},
         "agents.td3.target_update_interval=2: with agents.td3.policy_delay=3 targets move with the policy; give at most "),
        ("td3", {"noise": "gausian"}, "agents.td3.noise=gausian: unknown; did you mean 'gaussian'?"),
        ("ddpg", {"policy_delay": 2}, "agents.ddpg.policy_delay=2: no such key;"),
        ("sac", {"network": {"dueling": True}}, "agents.sac.network.dueling=true: no such key;"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(name, cfg, expected):
    assert refusal(name, **cfg).startswith(expected)


@pytest.mark.parametrize(
    ("name", "space", "sentence"),
    [
        ("dqn", CONTINUOUS, "this agent acts in Discrete spaces; use sac, td3 or ddpg for a Box of floats, ppo for any space"),
        ("ddqn", MultiBinary(3), "this agent acts in Discrete spaces"),
        ("td3", Discrete(2), "this agent acts in Box spaces of floats; use dqn, sac or ppo"),
        ("ddpg", Box(0, 5, (2,), np.int32), "this agent acts in Box spaces of floats"),
        ("ddpg", Box(-np.inf, 1, (2,), np.float32), "this agent needs bounds on all sides"),
        ("sac", Box(-np.inf, 1, (2,), np.float32), "this agent needs bounds on all sides"),
        ("ddpg", Box(-3e38, 3e38, (2,), np.float32), "this agent needs bounds on all sides"),
        ("sac", Box(-1, 1e37, (2,), np.float32), "this agent needs bounds on all sides"),
        ("sac", MultiBinary(3), "this agent acts in Discrete and Box spaces of floats; use ppo"),
        ("sac", Box(0, 5, (2,), np.int32), "this agent acts in Discrete and Box spaces of floats"),
    ],
)
def test_spaces_that_are_refused(name, space, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        ALGORITHMS[name](OBSERVATIONS, space, num_envs=2)
    assert refused.value.key == "env.action_space"


def test_a_memory_that_is_too_small_is_seen_on_the_command_line():
    sizes = ("agents.dqn.memory_size=64", "env.num_envs=40")
    with pytest.raises(ConfigError, match=r"agents.dqn.memory_size=64: less than 2 timesteps of 40 copies; give at least 80"):
        config.check(config.compose(["agents=dqn", *sizes]))
    config.check(config.compose(["agents=dqn", *sizes]), training=False)  # an evaluation needs none


def test_the_command_line_takes_numbers_and_words():
    def read(*overrides: str) -> Any:
        return config.check(config.compose(["agents=sac", *overrides])).agents["sac"].cfg

    cfg = read("agents.sac.gradient_steps=3", "agents.sac.entropy_coefficient=0.2", "agents.sac.target_entropy=-1")
    assert (cfg.gradient_steps, cfg.entropy_coefficient, cfg.target_entropy) == (3, 0.2, -1.0)
    cfg = read()
    assert (cfg.gradient_steps, cfg.entropy_coefficient, cfg.target_entropy) == ("auto", "auto", "auto")


def test_defaults_are_those_of_the_papers():
    dqn, ddqn, ddpg, td3, sac = (cls() for cls in CONFIGS.values())
    assert vars(dqn) == vars(ddqn)
    assert (dqn.loss, dqn.polyak, dqn.epsilon, dqn.epsilon_end) == ("huber", 1.0, 1.0, 0.05)
    assert (dqn.update_interval, dqn.gradient_steps, dqn.target_update_interval) == (4, "auto", 250)  # for runs of minutes
    assert (td3.policy_delay, td3.target_noise, td3.target_noise_clip, td3.noise_scale, td3.noise) == (
        2,
        0.2,
        0.5,
        0.1,
        "gaussian",
    )
    for cfg in (ddpg, td3, sac):
        assert (cfg.loss, cfg.polyak, cfg.target_update_interval, cfg.gradient_steps, cfg.batch_size) == (
            "squared",
            0.005,
            1,
            "auto",
            256,
        )
    for cfg in (dqn, ddpg, td3, sac):
        assert (cfg.n_steps, cfg.prioritized, cfg.normalize_observations, cfg.reward_scale) == (1, False, False, 1.0)
        assert (cfg.memory_size, cfg.memory_mapped, cfg.discount_factor) == (1_000_000, "auto", 0.99)
        assert cfg.importance_exponent * cfg.importance_exponent_end == 1.0  # annealed to full weights


@pytest.mark.parametrize(
    ("name", "changes", "fixed"),
    [
        ("dqn", {"memory_size": 500}, "memory_size"),
        ("dqn", {"network": {"dueling": True}}, "network.dueling"),
        ("td3", {"prioritized": True}, "prioritized"),
        ("sac", {"learning_rate": 0.1, "gradient_steps": 2, "polyak": 0.1, "n_steps": 2, "batch_size": 8}, None),
    ],
)
def test_what_a_resume_may_change(name, changes, fixed):
    found = changed_fixed(build(CONFIGS[name], {}), build(CONFIGS[name], changes))
    assert (found[0] if found else None) == fixed
