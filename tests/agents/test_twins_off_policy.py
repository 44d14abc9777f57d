"""The off-policy twins against each other: the same parameters, transitions, draws and noise give the same learning.

Tolerances are those of `test_twins`: after one and two updates 1e-6 (float32 sums are taken in another order), after ten 1e-4 of
the farthest that a parameter has moved.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

jax = pytest.importorskip("jax")

from rltrain.agents.base import Agent
from rltrain.agents.ddpg import jax as ddpg_jax
from rltrain.agents.ddpg import torch as ddpg_torch
from rltrain.agents.ddqn import jax as ddqn_jax
from rltrain.agents.ddqn import torch as ddqn_torch
from rltrain.agents.dqn import jax as dqn_jax
from rltrain.agents.dqn import torch as dqn_torch
from rltrain.agents.off_policy import jax as off_policy
from rltrain.agents.sac import jax as sac_jax
from rltrain.agents.sac import torch as sac_torch
from rltrain.agents.td3 import jax as td3_jax
from rltrain.agents.td3 import torch as td3_torch
from rltrain.structures import Progress, Transition

TWINS = {
    "dqn": (dqn_torch.DQN, dqn_jax.DQN), "ddqn": (ddqn_torch.DDQN, ddqn_jax.DDQN), "ddpg": (ddpg_torch.DDPG, ddpg_jax.DDPG),
    "td3": (td3_torch.TD3, td3_jax.TD3), "sac": (sac_torch.SAC, sac_jax.SAC),
}  # fmt: skip
COPIES, EVERY, BATCH, UPDATES = 3, 4, 24, 10
OBSERVATIONS = spaces.Box(-1, 1, (3,), np.float32)
CONTINUOUS, DISCRETE = spaces.Box(-2, 2, (2,), np.float32), spaces.Discrete(3, start=1)
SMALL: dict[str, Any] = {
    "learning_starts": 11, "update_interval": EVERY, "gradient_steps": 1, "batch_size": BATCH, "memory_size": 120,
    "learning_rate": 1e-3, "polyak": 0.05, "target_update_interval": 1, "discount_factor": 0.9,
}  # fmt: skip
PRIORITIES = {"prioritized": True, "importance_exponent": 0.5}
HARD = {"polyak": 1.0, "target_update_interval": 8}
SEQUENCES = {"sequences": 4, "sequence_length": 5, "burn_in": 3}


def remembering(cell: str, **network: Any) -> dict[str, Any]:
    sizes = {"policy_sizes": [16], "critic_sizes": [16]} if "sizes" not in network else {}
    return {**SEQUENCES, "network": {"cell": cell, "cell_size": 8, **sizes, **network}}


FAST = [
    ("dqn", DISCRETE, {**HARD, "gradient_steps": "auto", "loss": "squared", "grad_norm_clip": 0.0}),
    ("ddqn", DISCRETE, {**PRIORITIES, "network": {"sizes": [16], "dueling": True}, "n_steps": 3, "grad_norm_clip": 0.1}),
    ("td3", CONTINUOUS, {"gradient_steps": 3, "normalize_observations": True, "loss": "huber"}),
    ("sac", CONTINUOUS, {**PRIORITIES, "learning_rate_schedule": "linear", "policy_learning_rate": 2e-3}),
    ("sac", CONTINUOUS, {**remembering("lstm"), "normalize_observations": True, "n_steps": 2}),
]
SLOW = [
    ("dqn", DISCRETE, {"loss": "huber", "normalize_observations": True, "gradient_steps": 2}),
    ("dqn", DISCRETE, {"reward_scale": 2.0, "reward_clip": 1.0, "network": {"sizes": [16], "layer_norm": True}}),
    ("ddqn", DISCRETE, {"n_steps": 2, "learning_rate_schedule": "cosine", "network": {"sizes": [16], "activation": "gelu"}}),
    ("ddpg", CONTINUOUS, {**HARD, "gradient_steps": 2}),
    ("ddpg", CONTINUOUS, {**PRIORITIES, "grad_norm_clip": 0.05, "policy_learning_rate": 5e-4, "n_steps": 2}),
    ("td3", CONTINUOUS, {"policy_delay": 1, "target_noise": 0.5, "target_noise_clip": 0.2}),
    ("td3", CONTINUOUS, {**PRIORITIES, **HARD, "policy_delay": 3, "gradient_steps": 4}),
    ("sac", CONTINUOUS, {"entropy_coefficient": 0.3, "gradient_steps": "auto", "loss": "huber"}),
    ("sac", CONTINUOUS, {"target_entropy": -1.0, "entropy_learning_rate": 1e-2, "grad_norm_clip": 0.5, "n_steps": 3,
                         "initial_entropy_coefficient": 0.5, "normalize_observations": True}),
    ("sac", DISCRETE, {"entropy_coefficient": 0.1}),
    ("sac", DISCRETE, {**HARD, "gradient_steps": 3}),
    ("dqn", DISCRETE, {**HARD, **remembering("gru", sizes=[16], dueling=True), "burn_in": 0, "n_steps": 3}),
    ("td3", CONTINUOUS, {**remembering("rnn", cell_layers=2), **PRIORITIES, "stored_state": False, "gradient_steps": 2}),
    ("ddpg", CONTINUOUS, {**remembering("gru", remembers_actions=False), "noise": "ornstein_uhlenbeck"}),
]  # fmt: skip


def play(ours: Any, theirs: Any, generator: np.random.Generator, timesteps: int, *, masks: bool, gaps: bool) -> None:
    """Record the same transitions in both."""
    space = ours.distribution
    for _ in range(timesteps):
        observations, following = generator.normal(size=(2, COPIES, 3)).astype(np.float32)
        terminated, truncated = generator.random((2, COPIES)) < 0.1
        if space.action_shape:
            actions = generator.uniform(-1, 1, (COPIES, *space.action_shape)).astype(np.float32)
        else:
            actions = generator.integers(0, space.size, COPIES)
        outputs = {"actions": actions}
        if masks:
            outputs["action_masks"] = generator.random((COPIES, space.size)) < 0.7
            outputs["action_masks"][np.arange(COPIES), actions] = True
        if ours.remembers:  # any numbers will do for what acting carried
            _, remembered, before, _ = ours.init_carry(COPIES)
            outputs["starts"] = generator.random(COPIES) < 0.2
            stored = dict(zip(("carry.0", "carry.1"), remembered, strict=False)) if ours.cfg.stored_state else {}
            stored |= {} if before is None else {"actions_before": before}
            outputs |= {name: generator.normal(size=array.shape).astype(np.float32) for name, array in stored.items()}
        rewards = generator.normal(size=COPIES).astype(np.float32)
        valid = generator.random(COPIES) < 0.8 if gaps else None
        row = Transition(observations, None, actions, following, None, rewards, terminated, truncated, valid, {}, outputs)
        ours.record(row)
        theirs.record(row)


def share_noise(algorithm: str, ours: Any, state: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch take the normal numbers that jax is going to draw."""
    if ours.distribution.action_shape == () or algorithm == "ddpg":
        return
    rows = ours.cfg.sequences * ours.cfg.sequence_length if ours.remembers else BATCH
    shape, key, draws = (rows, ours.distribution.actions), state.key, []
    for _ in range(steps):
        key, own = jax.random.split(key)
        draws += list(np.array(jax.random.normal(own, (2, *shape) if algorithm == "sac" else (1, *shape))))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, generator=None: self.copy_(torch.from_numpy(draws.pop(0))))


