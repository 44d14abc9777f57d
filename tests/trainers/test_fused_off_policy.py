"""Off-policy agents in the fused loop: the stepped loop's bits, also beside others, with masks and after a resume."""

import copy
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from command_line import call, summary
from functional_envs import Pictured, Walk, make_trainer, numbers
from gymnasium.spaces import Box, Discrete

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.jax import DDPG
from rltrain.agents.ddqn.jax import DDQN
from rltrain.agents.dqn.jax import DQN
from rltrain.agents.ppo.jax import PPO
from rltrain.agents.sac.jax import SAC
from rltrain.agents.td3.jax import TD3
from rltrain.backends import jax as backend
from rltrain.errors import ConfigError
from rltrain.trainers import fused

SMALL: dict[str, Any] = {"learning_starts": 12, "batch_size": 8, "memory_size": 120}  # smaller than the run
Q = {**SMALL, "network": {"sizes": [8]}, "target_update_interval": 10}
AC = {**SMALL, "network": {"policy_sizes": [8], "critic_sizes": [8]}}
MORE = {"n_steps": 3, "normalize_observations": True, "gradient_steps": "auto", "learning_rate_schedule": "linear"}
LONG: dict[str, Any] = {"learning_starts": 12, "memory_size": 120, "sequence_length": 4, "burn_in": 3, "sequences": 8}
CAST = {
    "dqn": (DQN, 3, Q), "ddqn+": (DDQN, 2, {**Q, **MORE}), "sac": (SAC, 2, {**AC, "update_interval": 3}),
    "sac+": (SAC, 3, {**AC, **MORE, "update_interval": 5}), "td3": (TD3, 3, {**AC, "gradient_steps": 1}),
    "ddpg": (DDPG, 3, {**AC, "noise": "ornstein_uhlenbeck", "update_interval": 2, "normalize_observations": True}),
    "dqn, seeing": (DQN, 2, {**Q, "network": {"sizes": [8], "cnn": [[4, 3, 1], 8]}, "gradient_steps": 1}),
    "dqn, remembering": (DQN, 3, {**LONG, "network": {"sizes": [8], "cell": "lstm", "cell_size": 6, "remembers_actions": True}}),
    "ddpg, remembering": (DDPG, 3, {**LONG, "network": {**AC["network"], "cell": "gru"}, "noise": "ornstein_uhlenbeck"}),
    "sac, remembering": (SAC, 3, {**LONG, "network": {**AC["network"], "cell": "gru", "cell_size": 6}, "n_steps": 3}),
    "ppo": (PPO, 2, {"rollout_length": 8, "epochs": 1, "minibatches": 2}),
}  # fmt: skip


class Gated(Walk):
    """A walk that may not be pushed outwards beyond +-0.5."""

    def action_masks(self, state: Any) -> jax.Array:
        """Return what is open: left, right."""
        return jnp.stack((state[0] > -0.5, state[0] < 0.5))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        """Move; what is forbidden earns NaN."""
        after, observation, reward, terminated, truncated = super().step(key, state, action)
        return after, observation, jnp.where(self.action_masks(state)[action], reward, jnp.nan), terminated, truncated


def trained(parts, env, timesteps=90, **how):
    trainer = make_trainer([CAST[part] for part in parts], env, timesteps=timesteps, **how)
    trainer.train()
    return trainer


