"""The twins against each other: the same parameters, rollouts and orders of minibatches give the same learning.

After one and two updates parameters, of size 1, agree to 1e-6: float32 sums are taken in another order. Each of the 90 steps
of ten updates rounds anew and passes on what the ones before it rounded, in proportion to the steps' size: there they agree to
1e-4 of the farthest that a parameter has moved.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import pytest
import torch
from gymnasium import spaces

jax = pytest.importorskip("jax")

from rltrain.agents.a2c import jax as a2c_jax
from rltrain.agents.a2c import torch as a2c_torch
from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.base import Agent
from rltrain.agents.learners.jax import Learner as JaxLearner
from rltrain.agents.learners.torch import Learner as TorchLearner
from rltrain.agents.ppo import jax as ppo_jax
from rltrain.agents.ppo import torch as ppo_torch
from rltrain.checks import option
from rltrain.ops.orders.jax import random_order
from rltrain.optimizers.torch import RMSProp
from rltrain.structures import Progress, Transition


@dataclass
class TwoOptimizersConfig(A2CConfig):
    """A2C whose policy and value network take their steps apart."""

    value_learning_rate: float = option(0.05, "the step size of the value network's optimiser", above=0)


class TwoOptimizersTorch(a2c_torch.A2C):
    """In PyTorch: an Adam for the policy, RMSProp for the value network."""

    config = TwoOptimizersConfig

    def make_learners(self, own: dict[str, Any]) -> dict[str, TorchLearner]:
        rate, device, networks = self.cfg.learning_rate, self.backend.device, self.networks
        return {
            "policy": TorchLearner(networks.policy, rate, device, prefix="policy.", more=own),
            "value": TorchLearner(networks.value, rate, device, prefix="value.", optimizer=RMSProp),
        }


class TwoOptimizersJax(a2c_jax.A2C):
    """In JAX."""

    config = TwoOptimizersConfig
    acts_with = "policy"

    def make_learners(self, own: dict[str, Any]) -> dict[str, JaxLearner]:
        rms = optax.scale_by_rms(decay=0.99, eps=1e-8, initial_scale=1.0, eps_in_sqrt=False)
        policy, value = self.networks.parts
        return {"policy": JaxLearner(policy, more=own), "value": JaxLearner(value, optimizer=rms)}


TWINS = {
    "ppo": (ppo_torch.PPO, ppo_jax.PPO),
    "a2c": (a2c_torch.A2C, a2c_jax.A2C),
    "two_optimizers": (TwoOptimizersTorch, TwoOptimizersJax),
}
COPIES, LENGTH, UPDATES = 4, 16, 10
OBSERVATIONS, STATES = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (5,), np.float32)
CONTINUOUS, DISCRETE = spaces.Box(-2, 2, (2,), np.float32), spaces.Discrete(3)
PPO_SMALL = {"minibatches": 3, "epochs": 3, "learning_rate": 1e-3}

FAST = [
    ("ppo", DISCRETE, {}),
    ("ppo", CONTINUOUS, {"normalize_observations": True, "normalize_values": True, "value_clip": 0.1, "normalize_rewards": True}),
    ("ppo", CONTINUOUS, {"kl_stop": 1e-3, "adapt_learning_rate": "epoch"}),
    ("ppo", CONTINUOUS, {"network": {"state_dependent_std": True, "squashed": True, "layer_norm": True, "activation": "gelu"}}),
    ("a2c", DISCRETE, {"learning_rate": 0.1}),
    ("two_optimizers", CONTINUOUS, {"learning_rate": 0.01}),
    ("ppo", DISCRETE, {"network": {"cell": "gru", "cell_size": 8}, "sequence_length": 8, "normalize_values": True}),
]
SLOW = [
    ("ppo", CONTINUOUS, {"network": {"cell": "lstm", "cell_size": 8, "cell_layers": 2}, "normalize_observations": True}),
    ("ppo", DISCRETE, {"network": {"cell": "lstm", "cell_size": 8, "shared": True}}),
    ("ppo", spaces.MultiDiscrete([3, 2]), {"network": {"cell": "gru", "cell_size": 8, "remembers_actions": True}}),
    ("a2c", CONTINUOUS, {"network": {"cell": "gru", "cell_size": 8, "remembers_actions": True}, "learning_rate": 0.1}),
    ("ppo", DISCRETE, {"network": {"cell": "rnn", "cell_size": 8}, "sequence_length": 4, "kl_stop": 1e-3}),
    ("a2c", CONTINUOUS, {"network": {"cell": "gru", "cell_size": 8}, "learning_rate": 0.1}),
    ("ppo", CONTINUOUS, {}),
    ("ppo", CONTINUOUS, {"reward_clip": 1.0, "reward_scale": 2.0, "standardize_advantages": False}),
    ("ppo", CONTINUOUS, {"adapt_learning_rate": "minibatch", "kl_target": 1e-3}),
    ("ppo", DISCRETE, {"adapt_learning_rate": "minibatch"}),
    ("ppo", DISCRETE, {"learning_rate_schedule": "cosine", "ratio_clip_schedule": "linear",
                       "entropy_scale_schedule": "exponential", "entropy_scale_end": 0.1}),
    ("ppo", CONTINUOUS, {"network": {"shared": True, "activation": "relu"}}),
    ("ppo", CONTINUOUS, {"network": {"squashed": True, "activation": "silu"}}),
    ("ppo", CONTINUOUS, {"network": {"initialization": "default", "activation": "elu"}}),
    ("ppo", spaces.MultiDiscrete([3, 2, 4]), {}),
    ("ppo", spaces.MultiBinary(3), {"adapt_learning_rate": "minibatch"}),
    ("a2c", CONTINUOUS, {"optimizer": "adam", "standardize_advantages": True, "learning_rate": 1e-2}),
]  # fmt: skip


def draw(space: Any, generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=(COPIES, *space.shape)).astype(np.float32)


def play(ours: Any, theirs: Any, actor: Any, generator: np.random.Generator, *, states: bool, masks: bool) -> Any:
    """Record the same rollout in both; the torch twin acts. Return its actor."""
    observations, seen = draw(OBSERVATIONS, generator), draw(STATES, generator) if states else None
    for _ in range(LENGTH):
        allowed = None
        if masks:
            allowed = generator.random((COPIES, ours.distribution.size)) < 0.7
            allowed[:, [0, 3, 5]] = True
        actor, actions, outputs = ours.act(
            actor, torch.from_numpy(observations), None, None if allowed is None else torch.from_numpy(allowed),
            explore=True, progress=Progress(0, 1),
        )  # fmt: skip
        following, next_seen = draw(OBSERVATIONS, generator), draw(STATES, generator) if states else None
        terminated, truncated = generator.random((2, COPIES)) < 0.1
        rewards = generator.normal(size=COPIES).astype(np.float32)
        row = Transition(
            observations, seen, actions.numpy(), following, next_seen, rewards, terminated, truncated, None, {},
            {key: value.numpy() for key, value in outputs.items()},
        )  # fmt: skip
        ours.record(row)
        theirs.record(row)
        actor = ours.reset_actor(actor, terminated | truncated)
        observations, seen = following.copy(), next_seen
        fresh = draw(OBSERVATIONS, generator)
        observations[terminated | truncated] = fresh[terminated | truncated]
    return actor


def compare(
    algorithm: str, action_space: Any, cfg: dict, monkeypatch: pytest.MonkeyPatch, *, states: bool = False, masks: bool = False
) -> None:
    cfg = {"rollout_length": LENGTH, **(PPO_SMALL if algorithm == "ppo" else {}), **cfg}
    arguments: dict[str, Any] = {"num_envs": COPIES, "cfg": cfg, "state_space": STATES if states else None}
    ours, pure = (cls(OBSERVATIONS, action_space, **arguments) for cls in TWINS[algorithm])
    theirs = Agent(pure).algorithm
    theirs.restore({"policy": ours.snapshot()["policy"]})
    actor, generator = ours.init_actor(COPIES, 3), np.random.default_rng(0)
    start = ours.snapshot()["policy"]["parameters"]
    for update in range(UPDATES):
        actor = play(ours, theirs, actor, generator, states=states, masks=masks)
        if algorithm == "ppo":  # torch takes the orders that jax draws
            keys = jax.random.split(theirs.state.key, 1 + cfg["epochs"])[1:]
            orders = [np.array(random_order(key, LENGTH * COPIES // ours.sequence_length)) for key in keys]
            monkeypatch.setattr(torch, "randperm", lambda rows, generator=None, orders=orders: torch.from_numpy(orders.pop(0)))
        progress = Progress((update + 1) * LENGTH - 1, 2 * UPDATES * LENGTH)
        metrics, expected = theirs.update(progress), ours.update(progress)
        assert metrics.keys() == expected.keys()
        for tag, value in expected.items():
            assert metrics[tag] == pytest.approx(value, rel=1e-3, abs=1e-5), (update, tag)
        if update in (0, 1, UPDATES - 1):
            after = theirs.snapshot()["policy"]["parameters"]
            learned = ours.snapshot()["policy"]["parameters"]
            distance = max(float(abs(array - start[name]).max()) for name, array in learned.items())
            for name, array in learned.items():
                np.testing.assert_allclose(after[name], array, rtol=0, atol=1e-6 if update < 2 else 1e-4 * distance, err_msg=name)
    assert distance > 1e-2


@pytest.mark.parametrize(("algorithm", "action_space", "cfg"), FAST)
def test_updates_agree(algorithm, action_space, cfg, monkeypatch):
    compare(algorithm, action_space, cfg, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "action_space", "cfg"), SLOW)
def test_updates_agree_in_every_option(algorithm, action_space, cfg, monkeypatch):
    compare(algorithm, action_space, cfg, monkeypatch)


def test_updates_agree_with_masks_and_states(monkeypatch):
    cfg = {"normalize_observations": True}
    compare("ppo", spaces.MultiDiscrete([3, 2, 4]), cfg, monkeypatch, states=True, masks=True)


IMAGE = spaces.Box(0, 255, (96, 96, 3), np.uint8)
CAR = spaces.Dict({"image": IMAGE, "speed": spaces.Box(-1, 1, (2,), np.float64), "gear": spaces.Discrete(5)})


@pytest.mark.parametrize("algorithm", TWINS)
@pytest.mark.parametrize(
    ("space", "action_space", "state_space", "row"),
    [
        # rewards 4, terminated, truncated and valid 3, per number of an action 8
        (IMAGE, CONTINUOUS, None, 96 * 96 * 3 + 2 * 8 + 7),
        (CAR, DISCRETE, STATES, 96 * 96 * 3 + 2 * 8 + 8 + 8 + 7 + 5 * 4),
    ],
    ids=["uint8", "dict and states"],
)
def test_a_rollout_s_bytes_are_those_of_its_rows(algorithm, space, action_space, state_space, row):
    for kind in TWINS[algorithm]:
        cfg = {"rollout_length": LENGTH, "network": {"policy_sizes": [4], "value_sizes": [4]}}
        agent = Agent(kind(space, action_space, num_envs=COPIES, cfg=cfg, state_space=state_space))
        assert agent.algorithm.describe()["memory_bytes"] == row * LENGTH * COPIES


@pytest.mark.parametrize("action_space", [DISCRETE, CONTINUOUS, spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(4)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_policies_convert_both_ways(action_space, activation):
    """The same deterministic actions on 1000 observations."""
    cfg = {"network": {"activation": activation}, "normalize_observations": True}
    ours, pure = (cls(OBSERVATIONS, action_space, num_envs=1000, cfg=cfg, seed=seed) for seed, cls in enumerate(TWINS["ppo"]))
    theirs = Agent(pure).algorithm
    observations = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)

    def act() -> tuple[np.ndarray, ...]:
        how = {"explore": False, "progress": Progress(0, 1)}
        in_torch = ours.act(ours.init_actor(1000, 0), torch.from_numpy(observations), **how)[1].numpy()
        actor = theirs.init_actor(1000, 0)
        return in_torch, theirs.act(actor, observations, **how)[1], theirs.act(actor, jax.numpy.asarray(observations), **how)[1]

    before = act()[0]
    for parameter in ours.learners["actor_critic"].parameters.named.values():
        parameter.data.mul_(3)
    theirs.restore({"policy": ours.snapshot()["policy"]})
    results = [act()]
    fresh = type(ours)(OBSERVATIONS, action_space, num_envs=1000, cfg=cfg, seed=9)
    fresh.restore({"policy": theirs.snapshot()["policy"]})
    ours.restore({"policy": fresh.snapshot()["policy"]})
    results.append(act())
    for in_torch, in_numpy, compiled in results:
        close = {"rtol": 0, "atol": 1e-6} if in_torch.dtype.kind == "f" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(in_numpy, in_torch, **close)
        np.testing.assert_allclose(compiled, in_torch, **close)
        assert not np.array_equal(in_torch, before)
