"""What PPO's and A2C's settings refuse, in one sentence that names key, value and remedy, and what they are by default."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.a2c.torch import A2C
from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.ppo.torch import PPO
from rltrain.checks import build, changed_fixed
from rltrain.errors import ConfigError

OBSERVATIONS, STATES = Box(-1, 1, (3,), np.float32), Box(-1, 1, (5,), np.float32)
ALGORITHMS = {"ppo": PPO, "a2c": A2C}


def make(name: str = "ppo", action_space: Any = None, *, state_space: Any = None, **cfg: Any) -> PPO | A2C:
    return ALGORITHMS[name](OBSERVATIONS, action_space or Discrete(2), state_space=state_space, num_envs=2, cfg=cfg)


def refusal(name: str, *args: Any, **kwargs: Any) -> str:
    """Return the sentence with which settings are refused, as a command that is wrong."""
    with pytest.raises(ConfigError) as refused:
        make(name, *args, **kwargs)
    assert refused.value.exit_status == 2
    return str(refused.value)


# -- settings that contradict each other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, setting) for name in ALGORITHMS for setting in ("learning_rate", "entropy_scale")] + [("ppo", "ratio_clip")],
)
def test_an_exponential_schedule_never_reaches_zero(name, setting):
    key = f"agents.{name}.{setting}"
    expected = f"{key}_schedule=exponential: never reaches {key}_end=0; give a part above 0, such as 0.01"
    assert refusal(name, **{f"{setting}_schedule": "exponential"}) == expected
    assert refusal(name, **{f"{setting}_schedule": "exponential", f"{setting}_end": 0}) == expected
    make(name, **{f"{setting}_schedule": "exponential", f"{setting}_end": 0.01})
    make(name, **{f"{setting}_schedule": "cosine"})  # the others do


@pytest.mark.parametrize("per", ["epoch", "minibatch"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_learning_rate_follows_the_kl_or_a_schedule(per, kind):
    expected = (
        f"agents.ppo.adapt_learning_rate={per}: the learning rate can't also follow agents.ppo.learning_rate_schedule={kind}; "
        "choose one"
    )
    assert refusal("ppo", adapt_learning_rate=per, learning_rate_schedule=kind) == expected
    make("ppo", adapt_learning_rate=per, ratio_clip_schedule=kind, entropy_scale_schedule=kind)


def test_a_kl_target_needs_something_that_aims_at_it():
    expected = (
        "agents.ppo.kl_target=0.02: has no effect while agents.ppo.adapt_learning_rate=never; choose epoch or minibatch, or set "
        "kl_stop"
    )
    assert refusal("ppo", kl_target=0.02) == expected
    make("ppo", kl_target=0.02, adapt_learning_rate="epoch")
    make("ppo", kl_stop=0.02)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_shared_network_can_not_read_states(name):
    shared = {"shared": True}
    expected = (
        f"agents.{name}.network.shared=true: the environment has states, which only a critic's own network may read; set shared "
        "or use_states to false"
    )
    assert refusal(name, state_space=STATES, network=shared) == expected
    assert make(name, state_space=STATES, use_states=False, network=shared).critic_inputs is None
    assert make(name, network=shared).critic_inputs is None
    # without sharing the value network reads the 5 numbers, the policy the 3 that it acts on
    weights = make(name, state_space=STATES).snapshot()["policy"]["parameters"]
    assert (weights["policy.weights.0"].shape[1], weights["value.weights.0"].shape[1]) == (3, 5)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_shared_network_has_no_sizes_for_values(name):
    expected = f"agents.{name}.network.value_sizes=[8]: shared=true has one network, of policy_sizes; leave value_sizes out"
    assert refusal(name, network={"shared": True, "value_sizes": [8]}) == expected
    learned = make(name, network={"shared": True, "policy_sizes": [8]}).snapshot()["policy"]["parameters"]
    shapes = {key: array.shape for key, array in learned.items()}
    assert shapes == {"shared.weights.0": (8, 3), "shared.weights.1": (3, 8), "shared.biases.0": (8,), "shared.biases.1": (3,)}


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize(("low", "high"), [([-np.inf, -1], [np.inf, 1]), ([0, 0], [np.inf, 1])], ids=["open", "half open"])
def test_squashed_actions_need_bounds(name, low, high):
    space = Box(np.array(low, np.float32), np.array(high, np.float32))
    found = refusal(name, space, network={"squashed": True})
    assert found == (f"agents.{name}.network.squashed=true: the actions {space} are not bounded on all sides; use squashed=false")
    make(name, space)


# -- single settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cfg", "expected"),
    [
        ("ppo", {"reward_clip": 0}, "agents.ppo.reward_clip=0: must be a finite number > 0 or null"),
        ("a2c", {"reward_scale": 0}, "agents.a2c.reward_scale=0: must be a finite number > 0"),
        ("ppo", {"kl_stop": 0}, "agents.ppo.kl_stop=0: must be a finite number > 0 or null"),
        ("ppo", {"ratio_clip_end": -0.1}, "agents.ppo.ratio_clip_end=-0.1: must be a finite number >= 0 and <= 100"),
        (
            "a2c", {"learning_rate_schedule": "linaer"},
            "agents.a2c.learning_rate_schedule=linaer: unknown; did you mean 'linear'? options: linear, constant, cosine, "
            "exponential",
        ),
        (
            "ppo", {"adapt_learning_rate": "epochs"},
            "agents.ppo.adapt_learning_rate=epochs: unknown; did you mean 'epoch'? options: epoch, minibatch, never",
        ),
        ("a2c", {"optimizer": "sgd"}, "agents.a2c.optimizer=sgd: unknown; options: adam, rmsprop"),
        (
            "ppo", {"network": {"initialization": "normal"}},
            "agents.ppo.network.initialization=normal: unknown; did you mean 'orthogonal'? options: orthogonal, default",
        ),
        (
            "ppo", {"network": {"policy_sizes": [8, 0]}},
            "agents.ppo.network.policy_sizes[1]=0: must be a whole number >= 1 and <= 65536",
        ),
    ],
)  # fmt: skip
def test_values_out_of_bounds(name, cfg, expected):
    assert refusal(name, **cfg) == expected


def test_a2c_has_none_of_ppos_own_settings():
    for setting in ("epochs", "minibatches", "ratio_clip", "value_clip", "kl_stop", "adapt_learning_rate"):
        assert refusal("a2c", **{setting: 1}).startswith(f"agents.a2c.{setting}=1: no such key;")


# -- defaults ------------------------------------------------------------------------------------------------------------------


def test_a2c_by_default_makes_one_rmsprop_step_on_n_step_returns():
    cfg = A2CConfig()
    assert (cfg.rollout_length, cfg.gae_lambda, cfg.discount_factor) == (8, 1.0, 0.99)
    assert (cfg.learning_rate, cfg.optimizer, cfg.standardize_advantages) == (7e-4, "rmsprop", False)
    assert (cfg.entropy_scale, cfg.value_scale, cfg.grad_norm_clip) == (0.01, 0.5, 0.5)


def test_what_changes_rewards_rates_and_steps_is_off_by_default():
    for cfg in (PPOConfig(), A2CConfig()):
        assert (cfg.reward_scale, cfg.reward_clip, cfg.normalize_rewards) == (1.0, None, False)
        assert (cfg.learning_rate_schedule, cfg.entropy_scale_schedule) == ("constant", "constant")
        assert not (cfg.normalize_observations or cfg.normalize_values)
        network = cfg.network
        assert not (network.shared or network.layer_norm or network.state_dependent_std or network.squashed)
    ppo = PPOConfig()
    assert (ppo.ratio_clip_schedule, ppo.adapt_learning_rate) == ("constant", "never")
    assert (ppo.kl_stop, ppo.kl_target, ppo.value_clip) == (None, None, None)


# -- a resume ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "changes", "fixed"),
    [
        (PPOConfig, {"rollout_length": 64}, "rollout_length"),
        (PPOConfig, {"network": {"layer_norm": True}}, "network.layer_norm"),
        (A2CConfig, {"optimizer": "adam"}, "optimizer"),
        (A2CConfig, {"use_states": False}, "use_states"),
        (PPOConfig, {"learning_rate": 0.1, "kl_stop": 0.1, "reward_scale": 0.5, "ratio_clip_schedule": "linear"}, None),
    ],
)
def test_what_a_resume_may_change(cls, changes, fixed):
    found = changed_fixed(build(cls, {}), build(cls, changes))
    assert (found[0] if found else None) == fixed
