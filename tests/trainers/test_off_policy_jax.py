"""Off-policy agents in JAX on environments of the host: resumed = uninterrupted, alone = beside others, parallel = sequential."""

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import call, summary
from resumed import resumed
from test_resume import at, everything, latest, send  # noqa: F401

jax = pytest.importorskip("jax")

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.jax import DDPG
from rltrain.agents.ddqn.jax import DDQN
from rltrain.agents.dqn.jax import DQN
from rltrain.agents.sac.jax import SAC
from rltrain.agents.td3.jax import TD3
from rltrain.checkpoints import verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.structures import Acting, Progress
from rltrain.trainers import SequentialTrainer

SEED, TIMESTEPS = 5, 50
SMALL: dict[str, Any] = {"learning_starts": 12, "batch_size": 8, "memory_size": 100}  # smaller than the run
Q, AC = {"network": {"sizes": [8]}}, {"network": {"policy_sizes": [8], "critic_sizes": [8]}}
CAST: dict[str, tuple[Any, dict[str, Any]]] = {
    "dqn": (DQN, {**SMALL, **Q, "target_update_interval": 10}),
    "ddqn+": (DDQN, {**SMALL, **Q, "prioritized": True, "n_steps": 3, "normalize_observations": True, "gradient_steps": "auto"}),
    "sac": (SAC, {**SMALL, **AC, "update_interval": 3, "learning_rate_schedule": "linear"}),
    "td3": (TD3, {**SMALL, **AC, "gradient_steps": 2}),
    "ddpg": (DDPG, {**SMALL, **AC, "noise": "ornstein_uhlenbeck", "update_interval": 2, "normalize_observations": True}),
}


def make(env_id: str, parts: list[str], *, timesteps: int = TIMESTEPS, first: int = 0, index: int = 0) -> SequentialTrainer:
    """Return a trainer of agents on two copies each, from copy `first` on; the first one's index is `index`."""
    cfg = {"id": env_id, "num_envs": 2 * len(parts), "kwargs": {"max_episode_steps": 11}}
    env = GymnasiumEnv(cfg, seed=SEED, first_copy=first)
    evaluation_env = GymnasiumEnv(cfg, seed=SEED, first_copy=first, role=EVALUATION_ENVIRONMENTS)
    agents = []
    for i, part in enumerate(parts, index):
        cls, settings = CAST[part]
        algorithm = cls(env.observation_space, env.action_space, num_envs=2, cfg=settings, seed=SEED, index=i)
        agents.append(Agent(algorithm, name=f"agent_{i}"))
    how = {"timesteps": timesteps, "disable_progressbar": True}
    return SequentialTrainer(env, agents, cfg=how, evaluation_env=evaluation_env, horizon=TIMESTEPS)


def trained(trainer: SequentialTrainer) -> list[dict[str, Any]]:
    trainer.train()
    return [agent.snapshot() for agent in trainer.agents]


@pytest.mark.parametrize(
    ("env_id", "part"),
    [
        ("CartPole-v1", "ddqn+"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("Pendulum-v1", "ddpg"), ("CartPole-v1", "dqn"),
                                                                   ("Pendulum-v1", "td3"), ("CartPole-v1", "sac"),
                                                                   ("Pendulum-v1", "sac")]),
    ],
)  # fmt: skip
def test_resumed_is_uninterrupted(env_id, part):
    whole = resumed(lambda timesteps: make(env_id, [part], timesteps=timesteps), TIMESTEPS, 33)
    algorithm = whole.agents[0].algorithm
    assert int(algorithm.state.gradient_steps) > 5 and algorithm.memory.rows is None
    assert algorithm.memory.host.filled == 50 and algorithm.memory.host.read()["truncated"].any()


@pytest.mark.slow
@pytest.mark.parametrize(("env_id", "parts"), [("CartPole-v1", ["sac", "ddqn+"]), ("Pendulum-v1", ["td3", "ddpg"])])
def test_every_agent_learns_what_it_would_learn_alone(env_id, parts):
    together = trained(make(env_id, parts))
    for i, part in enumerate(parts):
        np.testing.assert_equal(together[i], trained(make(env_id, [part], first=2 * i, index=i))[0])