def agree(ours: Any, theirs: Any, tolerance: float) -> None:
    one, other = ours.snapshot(), theirs.snapshot()
    for name, array in one["policy"]["parameters"].items():
        np.testing.assert_allclose(other["policy"]["parameters"][name], array, rtol=0, atol=tolerance, err_msg=name)
    assert one["training"]["targets"].keys() == other["training"]["targets"].keys()
    for learner, arrays in one["training"]["targets"].items():
        for name, array in arrays.items():
            found = other["training"]["targets"][learner][name]
            np.testing.assert_allclose(found, array, rtol=0, atol=tolerance, err_msg=f"target's {name}")
    for name, array in one["policy"]["observation_moments"].items():
        np.testing.assert_allclose(other["policy"]["observation_moments"][name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    if ours.cfg.prioritized:
        found, wanted = (snapshot["training"]["memory"] for snapshot in (other, one))
        np.testing.assert_allclose(found["host"]["priorities"], wanted["priorities"], rtol=1e-3)


def compare(
    algorithm: str, action_space: Any, cfg: dict, monkeypatch: pytest.MonkeyPatch, *, masks: bool = False, gaps: bool = False
) -> None:
    q = algorithm in ("dqn", "ddqn")
    network = {"sizes": [16]} if q else {"policy_sizes": [16], "critic_sizes": [16]}
    arguments = {"num_envs": COPIES, "cfg": {**SMALL, "network": network, **cfg}, "seed": 4}
    if "sequences" in cfg:
        del arguments["cfg"]["batch_size"]
    ours, pure = (cls(OBSERVATIONS, action_space, **arguments) for cls in TWINS[algorithm])
    theirs = Agent(pure).algorithm
    theirs.restore({"policy": ours.snapshot()["policy"]})
    generator = np.random.default_rng(0)
    first = copy.deepcopy(ours.snapshot()["policy"]["parameters"])
    play(ours, theirs, generator, 12 - EVERY, masks=masks, gaps=gaps)
    for update in range(UPDATES):
        play(ours, theirs, generator, EVERY, masks=masks, gaps=gaps)
        progress = Progress(12 + EVERY * update - 1, 2 * EVERY * UPDATES)
        share_noise(algorithm, ours, theirs.state, pure.gradient_steps, monkeypatch)
        expected, metrics = ours.update(progress), theirs.update(progress)
        assert metrics.keys() == expected.keys() and metrics
        for tag, value in expected.items():
            assert metrics[tag] == pytest.approx(value, rel=1e-3, abs=1e-5), (update, tag)
        if update in (0, 1, UPDATES - 1):
            after = ours.snapshot()["policy"]["parameters"]
            distance = max(float(np.abs(after[name] - array).max()) for name, array in first.items())
            agree(ours, theirs, 1e-6 * min(pure.gradient_steps, 4) if update < 2 else 1e-4 * distance)
    assert distance > 5e-3 and int(theirs.state.gradient_steps) == ours.gradient_steps >= UPDATES


@pytest.mark.parametrize(("algorithm", "action_space", "cfg"), FAST)
def test_updates_agree(algorithm, action_space, cfg, monkeypatch):
    compare(algorithm, action_space, cfg, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "action_space", "cfg"), SLOW)
def test_updates_agree_in_every_option(algorithm, action_space, cfg, monkeypatch):
    compare(algorithm, action_space, cfg, monkeypatch)


def test_updates_agree_with_masks_and_rows_that_did_not_happen(monkeypatch):
    cfg = {**PRIORITIES, "gradient_steps": "auto", "n_steps": 2, "normalize_observations": True}
    compare("sac", DISCRETE, cfg, monkeypatch, masks=True, gaps=True)


@pytest.mark.parametrize(
    ("algorithm", "network"),
    [("ddqn", {"sizes": [16], "remembers_actions": True}), pytest.param("sac", {}, marks=pytest.mark.slow)],
)
def test_updates_of_sequences_agree_with_masks_and_rows_that_did_not_happen(algorithm, network, monkeypatch):
    cfg = {**PRIORITIES, **remembering("gru", **network), "n_steps": 2, "gradient_steps": 2}
    compare(algorithm, DISCRETE, cfg, monkeypatch, masks=True, gaps=True)


@pytest.mark.slow
def test_updates_agree_in_several_calls(monkeypatch):
    monkeypatch.setattr(off_policy, "STEPS_AT_ONCE", 2)
    compare("td3", CONTINUOUS, {"gradient_steps": 5}, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dqn", "ddqn"])
def test_values_agree_with_masks(algorithm, monkeypatch):
    compare(algorithm, DISCRETE, PRIORITIES, monkeypatch, masks=True, gaps=True)


@pytest.mark.parametrize(
    ("algorithm", "action_space"),
    [("dqn", DISCRETE), pytest.param("sac", DISCRETE, marks=pytest.mark.slow), ("sac", CONTINUOUS), ("ddpg", CONTINUOUS)],
)
def test_policies_convert_both_ways(algorithm, action_space):
    """The same deterministic actions on 1000 observations, in torch, in NumPy and compiled."""
    cfg = {"normalize_observations": True}
    ours, pure = (cls(OBSERVATIONS, action_space, num_envs=1000, cfg=cfg, seed=seed) for seed, cls in enumerate(TWINS[algorithm]))
    theirs = Agent(pure).algorithm
    observations = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)

    def act(algorithm: Any, observations: Any) -> np.ndarray:
        how = {"explore": False, "progress": Progress(0, 1)}
        return np.asarray(algorithm.act(algorithm.init_actor(1000, 0), observations, **how)[1])

    before = act(ours, torch.from_numpy(observations))
    for learner in ours.learners.values():
        learner.parameters.values.mul_(3)
    theirs.restore({"policy": ours.snapshot()["policy"]})
    fresh = type(ours)(OBSERVATIONS, action_space, num_envs=1000, cfg=cfg, seed=9)
    fresh.restore({"policy": theirs.snapshot()["policy"]})
    wanted = act(fresh, torch.from_numpy(observations))
    np.testing.assert_array_equal(act(ours, torch.from_numpy(observations)), wanted)
    close = {"rtol": 0, "atol": 1e-5 if wanted.dtype.kind == "f" else 0}
    for found in (act(theirs, observations), act(theirs, jax.numpy.asarray(observations))):
        np.testing.assert_allclose(found, wanted, **close)
    assert not np.array_equal(before, wanted) and len(np.unique(wanted)) > 1
