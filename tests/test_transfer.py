"""init_from_partial: what fits by name and shape is taken, told and trained on; the rest begins fresh."""

import numpy as np
import pytest
from command_line import assert_one_error, call, train

from rltrain.checkpoints import read_manifest, read_part
from rltrain.commands.transfer import merge

NEW = ("init_from_partial=true", "init_from=run", "run.dir=new", "trainer.timesteps=1")


@pytest.fixture
def run(here):
    train("run.dir=run", "trainer.timesteps=32", "agents.ppo.normalize_observations=true")
    return here / "run"


def policy(run, agent="ppo"):
    path = run / "checkpoints" / (run / "checkpoints/latest").read_text().strip()
    return read_part(path, f"agents/{agent}/policy", read_manifest(path))


def same(one, other):
    return {name for name in one if name in other and np.array_equal(one[name], other[name])}


def test_another_head_keeps_what_is_below_it(run, here):
    result = train(*NEW, "env.id=Acrobot-v1", "agents.ppo.network.policy_sizes=[8,8]", "agents.ppo.rollout_length=8")
    before, after = policy(run), policy(here / "new")
    assert before["parameters"]["policy.weights.0"].shape == (8, 4)  # four numbers observed; here they are six
    assert "value.weights.1" in same(before["parameters"], after["parameters"])
    assert "policy.weights.0" not in same(before["parameters"], after["parameters"])
    assert float(after["observation_moments"]["count"]) == 0 and after["observation_moments"]["mean"].shape == (6,)
    for text in (result.err, (here / "new/train.log").read_text()):
        assert "init_from: agents.ppo takes 4 parameters and moments of ppo in run/checkpoints/32; " in text
        assert "  taken value.weights.1\n" in text
        assert "  not taken policy.weights.0: (8, 4) there, (8, 6) here\n" in text
        assert "more not taken\n" in text


def test_another_algorithm_and_another_backend_take_the_networks_and_moments(run, here):
    pytest.importorskip("jax")
    network = ("agents.a2c.network.policy_sizes=[8]", "agents.a2c.network.value_sizes=[8]")
    command = ("seed=3", "env.num_envs=4", "agents=a2c", "backend=jax", "agents.a2c.normalize_observations=true", *network, *NEW)
    result = call("train", *command)
    assert result.status == 0, result.err
    before, after = policy(run), policy(here / "new", "a2c")
    assert same(before["parameters"], after["parameters"]) == set(before["parameters"])
    np.testing.assert_equal(after["observation_moments"], before["observation_moments"])
    assert "takes 10 parameters and moments of ppo" in result.err and "; 0 don't fit" in result.err


def test_optimisers_begin_anew_and_moments_of_values_go_with_their_network():
    here = {
        "parameters": {"value.weights.0": np.zeros(2), "policy.weights.0": np.zeros(3)},
        "value_moments": {"mean": np.zeros(())},
    }
    there = {
        "parameters": {"value.weights.0": np.ones(2), "policy.weights.0": np.ones(4)},
        "value_moments": {"mean": np.ones(())},
    }
    merged, taken, left = merge(here, there)
    assert merged["value_moments"]["mean"] == 1 and taken == ["parameters/value.weights.0", "value_moments"]
    assert left == ["parameters/policy.weights.0: (4,) there, (3,) here"]
    there["parameters"]["value.weights.0"] = np.ones(5)
    _, taken, left = merge(here, there)
    assert taken == [] and left[2] == "value_moments: belongs to values that were not taken"
    assert (here["parameters"]["value.weights.0"] == 0).all()


def test_what_is_wrong_is_one_sentence(run, here):
    misfit = call("train", "seed=1", "env.num_envs=4", "init_from=run", "run.dir=new")
    assert_one_error(misfit, 3, "agents.ppo: written by another architecture: ", "; init_from_partial=true takes what fits")
    other = call("train", "seed=1", "env.num_envs=4", "agents=a2c", "init_from=run", "run.dir=new")
    assert_one_error(other, 3, "has no agent 'a2c'; it has ppo; init_from_partial=true takes what fits")
    nothing = call("train", "seed=1", "agents=dqn", *NEW)
    assert_one_error(nothing, 3, "nothing of agent 'ppo' fits agents.dqn: parameters/q.weights.0: not there")
    alone = call("train", "init_from_partial=true")
    assert_one_error(alone, 2, "error: init_from_partial=true: there is nothing to take from; give init_from=CHECKPOINT")
    assert not (here / "new").exists()


def test_an_encoder_of_one_backend_only_is_told_at_a_switch(here):
    pytest.importorskip("jax")
    (here / "only_torch.py").write_text(
        "import torch\n\n\ndef make(space):\n    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())\n"
    )
    train("run.dir=run", "trainer.timesteps=32", "agents.ppo.network.encoder=only_torch:make")
    sizes = ("agents.ppo.network.policy_sizes=[8]", "agents.ppo.network.value_sizes=[8]", "seed=1", "env.num_envs=4")
    (here / "only_jax.py").write_text(
        "from flax import linen as nn\n\n\ndef make(space):\n    return nn.Sequential([nn.Dense(3), nn.tanh])\n"
    )
    own = ("backend=jax", "init_from=run", "run.dir=new", *sizes, "agents.ppo.network.encoder=only_jax:make")
    result = call("train", *own)
    assert_one_error(
        result, 3, "written by another architecture: policy.encoder.", " is not there; it has policy.", "; init_from_partial=true"
    )
    assert call("train", *own, "init_from_partial=true", "trainer.timesteps=1").status == 0
    switched = call(
        "train", "backend=jax", "init_from=run", "run.dir=other", *sizes, "agents.ppo.network.encoder=only_torch:make"
    )
    assert_one_error(switched, 2, "error: agents.ppo.network.encoder=only_torch:make: ")
