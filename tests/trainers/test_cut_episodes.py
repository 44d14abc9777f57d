"""Evaluations whose episodes don't end: cut at `evaluation.max_episode_steps` as by a time limit of the environment's own."""

import json
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from command_line import call, merged, rows, train
from forgery import edit_config
from team_envs import Relay

from rltrain.agents.base import Agent
from rltrain.agents.ippo.torch import IPPO
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.base import EnvWrapper
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import Run
from rltrain.screen import Screen
from rltrain.trainers import SequentialTrainer, StepTrainer, evaluating

NETWORK = {"policy_sizes": [8], "value_sizes": [8]}
QUIET = {"timesteps": 30, "disable_progressbar": True, "stochastic_evaluation": True}


def cartpole(limit: int, vectorization: str = "sync") -> GymnasiumEnv:
    """Return CartPole that Gymnasium truncates after `limit` steps, -1: never."""
    kwargs = {"max_episode_steps": limit}
    return GymnasiumEnv({"id": "CartPole-v1", "num_envs": 4, "vectorization": vectorization, "kwargs": kwargs}, seed=3)


class Endless(Relay):
    length = 10**9


def relay(kind: type[Relay]) -> PettingZooEnv:
    return PettingZooEnv({"id": "relay", "num_envs": 3}, seed=3, make=kind)


def walk(own_limit: bool) -> EnvWrapper:
    from functional_envs import Walk

    from rltrain.envs.jax_functional import FunctionalEnv

    class Unlimited(Walk):
        def step(self, *args):
            *answer, truncated = super().step(*args)
            return *answer, truncated & own_limit

    return FunctionalEnv({"id": "walk", "num_envs": 4}, seed=3, make=lambda cfg: Unlimited(limit=13))


def herd(limit: int) -> EnvWrapper:
    from functional_teams import Herd

    from rltrain.envs.jax_functional import FunctionalEnv

    return FunctionalEnv({"id": "herd", "num_envs": 3}, seed=3, make=lambda cfg: Herd(limit=limit))


def make(env: EnvWrapper, limit: int | None, kind: type = SequentialTrainer, sizes: list[int] | None = None):
    """Return a trainer of an agent per size."""
    agents = []
    for index, size in enumerate(sizes or [env.num_envs]):
        kind_of_agent, cfg = IPPO if env.members else PPO, {"network": NETWORK}
        algorithm = kind_of_agent(env.observation_space, env.action_space, num_envs=size, cfg=cfg, seed=3, index=index)
        agents.append(Agent(algorithm, name="AB"[index]))
    return kind(env, agents, sizes, QUIET, run=Run(evaluation=EvaluationConfig(max_episode_steps=limit)))


def by_itself(results: dict) -> dict:
    return {name: {key: value for key, value in own.items() if key != "cut"} for name, own in results.items()}


@pytest.mark.parametrize(
    ("limited", "unlimited", "limit", "sizes"),
    [
        (lambda: cartpole(12), lambda: cartpole(-1), 12, None),
        (lambda: cartpole(12), lambda: cartpole(-1), 12, [1, 3]),
        (lambda: cartpole(12), lambda: cartpole(12, "sync"), 12, None),
        pytest.param(lambda: cartpole(12, "async"), lambda: cartpole(-1, "async"), 12, None),
        (lambda: relay(Relay), lambda: relay(Endless), 4, [1, 2]),
        pytest.param(lambda: walk(True), lambda: walk(False), 13, [2, 2], marks=pytest.mark.slow),
        (lambda: herd(7), lambda: herd(10**6), 7, None),
    ],
    ids=["sync", "two agents", "the same limit", "async", "team", "jax", "jax team"],
)
def test_a_cut_is_what_a_time_limit_of_the_environments_own_is(limited, unlimited, limit, sizes):
    """Also for what comes after: the copy's next episodes, the actor's random numbers."""
    if "walk" in limited.__code__.co_names or "herd" in limited.__code__.co_names:
        pytest.importorskip("jax")
    expected = make(limited(), None, sizes=sizes).eval(13)
    trainer = make(unlimited(), limit, sizes=sizes)
    results = trainer.eval(13)
    trainer.close()
    assert by_itself(results) == expected
    for name, own in results.items():
        cuts = own.get("cut")
        assert max(own["lengths"]) == limit
        if trainer.env.episode_limit is None:
            assert sum(cuts) >= 1 and all(length == limit for length, cut in zip(own["lengths"], cuts, strict=True) if cut), name
        else:
            assert cuts is None
    steps = make(unlimited(), limit, StepTrainer, sizes)
    assert steps.eval(episodes=13) == results


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_native_copies_that_can_not_be_reset_alone_begin_anew_together(mode):
    """Episodes of 2 and 50 steps, return 1 + 2 = 3; cut after 5 steps: 1 + 2 + 3 + 4 + 5 = 15."""
    kwargs = {"lengths": (2, 50), "mode": mode}
    env = GymnasiumEnv({"id": "sample_envs:Counting-v0", "num_envs": 2, "vectorization": "native", "kwargs": kwargs})
    results = make(env, 5, sizes=[1, 1]).eval(3)
    assert results["A"] == {"returns": [3.0] * 3, "lengths": [2] * 3, "successes": []}
    assert results["B"] == {"returns": [15.0] * 3, "lengths": [5] * 3, "successes": [], "cut": [True] * 3}


