"""Teams in JAX: the same composition over the JAX twin of PPO learns what the one in PyTorch learns."""

import numpy as np
import pytest
import torch  # noqa: F401

pytest.importorskip("jax")
pytest.importorskip("pettingzoo")

from team_envs import Corners, Relay

from rltrain.agents.base import Agent
from rltrain.agents.ippo import jax as ippo_jax
from rltrain.agents.mappo import jax as mappo_jax
from rltrain.agents.mappo import torch as mappo_torch
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.structures import Progress, Transition
from rltrain.trainers import SequentialTrainer

SMALL = {"rollout_length": 16, "epochs": 3, "minibatches": 1, "learning_rate": 0.01, "normalize_values": True,
         "network": {"policy_sizes": [8], "value_sizes": [8]}}  # fmt: skip


@pytest.mark.parametrize("kind", [Corners, pytest.param(Relay, marks=pytest.mark.slow)])
def test_the_twins_learn_the_same(kind):
    """Sharing members; members that come and go, composite observations and all kinds of actions. Rows in one minibatch."""
    env = PettingZooEnv({"id": "own", "num_envs": 3}, seed=3, make=kind)
    make = {"state_space": env.state_space, "num_envs": 3, "cfg": SMALL, "seed": 1}
    ours, pure = (kind(env.observation_space, env.action_space, **make) for kind in (mappo_torch.MAPPO, mappo_jax.MAPPO))
    theirs = Agent(pure, name="team").algorithm
    theirs.restore({"policy": ours.snapshot()["policy"]})
    actor, observations = ours.init_actor(3, 0), env.reset()
    for t in range(16):
        actor, actions, outputs = ours.act(actor, observations, explore=True, progress=Progress(t, 16))
        actions, states = {name: rows.numpy() for name, rows in actions.items()}, env.state()
        outputs = {key: value.numpy() for key, value in outputs.items()}
        row = Transition(observations, states, actions, *env.step(actions)[:7], outputs)
        ours.record(row), theirs.record(row)
        observations = env.reset_done()
    metrics = [algorithm.update(Progress(15, 16)) for algorithm in (ours, theirs)]
    assert metrics[0].keys() == metrics[1].keys() and len(metrics[0]) >= 8
    for tag, value in metrics[0].items():
        assert metrics[1][tag] == pytest.approx(value, rel=1e-4, abs=1e-5), tag
    for group, policy in ours.snapshot()["policy"]["groups"].items():
        for name, array in policy["parameters"].items():
            there = theirs.snapshot()["policy"]["groups"][group]["parameters"][name]
            np.testing.assert_allclose(there, array, atol=1e-5)


@pytest.mark.slow
def test_members_learn_their_own():
    """Each is paid for naming the corner that it sees: 5 in 5 steps, 5 / 3 at random."""
    env = PettingZooEnv({"id": "own", "num_envs": 8}, seed=3, make=Corners)
    cfg = {**SMALL, "rollout_length": 20, "epochs": 5, "minibatches": 2}
    agent = Agent(ippo_jax.IPPO(env.observation_space, env.action_space, num_envs=8, cfg=cfg, seed=1), name="team")
    SequentialTrainer(env, [agent], cfg={"timesteps": 600, "disable_progressbar": True}).train()
    assert agent.statistics.summary()["episode_return_mean"] > 4.5