@pytest.mark.slow
def test_an_evaluation_in_between_changes_nothing():
    trainer = make("Pendulum-v1", ["ddpg"], timesteps=7)
    trainer.train()
    returns = trainer.eval(episodes=4)["agent_0"]["returns"]
    assert trainer.eval(episodes=4)["agent_0"]["returns"] == returns  # in the warm-up, yet nothing is random
    trainer.timesteps = TIMESTEPS
    np.testing.assert_equal(trained(trainer)[0], trained(make("Pendulum-v1", ["ddpg"]))[0])


@pytest.mark.slow
def test_without_its_memory_a_resume_is_not_exact_and_fills_it_first():
    stopped = make("CartPole-v1", ["ddqn+"], timesteps=40)
    stopped.agents[0].keeps_memory = False
    stopped.train()
    saved, exact = copy.deepcopy(stopped.snapshot())
    assert not exact
    again = make("CartPole-v1", ["ddqn+"])
    again.restore(saved)
    again.timesteps = 52
    again.train()
    before, after = (trainer.agents[0].algorithm for trainer in (stopped, again))
    assert int(after.state.gradient_steps) == int(before.state.gradient_steps) and after.memory.host.filled == 12
    again.timesteps = 60
    again.train()
    assert int(after.state.gradient_steps) > int(before.state.gradient_steps) and after.memory.host.filled == 20


# -- acting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "part"), [("CartPole-v1", "dqn"), ("CartPole-v1", "sac"), ("Pendulum-v1", "ddpg")])
def test_the_warm_up_is_uniform_in_numpy_and_compiled_and_not_an_evaluations(env_id, part):
    algorithm = make(env_id, [part]).agents[0].algorithm
    size = algorithm.pure.inputs.size
    observations = np.random.default_rng(0).normal(size=(4000, size)).astype(np.float32)
    for seen in (observations, jax.numpy.asarray(observations)):
        found = {}
        for seed in (algorithm.actor_seed, 1):  # training's and an evaluation's
            actor = algorithm.init_actor(4000, seed)
            progress = Progress(3, TIMESTEPS)
            found[seed] = np.asarray(algorithm.act(actor, seen, explore=True, progress=progress)[2]["actions"])
        actions = found[algorithm.actor_seed]
        if env_id == "CartPole-v1":
            assert abs(actions.mean() - 0.5) < 0.04 and set(actions) == {0, 1}
        else:  # uniform in [-1, 1]: variance 1/3, fourth moment 1/5
            assert (
                abs(actions.mean()) < 0.04 and abs((actions**2).mean() - 1 / 3) < 0.02 and abs((actions**4).mean() - 0.2) < 0.02
            )
            assert (found[1] ** 2).mean() < 0.15  # the policy's, near 0 at first


def test_ornstein_uhlenbeck_noise_drifts_and_begins_anew_with_an_episode():
    algorithm = make("Pendulum-v1", ["ddpg"]).agents[0].algorithm
    cfg = algorithm.pure.cfg
    carry, normal = np.array([[1.0], [2.0]], np.float32), np.array([[0.5], [-1.0]], np.float32)
    after, added = algorithm.pure._draw_noise(Acting(carry, normal), np.float32(0.1))
    drifted = after.carry
    # x - 0.15 x 0.01 x + 0.1 x sqrt(0.01) x normal
    assert (cfg.noise_decay, cfg.noise_time_step) == (0.15, 0.01)
    np.testing.assert_allclose(drifted, [[0.9985 + 0.005], [1.997 - 0.01]], rtol=1e-6)
    assert added is drifted
    actor = algorithm.init_actor(2, 0)._replace(carry=drifted)
    np.testing.assert_array_equal(algorithm.reset_actor(actor, np.array([True, False])).carry, [[0.0], drifted[1]])


class Pair(NamedTuple):
    fast: Any
    slow: Any


