"""Rewards of one's own: what is learned from and what is reported; the same in every loop; what is refused."""

import copy
import importlib
import sys
from typing import Any

import numpy as np
import pytest
import reward_shapes
from command_line import assert_one_error, call
from resumed import kept, resumed

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.errors import ConfigError, NonFiniteError, RunError
from rltrain.trainers import ParallelTrainer, SequentialTrainer, StepTrainer, Trainer

ON: dict[str, Any] = {"rollout_length": 8, "network": {"policy_sizes": [8], "value_sizes": [8]}}
OFF: dict[str, Any] = {"learning_starts": 6, "batch_size": 8, "memory_size": 200}
Q, AC = {**OFF, "network": {"sizes": [8]}}, {**OFF, "network": {"policy_sizes": [8], "critic_sizes": [8]}}
CAST: dict[str, tuple[str, Any]] = {
    "ppo": ("CartPole-v1", ON), "a2c": ("CartPole-v1", ON), "dqn": ("CartPole-v1", {**Q, "n_steps": 3}),
    "ddqn": ("CartPole-v1", Q), "sac": ("Pendulum-v1", AC), "td3": ("Pendulum-v1", AC), "ddpg": ("Pendulum-v1", AC),
    "ippo": ("reward_envs:team", ON), "mappo": ("reward_envs:team", ON),
}  # fmt: skip
SPEND = {"rewards": [0.7, -0.3, 0.9]}


def make(
    kinds: list[str], backend: str = "torch", *, timesteps: int = 24, kind: type[Trainer] = SequentialTrainer, each: Any = None,
    **settings: Any,
) -> Any:  # fmt: skip
    """Return a trainer of agents with these settings, two copies each."""
    env_id, copies = CAST[kinds[0]][0], 2 * len(kinds)
    cfg = {"id": env_id, "num_envs": copies}
    env: Any = PettingZooEnv({**cfg, "kwargs": SPEND}, seed=1) if ":" in env_id else GymnasiumEnv(cfg, seed=1)
    agents = []
    for i, name in enumerate(kinds):
        pytest.importorskip(backend)
        made = getattr(importlib.import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
        spaces = {"state_space": env.state_space} if name == "mappo" else {}
        own = {**CAST[name][1], **settings, **(each[i] if each else {})}
        if own.get("memory_of") == f"a{i}":
            del own["memory_of"]
        how = {"num_envs": 2, "cfg": own, "seed": 1, "index": i}
        agents.append(Agent(made(env.observation_space, env.action_space, **spaces, **how), name=f"a{i}"))
    return kind(env, agents, cfg={"timesteps": timesteps, "disable_progressbar": True}, horizon=24)


def trained(*args: Any, **how: Any) -> Any:
    trainer = make(*args, **how)
    trainer.train_to_end()
    return trainer


def slowly(*cases: Any) -> list[Any]:
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("name", "backend"),
    [("ppo", "torch"), ("dqn", "torch"), ("ippo", "torch"), ("sac", "torch"),
     *slowly(*((name, "jax") for name in CAST)), *slowly(*((name, "torch") for name in ("a2c", "ddqn", "td3", "ddpg", "mappo")))],
)  # fmt: skip
def test_twice_the_reward_is_learned_as_by_reward_scale_and_reported_returns_are_raw(name, backend):
    one = trained([name], backend, reward_function="reward_shapes:twice")
    other = trained([name], backend, reward_scale=2.0)
    plain = trained([name], backend)
    policies = [trainer.agents[0].snapshot()["policy"] for trainer in (one, other, plain)]
    np.testing.assert_equal(policies[0], policies[1])
    with pytest.raises(AssertionError):
        np.testing.assert_equal(policies[0], policies[2])
    assert one.agents[0].updates > 1
    np.testing.assert_equal(one.agents[0].statistics.snapshot(), other.agents[0].statistics.snapshot())


def test_the_function_gets_a_copy_where_the_run_stands_and_comes_before_scale_and_clip():
    seen = []

    def note(rewards, timestep, timesteps):
        seen.append((timestep, timesteps))
        rewards += 0.25 * timestep
        return rewards

    trainer = make(["ppo"], timesteps=5, reward_function=note, reward_scale=2.0, reward_clip=1.0)
    assert seen == [(0, 1)]  # tried
    trainer.train()
    assert seen[1:] == [(t, 24) for t in range(5)]
    agent = trainer.agents[0]
    np.testing.assert_equal(agent.algorithm.memory.snapshot()["arrays"]["rewards"], [[1 + 0.25 * t] * 2 for t in range(5)])
    assert agent.statistics.snapshot()["running_returns"].tolist() == [5.0, 5.0]


