"""What wrappers inside an environment gather goes to whoever plays by it: evaluations, checkpoints, new runs."""

import json

import numpy as np
import pytest
from command_line import call, rows, summary, train
from run_folders import checkpoints_of

from rltrain import checkpoints
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.wrapper_states import pool_statistics
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import SequentialTrainer, StepTrainer

ID = "wrapped_envs:Normalized-v0"
RUN = (f"env={ID}", "agents.ppo.rollout_length=16", "trainer.timesteps=40")
OFTEN = ("evaluation.interval=20", "evaluation.episodes=5", "checkpoints.interval=20", "checkpoints.keep=9")
TWO = ("agents=[ppo,fast:ppo]", "agents.fast.rollout_length=20", "agents.fast.network.policy_sizes=[8]", "agents_scope=[2,2]")
EXPECTED = {"mean", "var", "count"}


def make(env_id=ID, kind=StepTrainer, *, own=True, copies=2, **more):
    env = GymnasiumEnv({"id": env_id, "num_envs": copies, **more}, seed=3)
    other = GymnasiumEnv({"id": env_id, "num_envs": copies, **more}, seed=3, role=EVALUATION_ENVIRONMENTS) if own else None
    network = {"policy_sizes": [8], "value_sizes": [8]}
    cfg = {"rollout_length": 8, "minibatches": 1, "network": network}
    algorithm = PPO(env.observation_space, env.action_space, num_envs=copies, cfg=cfg, seed=1)
    return kind(env, Agent(algorithm, name="ppo"), cfg={"timesteps": 100}, evaluation_env=other)


def statistics(env):
    return [(rms.mean.copy(), rms.var.copy(), rms.count) for rms in env.get_attr("obs_rms")]


def test_the_pool_of_two_by_hand():
    """n = 2 + 4, mean = (2 * 1 + 4 * 4) / 6 = 3, n var = 2 (4 + 2^2) + 4 (1 + 1^2) = 24."""
    one = {"mean": np.array([1.0], np.float32), "var": np.array([4.0], np.float32), "count": 2.0}
    two = {"mean": np.array([4.0], np.float32), "var": np.array([1.0], np.float32), "count": 4.0}
    pooled = pool_statistics([one, two])
    assert (pooled["mean"].tolist(), pooled["var"].tolist(), pooled["count"]) == ([3.0], [4.0], 6.0)
    assert pooled["mean"].dtype == pooled["var"].dtype == np.float32


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_evaluation_sees_by_the_training_statistics_and_leaves_them(vectorization):
    trainer = make(vectorization=vectorization)
    try:
        for _ in range(30):
            trainer.train()
        (m, v, n), (m2, v2, n2) = before = statistics(trainer.env)
        mean = (n * m + n2 * m2) / (n + n2)
        variance = (n * (v + (m - mean) ** 2) + n2 * (v2 + (m2 - mean) ** 2)) / (n + n2)
        for _ in range(20):
            trainer.eval()
            raw = np.array(trainer.evaluation_env.get_attr("raw"))
            np.testing.assert_allclose(
                trainer.evaluation_observations, (raw - mean) / np.sqrt(variance + 1e-8), rtol=1e-4, atol=1e-5
            )
        np.testing.assert_equal(statistics(trainer.env), before)
        frozen = statistics(trainer.evaluation_env)
        assert frozen[0][2] == pytest.approx(n + n2)
        trainer.eval(episodes=4)
        np.testing.assert_equal(statistics(trainer.evaluation_env), frozen)
        trainer.train()
        assert statistics(trainer.env)[0][2] > n
    finally:
        trainer.close()


@pytest.mark.parametrize("env_id", [ID, "wrapped_envs:Levelled-v0"])
def test_a_borrowed_training_environment_gets_its_own_back(env_id):
    """Also where a snapshot is taken in the middle of an evaluation by steps, which goes on frozen."""
    trainer = make(env_id, own=False)
    for _ in range(25):
        trainer.train()
    own = trainer.env.keep_policy_states()
    assert all(name["flag"] for copy in own for name in copy.values())
    trainer.eval()
    frozen = trainer.env.keep_policy_states()
    assert not any(name["flag"] for copy in frozen for name in copy.values())
    policy = trainer.snapshot()[0]["agents/ppo/policy"]["environment"]
    np.testing.assert_equal(trainer.env.keep_policy_states(), frozen)
    assert policy == trainer.agents[0].environment
    for _ in range(9):
        trainer.eval()
    assert [set(copy) for copy in trainer.env.keep_policy_states()] == [set(copy) for copy in own]
    trainer.eval(episodes=3)
    np.testing.assert_equal(trainer.env.keep_policy_states(), own)


def test_a_protocol_of_ones_own_and_its_pool():
    trainer = make("wrapped_envs:Levelled-v0")
    trainer.env.set_attr("level", [3, 0])
    for _ in range(15):  # two episodes of 7 steps
        trainer.train()
    returns = trainer.eval(episodes=2)["ppo"]["returns"]
    assert trainer.agents[0].environment == {"Level": {"level": 5, "best": -np.inf}}
    assert list(returns) == [35.0, 35.0]  # 7 steps at the highest level, that of copy 0


