"""Teams in the fused loop: the stepped loop's bits, rows and figures; resumed; members that leave, masks, states of their own."""

import copy
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from functional_envs import make_trainer, numbers
from functional_teams import MEMBERS, Herd, Pair

from rltrain.agents.ippo.jax import IPPO
from rltrain.agents.mappo.jax import MAPPO
from rltrain.errors import NonFiniteError
from rltrain.runs import Run
from rltrain.tracking import TrackingConfig
from rltrain.trainers import ParallelTrainer

SMALL: dict[str, Any] = {"rollout_length": 8, "epochs": 2, "minibatches": 2}
NORMALISED = {"normalize_observations": True, "normalize_rewards": True, "normalize_values": True}
ONE = [(MAPPO, 3, {**SMALL, **NORMALISED})]
TWO = [(MAPPO, 2, SMALL), (IPPO, 3, {**SMALL, "rollout_length": 12, "parameter_sharing": "none"})]


def trained(agents, env, timesteps=60, **how):
    trainer = make_trainer(agents, env, timesteps=timesteps, **how)
    trainer.train()
    return trainer


@pytest.mark.parametrize(("agents", "env"), [(ONE, Herd), (TWO, Herd), (TWO, Pair)], ids=["leave", "two", "states and masks"])
def test_fused_equals_stepped(agents, env):
    """At 60 one agent's rollout of 8 is under way and the other's of 12 has just been learned from."""
    fused, stepped = (trained(agents, env(), fused=how) for how in ("true", "false"))
    np.testing.assert_equal(numbers(fused), numbers(stepped))
    assert all(agent.updates >= 5 and agent.statistics.episodes >= 8 for agent in fused.agents)