def test_a_memory_holds_what_is_learned_from(tmp_path):
    trainer = trained(["dqn"], timesteps=8, reward_function=reward_shapes.in_place)
    trainer.agents[0].algorithm.memory.export(tmp_path / "rows.npz")
    assert (np.load(tmp_path / "rows.npz")["rewards"] == 3).all()


def test_members_that_share_parameters_are_handed_over_together_and_each_group_may_have_its_own():
    shapes = []

    def ranked(rewards, timestep, timesteps):
        shapes.append(rewards.shape)
        return rewards + np.arange(len(rewards))

    own = {"a": {"reward_function": "reward_shapes:twice"}}
    groups = {"parameter_sharing": "groups", "groups": {"a": ["a"], "rest": ["b", "c"]}}
    trainer = trained(["ippo"], timesteps=1, reward_function=ranked, overrides=own, **groups)
    assert set(shapes) == {(4,)}
    parts = trainer.agents[0].algorithm.parts
    np.testing.assert_allclose(parts["a"].memory.snapshot()["arrays"]["rewards"], [[1.4, 1.4]])
    np.testing.assert_allclose(parts["rest"].memory.snapshot()["arrays"]["rewards"], [[0.7, 1.7, 2.7, 3.7]])


@pytest.mark.parametrize(("name", "backend", "stop"), [("a2c", "torch", 13), ("dqn", "torch", 13), *slowly(("sac", "jax", 13))])
def test_resumed_is_uninterrupted(name, backend, stop):
    resumed(lambda timesteps: make([name], backend, timesteps=timesteps, reward_function="reward_shapes:rising"), 24, stop)


def test_a_step_trainer_learns_alike():
    one, other = (
        trained(["a2c"], kind=kind, reward_function="reward_shapes:rising") for kind in (SequentialTrainer, StepTrainer)
    )
    np.testing.assert_equal(kept(one)["agents/a0/policy"], kept(other)["agents/a0/policy"])


@pytest.mark.parametrize(("kinds", "more"), slowly((["dqn", "ddqn"], {"memory_of": "a0"}), (["a2c", "ppo"], {})))
def test_workers_learn_what_the_sequential_trainer_learns(kinds, more):
    kinds_of_trainer = (SequentialTrainer, ParallelTrainer)
    made = [trained(kinds, kind=kind, reward_function="reward_shapes:rising", **more) for kind in kinds_of_trainer]
    np.testing.assert_equal(kept(made[0]), kept(made[1]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sequential", "parallel"])
def test_infos_come_where_they_are_asked_for(kind, here):
    sizes = ("agents=[ppo,a2c]", "seed=1", "env.num_envs=4", "trainer.timesteps=20", "env.kwargs.max_episode_steps=7")
    how = ("agents.ppo.reward_function=reward_shapes:by_success", "agents.ppo.rollout_length=20", "agents.a2c.rollout_length=20")
    result = call("train", *sizes, *how, f"trainer={kind}", "run.dir=run", "tracking.tensorboard=false")
    assert result.status == 0, result.err


# -- in JAX --------------------------------------------------------------------------------------------------------------


def walked(name: str, fused: str, function: Any, **how: Any) -> Any:
    pytest.importorskip("jax")
    from functional_envs import Walk, make_trainer

    made = getattr(importlib.import_module(f"rltrain.agents.{name}.jax"), name.upper())
    settings = {**CAST[name][1], "reward_function": function}
    return make_trainer([(made, 3, settings)], Walk(), timesteps=24, fused=fused, **how)


def test_fused_equals_stepped():
    from functional_envs import numbers

    trainers = [walked("dqn", how, "reward_shapes:rising") for how in ("true", "false")]
    for trainer in trainers:
        trainer.train()
    np.testing.assert_equal(*map(numbers, trainers))
    rewards = np.asarray(trainers[0].agents[0].algorithm.memory.rows.rewards[:24])
    assert rewards.min() < 0 < rewards[20:].max()  # raw ones are between 0 and 1, and count more towards the end


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a2c", "dqn"])
def test_resumed_is_uninterrupted_in_the_fused_loop(name):
    from functional_envs import numbers

    whole, first, rest = (walked(name, "true", "reward_shapes:rising") for _ in range(3))
    first.timesteps = 11
    whole.train()
    first.train()
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    np.testing.assert_equal(numbers(rest), numbers(whole))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "a2c", "ddqn", "ippo"])
def test_fused_equals_stepped_for_all_kinds(name):
    from functional_envs import make_trainer, numbers
    from functional_teams import Herd

    made = getattr(importlib.import_module(f"rltrain.agents.{name}.jax"), name.upper())
    trainers = []
    for how in ("true", "false"):
        settings = {**CAST[name][1], "reward_function": "reward_shapes:rising"}
        env = Herd() if name == "ippo" else None
        trainers.append(make_trainer([(made, 3, settings)], env, timesteps=24, fused=how))
        trainers[-1].train()
    np.testing.assert_equal(*map(numbers, trainers))