def test_native_copies_have_one_state():
    trainer = make("wrapped_envs:NativeNormalized-v0", vectorization="native", copies=3)
    for _ in range(20):
        trainer.train()
    trainer.eval(episodes=3)
    (kept,) = trainer.evaluation_env.policy_states([slice(0, 3)])
    np.testing.assert_equal(kept, trainer.env.policy_states([slice(0, 3)])[0])
    np.testing.assert_equal(trainer.agents[0].environment, kept)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("trainer=step",),
        pytest.param((*TWO, "trainer=parallel", "trainer.placement=shared"), marks=pytest.mark.slow),
        pytest.param((*TWO, "trainer=parallel", "trainer.placement=partitioned"), marks=pytest.mark.slow),
    ],
    ids=["sequential", "step", "shared", "partitioned"],
)
def test_evaluations_change_nothing_and_a_checkpoint_plays_as_it_did(more, here, monkeypatch):
    """`rltrain eval` on the evaluation's own starts gives the evaluation's own numbers; stopped is as uninterrupted."""
    train(*RUN, "run.dir=whole", *more)
    train(*RUN, "run.dir=often", *OFTEN, *more)
    train(*RUN, "run.dir=stopped", *more, "trainer.timesteps=23", "schedule.horizon=40")
    assert call("train", "resume=stopped", "trainer.timesteps=40").status == 0
    one, two, three = (checkpoints_of(here / run)["40"] for run in ("whole", "often", "stopped"))
    np.testing.assert_equal(one, three)
    for name in summary(here / "whole")["agents"]:
        np.testing.assert_equal(one[f"agents/{name}/policy"], two[f"agents/{name}/policy"])
    assert set(one["agents/ppo/policy"]["environment"]["NormalizeObservation"]) == EXPECTED
    learned = checkpoints.learned(one["agents/ppo/policy"])
    assert summary(here / "whole")["agents"]["ppo"]["parameters_sha256"] == checkpoints.tree_sha256(learned)

    monkeypatch.setattr("rltrain.commands.evaluate.FINAL_EVALUATION_ENVIRONMENTS", EVALUATION_ENVIRONMENTS)
    evaluated = [row for row in rows(here / "often") if "evaluation/episode_return_mean" in row]
    for timestep in ("20", "40"):
        result = call("eval", f"often/checkpoints/{timestep}", "episodes=5", "json=true")
        assert result.status == 0, result.err
        for name, agent in json.loads(result.out)["agents"].items():
            (row,) = [row for row in evaluated if row["timestep"] == int(timestep) and row["agent"] == name]
            assert agent["mean"] == pytest.approx(row["evaluation/episode_return_mean"], rel=1e-12)


def test_a_new_run_goes_on_from_the_weights_with_a_share_each(here):
    train(*RUN, "run.dir=first")
    kept = checkpoints_of(here / "first")["40"]["agents/ppo/policy"]["environment"]["NormalizeObservation"]
    train(*RUN, "run.dir=second", "init_from=first", "env.num_envs=2", "trainer.timesteps=1", "agents.ppo.rollout_length=1",
          "agents.ppo.minibatches=1")  # fmt: skip
    new = checkpoints_of(here / "second")["1"]["agents/ppo/policy"]["environment"]["NormalizeObservation"]
    assert new["count"] == pytest.approx(kept["count"] + 2 * 2)  # a reset and a step of two copies


def test_backends_change_and_old_checkpoints_stay_as_they_were(here):
    train(*RUN, "run.dir=run")
    means = [
        json.loads(call("eval", "run", "episodes=5", "json=true", f"backend={backend}").out)["agents"]["ppo"]["mean"]
        for backend in ("torch", "jax")
    ]
    assert means[0] == pytest.approx(means[1], rel=1e-3)
    trainer = make(kind=SequentialTrainer)
    policy = trainer.agents[0].snapshot()["policy"]
    trainer.agents[0].restore({"policy": policy})
    assert "environment" not in policy and trainer.agents[0].environment is None
    assert len(trainer.eval(episodes=3)["ppo"]["returns"]) == 3


def test_a_resume_that_is_not_exact_begins_with_a_share_each():
    trainer, other = make(), make()
    for _ in range(20):
        trainer.train()
    parts, _ = trainer.snapshot()
    parts["trainer"]["env"] = None
    other.restore(parts)
    kept = trainer.agents[0].environment["NormalizeReward"]
    for rms in other.env.get_attr("return_rms"):  # a reset of the new episodes has no reward
        assert (float(rms.mean), float(rms.var), rms.count) == (float(kept["mean"]), float(kept["var"]), kept["count"] / 2)
    assert all(state["NormalizeReward"]["flag"] for state in other.env.keep_policy_states())


@pytest.mark.parametrize(("case", "settings", "said"), [
    ("episodes", "env=wrapped_envs:Gathers-v0", True),
    ("a level that only training reaches", "env=wrapped_envs:Gathers-v0 env.kwargs.count=0", True),
    ("nothing", "env=wrapped_envs:Forgets-v0", False),
    ("what is shared", "env=wrapped_envs:Levelled-v0", False),
])  # fmt: skip
def test_what_evaluations_cannot_share_is_said_once(case, settings, said, here):
    evaluation = ("evaluation.interval=40", "evaluation.episodes=3", "env.num_envs=2", "trainer.timesteps=120", "run.dir=run")
    result = train(*settings.split(), "agents.ppo.rollout_length=16", *evaluation)
    line = "evaluation begins without what Gathers.seen gathers over episodes in training"
    assert (result.text.count(line), result.text.count("begins without")) == (said, said)
    if case in ("episodes", "nothing"):
        assert call("eval", "run", "episodes=3").text.count(line) == said
