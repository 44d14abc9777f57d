"""JaxMARL's MPE: rewards, successors and ends as JaxMARL's own step has them, without its resets; settings; training."""

import json

import numpy as np
import pytest

pytest.importorskip("jaxmarl")

import jax
from command_line import call, rows

from rltrain.envs.jaxmarl import JaxMARLEnv, _import
from rltrain.errors import ConfigError

SPREAD = "MPE_simple_spread_v3"


def test_a_step_is_jaxmarls_own_without_its_reset(capsys):
    """JaxMARL looks at the time before it counts a step, so with max_steps=2 an episode has 3."""
    env = JaxMARLEnv({"id": SPREAD, "num_envs": 3, "kwargs": {"max_steps": 2, "local_ratio": 0.25}}, seed=1)
    assert capsys.readouterr().out == ""
    theirs = _import().make(SPREAD, max_steps=2, local_ratio=0.25)
    step_env = jax.jit(jax.vmap(theirs.step_env))
    generator = np.random.default_rng(0)
    env.reset()
    for t in range(6):
        chosen, before = {name: generator.integers(5, size=3) for name in env.members}, env.copies
        keys = jax.vmap(lambda key, t=t: jax.random.fold_in(key, 2 * t))(before.keys)
        successors, _, rewards, dones, _ = step_env(keys, before.env, chosen)
        step = env.step(chosen)
        for name in env.members:
            np.testing.assert_allclose(step.next_observations[name], successors[name], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(step.rewards[name], rewards[name], rtol=1e-5)
            np.testing.assert_array_equal(step.truncated[name], dones[name])
            assert step.truncated[name].all() == (t in (2, 5)) and not step.terminated[name].any()
        observations = env.reset_done()
        again = np.asarray(observations["agent_0"])[:, :2]
        assert (again == 0).all() if t in (2, 5) else np.array_equal(again, step.next_observations["agent_0"][:, :2])


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        ({"id": "MPE_simple_spred_v3"}, "no such environment of JaxMARL's MPE; did you mean 'MPE_simple_spread_v3'"),
        ({"id": "hanabi"}, "no such environment of JaxMARL's MPE"),
        ({"kwargs": {"local": 1}}, "env.kwargs.local=1: MPE_simple_spread_v3 has no such parameter"),
        ({"kwargs": {"local_ratio": 7}}, "refuses them: local_ratio must be between"),
        ({"kwargs": {"max_steps": 0}}, "env.kwargs.max_steps=0: must be at least 1"),
    ],
)
def test_what_does_not_fit(cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        JaxMARLEnv(cfg)


@pytest.mark.slow
def test_the_preset_trains_and_is_evaluated_by_member(here):
    small = ("env.num_envs=2", "total_env_steps=312", "agents.mappo.epochs=1", "tracking.tensorboard=false", "seed=1")
    result = call("train", "experiment=mappo_jaxmarl_spread", "backend=jax", "trainer.fused=true", "run.dir=run", *small)
    assert result.status == 0, result.err
    row = rows(here / "run")[-1]
    means = [row[f"members/agent_{i}/episode_return_mean"] for i in range(3)]
    assert row["rollout/episode_return_mean"] == pytest.approx(np.mean(means)) and row["rollout/episode_length_mean"] == 26
    figures = json.loads(call("eval", "run", "episodes=4", "json=true").out)["agents"]["mappo"]
    means = [figures["members"][f"agent_{i}"]["mean"] for i in range(3)]
    assert figures["mean"] == pytest.approx(np.mean(means)) and figures["sum_mean"] == pytest.approx(np.sum(means))