@pytest.mark.parametrize("fused", ["true", "false"])
def test_what_is_made_must_be_finite_in_either_loop(fused):
    trainer = walked("a2c", fused, reward_shapes.breaks_later)
    with pytest.raises(NonFiniteError, match=r"^agents\.a2c\.reward_function=breaks_later: timestep 3: copy 0: what it makes of"):
        trainer.train()


@pytest.mark.parametrize(
    ("function", "fused", "sentence"),
    [
        ("branches", "auto", r"can't be compiled, as a JAX environment needs it: TracerBoolConversionError: .*; write it in jax"),
        ("converts", "false", r"can't be compiled, as a JAX environment needs it: TracerArrayConversionError"),
        ("mean", "auto", r"returns \(\) float32 for \(3,\) rewards; return a number for each"),
        ("bonus", "auto", r"takes infos, which the fused loop doesn't have; leave infos out, or set trainer.fused=false"),
    ],
)
def test_functions_that_a_compiled_loop_cant_have(function, fused, sentence):
    with pytest.raises(ConfigError, match=rf"^agents\.\w+\.reward_function=reward_shapes:{function}: {sentence}"):
        walked("a2c", fused, f"reward_shapes:{function}")


# -- what is refused -----------------------------------------------------------------------------------------------------

SMALL = ("train", "seed=1", "env.num_envs=2", "trainer.timesteps=8", "agents.ppo.rollout_length=8", "run.dir=run")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("reward_shapes:tenthh", "reward_shapes has no tenthh; did you mean 'tenth'?"),
        ("reward_shapes", "must be module:name"),
        ("nowhere_at_all:f", "nowhere_at_all can't be imported (ModuleNotFoundError"),
        ("3", "must be text, not empty or null"),
        ("reward_shapes:takes_two", "takes (rewards, timestep); let it take (rewards, timestep, timesteps), and infos if"),
        ("reward_shapes:mean", "returns () float32 for (2,) rewards; return a number for each"),
        ("reward_shapes:words", "returns (2,) <U4 for (2,) rewards"),
        ("reward_shapes:raises", "fails on 2 rewards of 1: RuntimeError: no money"),
    ],
)
def test_bad_functions_are_told_before_anything_is_made(value, sentence, here):
    result = call(*SMALL, f"agents.ppo.reward_function={value}")
    assert_one_error(result, 2, f"error: agents.ppo.reward_function={value}: {sentence}")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("function", "error", "sentence"),
    [
        ("raises_later", RunError, "timestep 3: fails: RuntimeError: no money"),
        ("shrinks_later", RunError, r"timestep 3: returns \(1,\) float32 for \(2,\) rewards"),
        ("breaks_later", NonFiniteError, "timestep 3: copy 0: what it makes of the reward 1 is not finite"),
    ],
)
def test_functions_that_fail_later_name_the_timestep(function, error, sentence):
    trainer = make(["ppo"], reward_function=f"reward_shapes:{function}")
    with (
        np.errstate(all="ignore"),
        pytest.raises(error, match=rf"^agents.ppo.reward_function=reward_shapes:{function}: {sentence}"),
    ):
        trainer.train()


def test_a_team_s_error_names_the_member():
    trainer = make(["ippo"], reward_function="reward_shapes:breaks_later")
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"timestep 3: copy 0: a: what it makes of the reward 0\.7"),
    ):
        trainer.train()


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ("twice", "tenth", "agents.a1.reward_function=reward_shapes:tenth: a0, whose memory it shares, has reward_shapes:twice;"),
        ("bonus", "bonus", "agents.a1.reward_function=reward_shapes:bonus: takes infos, which agents that share a memory don't"),
    ],
)
def test_a_memory_holds_rewards_of_one_kind(one, other, sentence):
    each = [{"reward_function": f"reward_shapes:{function}"} for function in (one, other)]
    with pytest.raises(ConfigError) as caught:
        make(["dqn", "dqn"], each=each, memory_of="a0")
    assert str(caught.value).startswith(sentence)


def test_an_evaluation_does_without_the_function_and_a_resume_asks_for_trust(here, monkeypatch):
    (here / "own_rewards.py").write_text("def shape(rewards, timestep, timesteps):\n    return -rewards\n")
    trained = call(*SMALL, "agents.ppo.reward_function=own_rewards:shape", "tracking.tensorboard=false")
    assert trained.status == 0, trained.err
    monkeypatch.delitem(sys.modules, "own_rewards")
    assert call("eval", "run", "episodes=2").status == 0
    result = call("train", "resume=run", "trainer.timesteps=16")
    assert result.status == 2 and "own_rewards, which only the current directory has" in result.err
    assert "own_rewards" not in sys.modules