@pytest.mark.parametrize("form", [lambda fast, slow: (fast, slow), Pair, lambda fast, slow: {"a": fast, "b": {"c": slow}}])
def test_what_an_actor_carries_is_kept_whatever_its_form(form, tmp_path):
    """Arrays of one shape and of several, of several dtypes: each as it was."""
    fast, slow = np.array([[1.0], [2.0]], np.float32), np.array([[3], [4]], np.int32)
    for second in (slow, np.array([5, 6], np.int8)):
        carry = form(fast, second)
        trainer = make("Pendulum-v1", ["ddpg"])
        agent, other = trainer.agents[0], make("Pendulum-v1", ["ddpg"]).agents[0]
        other.algorithm.pure.init_carry = lambda copies, carry=carry: jax.tree.map(np.zeros_like, carry)
        agent.actor = agent.actor._replace(carry=jax.tree.map(jax.numpy.asarray, carry))
        agent.save(tmp_path / "agent")
        other.load(tmp_path / "agent")
        assert jax.tree.structure(other.actor.carry) == jax.tree.structure(carry)
        for kept, given in zip(jax.tree.leaves(other.actor.carry), jax.tree.leaves(carry), strict=True):
            np.testing.assert_array_equal(kept, given)
            assert kept.dtype == given.dtype


def test_one_array_that_an_actor_carries_is_kept_as_ever():
    """As itself; a pair of like shapes in an older checkpoint is one array, pair first."""
    algorithm = make("Pendulum-v1", ["ddpg"]).agents[0].algorithm
    actor = algorithm.init_actor(2, 0)
    assert isinstance(algorithm.actor_snapshot(actor)["noise"], np.ndarray)
    merged = {**algorithm.actor_snapshot(actor), "noise": np.array([[[1.0], [2.0]], [[3.0], [4.0]]])}
    algorithm.pure.init_carry = lambda copies: (np.zeros((2, 1)), np.zeros((2, 1)))
    fast, slow = algorithm.restore_actor(merged).carry
    assert (fast.tolist(), slow.tolist()) == ([[1.0], [2.0]], [[3.0], [4.0]])


# -- from the command line ---------------------------------------------------------------------------------------------

RUN = (
    "train", "backend=jax", "env.num_envs=5", "agents=[dqn,sac]", "agents_scope=[2,3]", "trainer.timesteps=40",
    "agents.dqn.learning_starts=10", "agents.dqn.batch_size=8", "agents.dqn.memory_size=60", "agents.dqn.network.sizes=[8]",
    "agents.sac.learning_starts=15", "agents.sac.batch_size=8", "agents.sac.memory_size=60", "agents.sac.update_interval=5",
    "agents.sac.network.policy_sizes=[8]", "agents.sac.network.critic_sizes=[8]", "evaluation.interval=20",
    "evaluation.episodes=2", "seed=3", "checkpoints.memory=true",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["partitioned", "shared"])
def test_parallel_is_sequential(placement, here):
    assert call(*RUN, "run.dir=sequential").status == 0
    result = call(*RUN, "trainer=parallel", f"trainer.placement={placement}", "run.dir=parallel")
    assert result.status == 0, result.err
    assert all(verify(latest(here / name))["exact_resume"] for name in ("sequential", "parallel"))
    assert everything(here / "sequential") == everything(here / "parallel")


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_and_its_agents_are_evaluated_in_torch(at, here):  # noqa: F811
    assert call(*RUN, "run.dir=whole").status == 0
    at(27, send("SIGTERM"))
    assert call(*RUN, "run.dir=run", "trainer=step").status == 143
    at(-1, None)
    result = call("train", "resume=run")
    assert result.status == 0, result.err
    numbers = everything(here / "run")
    assert numbers == everything(here / "whole") and len(numbers) > 50
    assert summary(here / "run")["agents"] == summary(here / "whole")["agents"]
    found = [call("eval", "run", f"backend={name}", "episodes=4") for name in ("jax", "torch")]
    assert [result.status for result in found] == [0, 0], found[1].err
    tables = [[line for line in result.out.splitlines() if line.startswith("│")] for result in found]
    assert tables[0] == tables[1] and len(tables[0]) >= 2