def test_step_by_step_a_cut_is_a_truncated_row():
    trainer = make(cartpole(-1), 3, StepTrainer)
    flags = [trainer.eval() for _ in range(6)]
    assert [result.truncated.all() for result in flags] == [False, False, True] * 2
    assert not np.array([result.terminated for result in flags]).any()
    assert trainer.evaluation_results()["A"] == {"returns": [3.0] * 8, "lengths": [3] * 8, "successes": [], "cut": [True] * 8}


def test_an_environment_that_no_one_knows_a_limit_of_is_cut_at_the_default_and_that_is_said_once(monkeypatch):
    monkeypatch.setattr(evaluating, "MAX_EPISODE_STEPS", 6)
    said = []
    monkeypatch.setattr(Run, "say", lambda self, line: said.append(line))
    trainer = make(cartpole(-1), None)
    for _ in range(2):
        assert trainer.eval(4)["A"]["lengths"] == [6] * 4
    reason = "an episode was cut after 6 steps, as CartPole-v1 has no time limit that is known"
    assert [line for line in said if "cut" in line] == [f"evaluation: {reason}; evaluation.max_episode_steps sets another"]
    assert make(cartpole(8), None).eval(4)["A"]["lengths"] != [6] * 4  # which has one


# -- on the command line -----------------------------------------------------------------------------------------------------


CLIFF_ID = next(name for name in ("CliffWalking-v1", "CliffWalking-v0") if name in gymnasium.registry)  # v0: before 1.2
CLIFF = (f"env={CLIFF_ID}", "trainer.timesteps=40", "evaluation.interval=20", "evaluation.episodes=3", "run.dir=run")


def test_training_and_eval_count_and_show_cut_episodes(here, monkeypatch):
    monkeypatch.setattr(evaluating, "MAX_EPISODE_STEPS", 50)
    monkeypatch.setattr(evaluating, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(evaluating, "LOOK", 0.0)
    monkeypatch.setattr(Screen, "PLAIN_SECONDS", 0.0)
    result = train(*CLIFF)
    assert result.err.count(f"an episode was cut after 50 steps, as {CLIFF_ID} has no time limit that is known") == 1
    assert re.search(r"evaluation: 0/3 episodes, longest running \d+ of at most 50 steps", result.err)
    assert [row.get("evaluation/cut_episodes") for row in rows(here / "run")] == [3, 3]
    result = call("eval", "run", "episodes=5", "evaluation.max_episode_steps=7", "json=true")
    figures = json.loads(result.out)["agents"]["ppo"]
    assert (figures["cut_episodes"], figures["length_mean"], figures["max"]) == (5, 7.0, -7.0)
    assert re.search(r"evaluation: 0/5 episodes, longest running \d of at most 7 steps", result.err)
    saved = json.loads(next(here.glob("outputs/evaluations/**/eval.json")).read_text())
    assert (saved["episodes"]["ppo"]["cut"], saved["about"]["max_episode_steps"]) == ([True] * 5, 7)
    assert "cut after" not in result.err  # as it was asked for


def test_a_run_of_before_the_setting_takes_it_too(here):
    train(*CLIFF, "evaluation.interval=0")
    (path,) = [path for path in Path("run/checkpoints").iterdir() if path.is_dir()]
    edit_config(path, lambda cfg: cfg["evaluation"].pop("max_episode_steps"))
    result = call("eval", "run", "episodes=2", "evaluation.max_episode_steps=9", "random=true")
    assert result.status == 0, result.err
    assert re.search(r"episodes cut +│ 2 +│ 2 ", result.out)


@pytest.mark.parametrize("placement", ["partitioned", pytest.param("shared", marks=pytest.mark.slow)])
def test_parallel_cuts_as_sequential_does(placement, here):
    how = (*CLIFF[:-1], "agents=[A:ppo,B:ppo]", "evaluation.max_episode_steps=30", "tracking.interval=20")
    small = [f"agents.{name}.{setting}" for name in "AB" for setting in ("rollout_length=10", "epochs=1", "minibatches=2")]
    command = merged(("seed=1", "env.num_envs=4", "tracking.tensorboard=false"), (*how, *small))
    for trainer in (("trainer=sequential",), ("trainer=parallel", f"trainer.placement={placement}")):
        result = call("train", *command, *trainer, f"run.dir={trainer[0]}")
        assert result.status == 0, result.err
    assert rows(here / "trainer=parallel") == rows(here / "trainer=sequential")
    assert {row["evaluation/cut_episodes"] for row in rows(here / "trainer=parallel")} == {3}