CASES = [
    pytest.param(["dqn"], Walk, id="dqn"),
    pytest.param(["dqn, seeing"], Pictured, id="pictures", marks=pytest.mark.slow),
    pytest.param(["sac", "ppo", "ddqn+"], Gated, id="choices", marks=pytest.mark.slow),
    pytest.param(["dqn, remembering"], Gated, id="remembering", marks=pytest.mark.slow),
    pytest.param(["ddpg, remembering", "sac, remembering"], lambda: Walk(continuous=True), id="more", marks=pytest.mark.slow),
    pytest.param(["td3", "ddpg", "sac+"], lambda: Walk(continuous=True), id="continuous", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("parts", "env"), CASES)
def test_fused_equals_stepped_equals_resumed(parts, env):
    one, other = (trained(parts, env(), fused=how) for how in ("true", "false"))
    np.testing.assert_equal(numbers(one), numbers(other))
    for agent in one.agents:
        assert agent.updates > 5 and agent.statistics.episodes > 5
        if agent.kind != "PPO":
            assert int(agent.algorithm.state.gradient_steps) > 5 and int(agent.algorithm.memory.rows.filled) < 90
    first = trained(parts, env(), timesteps=47, horizon=90, fused="true")
    rest = make_trainer([CAST[part] for part in parts], env(), timesteps=90, fused="true")
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    np.testing.assert_equal(numbers(rest), numbers(one))


def test_a_chunk_is_as_long_as_its_learning_and_nothing_is_compiled_after_the_first(monkeypatch):
    whole = trained(["dqn"], Walk(), fused="true")
    monkeypatch.setattr(fused, "CHUNK_OPERATIONS", 20 * whole.agents[0].algorithm.pure.operations())  # 20 timesteps
    counts, at = [], []
    real = fused.FusedLoop._tell

    def tell(self, *rest):
        counts.append(backend.compilations())
        real(self, *rest)
        at.append(self.trainer.timestep)

    monkeypatch.setattr(fused.FusedLoop, "_tell", tell)
    again = trained(["dqn"], Walk(), fused="true")
    assert at == [20, 40, 60, 80, 88] and counts[1:] == counts[:1] * 4
    np.testing.assert_equal(numbers(again), numbers(whole))


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"prioritized": True}, r"agents.dqn.prioritized=true draws from a memory on the host"),
        pytest.param(
            {"memory_mapped": "true"}, r"agents.dqn.memory_mapped=true keeps the memory on the host", marks=pytest.mark.slow
        ),
    ],
)
def test_a_memory_on_the_host_is_not_fused(setting, why):
    agents = [(DQN, 2, {**Q, **setting})]
    with pytest.raises(ConfigError, match=rf"trainer.fused=true: {why}; use auto or false"):
        make_trainer(agents, timesteps=40)
    trainer = make_trainer(agents, timesteps=40, fused="auto")
    trainer.train()
    algorithm = trainer.agents[0].algorithm
    assert algorithm.memory.rows is None and algorithm.memory.host.filled == 40 and algorithm.state.gradient_steps > 0


def test_a_memory_that_is_too_small_is_refused():
    agents = [(DQN, 5, {**Q, "memory_size": 9, "batch_size": 8})]
    with pytest.raises(ConfigError, match=r"agents.dqn.memory_size=9: less than 2 timesteps of 5 copies; give at least 10"):
        make_trainer(agents, timesteps=40).train()


@pytest.mark.parametrize("on_device", [False, True])
def test_evaluations_that_explore_draw_anew_in_every_turn(on_device):
    """At the end of the run's epsilon, here 1, also where the trainer has no timesteps of its own."""
    algorithm = DQN(Box(-1, 1, (3,)), Discrete(4), num_envs=8, cfg={**Q, "epsilon_end": 1.0})
    agent = Agent(algorithm)
    rows = jnp.zeros((8, 3)) if on_device else np.zeros((8, 3), np.float32)
    agent.begin_evaluation(8, seed=11)
    how = {"timesteps": 0, "explore": True, "evaluation": True}
    drawn = [np.asarray(agent.act(rows, timestep=turn, **how)).tolist() for turn in range(6)]
    assert len({tuple(actions) for actions in drawn}) == 6
    agent.begin_evaluation(8, seed=11)
    assert [np.asarray(agent.act(rows, timestep=turn, **how)).tolist() for turn in range(6)] == drawn


@pytest.mark.slow
def test_a_resume_without_its_memory_fills_it_first():
    stopped = make_trainer([CAST["ddqn+"]], timesteps=40)
    stopped.agents[0].keeps_memory = False
    stopped.train()
    saved, exact = copy.deepcopy(stopped.snapshot())
    assert not exact
    again = make_trainer([CAST["ddqn+"]], timesteps=52)
    again.restore(saved)
    again.train()
    before, after = (trainer.agents[0].algorithm for trainer in (stopped, again))
    assert int(after.state.gradient_steps) == int(before.state.gradient_steps) and int(after.memory.rows.filled) == 12
    again.timesteps = 80
    again.train()
    assert int(after.state.gradient_steps) > int(before.state.gradient_steps) and int(after.memory.rows.filled) == 40
    assert float(after.state.observation_moments.count) > float(before.state.observation_moments.count)


@pytest.mark.slow
def test_from_the_command_line(here):
    pytest.importorskip("gymnax")
    run = (
        "train", "agents=dqn", "backend=jax", "env=gymnax", "env.num_envs=2",
        "trainer.timesteps=40", "agents.dqn.learning_starts=10", "agents.dqn.batch_size=8", "agents.dqn.memory_size=60",
        "agents.dqn.network.sizes=[8]", "evaluation.interval=20", "evaluation.episodes=2", "checkpoints.memory=true", "seed=3",
    )  # fmt: skip
    for how in ("true", "false"):
        result = call(*run, f"trainer.fused={how}", f"run.dir={how}")
        assert result.status == 0, result.err
    assert summary(here / "true")["agents"] == summary(here / "false")["agents"]
    result = call(*run, "trainer.fused=true", "agents.dqn.prioritized=true", "run.dir=refused")
    assert result.status == 2
    assert "trainer.fused=true: agents.dqn.prioritized=true draws from a memory on the host; use auto or false" in result.err
