"""Teams in the fused loop: the stepped loop's bits, rows and figures; resumed; members that leave, masks, states of their own."""

import copy
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from functional_envs import make_trainer, numbers
from functional_teams import Herd, Pair, Shift, Walkers

from rltrain.agents.ippo.jax import IPPO
from rltrain.agents.mappo.jax import MAPPO
from rltrain.errors import NonFiniteError
from rltrain.runs import Run
from rltrain.tracking import TrackingConfig
from rltrain.trainers import ParallelTrainer

SMALL: dict[str, Any] = {"rollout_length": 8, "epochs": 1, "minibatches": 2}
NORMALISED = {"normalize_observations": True, "normalize_rewards": True, "normalize_values": True, "epochs": 2}
TWO = [(MAPPO, 2, SMALL), (IPPO, 3, {**SMALL, "rollout_length": 12})]
MORE = [(MAPPO, 2, {**SMALL, **NORMALISED}), (IPPO, 3, {**SMALL, "rollout_length": 12, "parameter_sharing": "none"})]


def trained(agents, env, timesteps=60, **how):
    trainer = make_trainer(agents, env, timesteps=timesteps, **how)
    trainer.train()
    return trainer


def tracked(directory) -> tuple[Run, list[Any]]:
    """Return a run and the list of rows of metrics that are written to it, without times."""
    run, rows = Run(directory=directory, tracking=TrackingConfig(interval=20, tensorboard=False)), []
    run.write_metrics = lambda agent, t, steps, row: rows.append(
        (agent, t, steps, {key: row[key] for key in row if "time" not in key})
    )
    return run, rows


def resumed(first, stop):
    """Return a fused trainer that goes on to 60 from where `first` stopped."""
    assert first.timestep == stop and not all(rows.all() for rows in first.env.copies.there.values())
    rest = make_trainer(TWO, Walkers(), timesteps=60)
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    return rest


def test_what_the_stepped_loop_began_the_fused_one_ends_as_it_would_have():
    """At 20 four rows of one team's rollout of 8 are there and eight of the other's of 12; at 60 four and none."""
    stepped = trained(TWO, Walkers(), 20, fused="false", horizon=60)
    fused = resumed(stepped, 20)
    stepped.timesteps = 60
    stepped.train()
    np.testing.assert_equal(numbers(fused), numbers(stepped))
    assert all(agent.updates >= 5 and agent.statistics.episodes >= 8 for agent in fused.agents)
    summary = fused.agents[0].statistics.summary()
    assert summary["env_steps"] == 120 > summary["members"]["walker_0"]["env_steps"] > 60


@pytest.mark.slow
def test_resumed_in_mid_rollout_is_uninterrupted():
    first = trained(TWO, Walkers(), 44, horizon=60)
    np.testing.assert_equal(numbers(resumed(first, 44)), numbers(trained(TWO, Walkers())))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agents", "env"), [(TWO, Pair), (MORE, Herd), (TWO, Shift)], ids=["states and masks", "members of two kinds", "late ones"]
)
def test_two_teams_and_their_rows_are_as_in_the_stepped_loop(agents, env, tmp_path):
    trainers, rows = [], []
    for how in ("true", "false"):
        run, written = tracked(tmp_path / how)
        trainers.append(trained(agents, env(), fused=how, run=run))
        rows.append(written)
    np.testing.assert_equal(*map(numbers, trainers))
    np.testing.assert_equal(*rows)
    assert [row[1] for row in rows[0] if row[0] == "a0"] == [20, 40, 60]
    first, second, *_ = env.members
    assert {f"members/{first}/episode_return_mean", f"members/{second}/episode_length_mean", "loss/value"} <= rows[0][-1][
        3
    ].keys()
    assert all(agent.updates >= 5 and agent.statistics.episodes >= 8 for agent in trainers[0].agents)


@pytest.mark.slow
def test_a_program_per_team_equals_one_for_all():
    whole, apart = trained(TWO, Herd()), trained(TWO, Herd(), kind=ParallelTrainer)
    np.testing.assert_equal(numbers(apart), numbers(whole))


@pytest.mark.slow
def test_a_reward_that_is_not_finite_names_the_member():
    with pytest.raises(NonFiniteError, match=r"walk: timestep 4: copy 0: rewards/guide=nan is not finite"):
        trained(TWO[1:], Herd(breaks_at=5))
