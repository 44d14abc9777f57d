"""Privileged states: the critic learns from them, the policy never sees them; true successors, frozen moments, several agents."""

import functools

import numpy as np
import pytest
import torch
from resumed import kept, resumed
from space_envs import Context, Game, Levels

from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import CheckpointError, ConfigError
from rltrain.structures import Progress
from rltrain.trainers import SequentialTrainer

SILENT = {"disable_progressbar": True, "close_environment_at_exit": False}
NETWORK = {"policy_sizes": [16], "value_sizes": [16]}
LEARNING = {
    PPO: {"rollout_length": 16, "minibatches": 2, "learning_rate": 0.01, "entropy_scale": 0.0, "network": NETWORK},
    A2C: {"rollout_length": 8, "optimizer": "adam", "learning_rate": 0.01, "entropy_scale": 0.0, "network": NETWORK},
}


def start(kind, make, num_envs: int, timesteps: int, cfg: dict, *, seed: int = 0) -> SequentialTrainer:
    """Return a trainer of one agent on copies of `make()`."""
    env = GymnasiumEnv({"num_envs": num_envs}, seed=seed, make=make)
    algorithm = kind(
        env.observation_space, env.action_space, state_space=env.state_space, num_envs=num_envs, cfg=cfg, seed=seed
    )  # fmt: skip
    return SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": timesteps, **SILENT})


def watch_batches(algorithm) -> list:
    """Return the list that each update's batch is put into."""
    batches, improve = [], algorithm.improve
    algorithm.improve = lambda batch, progress: (batches.append(batch), improve(batch, progress))[1]
    return batches


# -- what states are for ---------------------------------------------------------------------------------------------------


def learn(kind, seed: int, updates: int, **cfg) -> tuple[float, float, float]:
    """Return explained variance and value loss of the last update, and how likely the right actions are."""
    cfg = {**LEARNING[kind], **cfg}
    trainer = start(kind, Context, 8, cfg["rollout_length"] * updates, cfg, seed=seed)
    trainer.train()
    agent = trainer.agents[0]
    with torch.no_grad():
        policy = torch.softmax(agent.algorithm.networks.logits(torch.tensor([[-1.0], [1.0]])), -1)
    return agent.metrics["value/explained_variance"], agent.metrics["loss/value"], float(policy.diagonal().mean())


@pytest.mark.parametrize(("kind", "updates"), [(PPO, 10), (A2C, 60)])
def test_a_critic_with_states_explains_what_the_observation_hides(kind, updates):
    """The hidden coin's variance is 25, the policy's at most 1/4: seen, nearly all is explained, unseen, next to nothing."""
    seeds = range(4)
    with_states, without = (np.array([learn(kind, seed, updates, use_states=use) for seed in seeds]) for use in (True, False))
    assert with_states[:, 0].min() > 0.95 and without[:, 0].max() < 0.1
    assert with_states[:, 1].max() < 1.0 and without[:, 1].min() > 20.0
    # what isn't explained is noise on the advantages: the policy learns later
    assert (1 - with_states[:, 2]).mean() < 0.5 * (1 - without[:, 2]).mean()


def test_normalised_it_is_explained_too():
    explained, _, right = learn(PPO, 0, 15, normalize_observations=True, normalize_values=True)
    assert explained > 0.95 and right > 0.95


def test_the_policy_never_sees_states():
    algorithm = start(PPO, Context, 2, 1, LEARNING[PPO]).agents[0].algorithm
    shapes = {name: parameter.shape for name, parameter in algorithm.learners["actor_critic"].parameters.named.items()}
    assert shapes["policy.weights.0"] == (16, 1) and shapes["value.weights.0"] == (16, 2)
    observations, progress = torch.tensor([[0.3], [-0.4]]), Progress(0, 1)
    drawn = [
        algorithm.act(algorithm.init_actor(2, 7), observations, states, explore=True, progress=progress)[1].tolist()
        for states in (torch.zeros(2, 2), torch.tensor([[5.0, -9.0], [np.nan, np.inf]]), None)
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_states_may_be_left_unread():
    algorithm = start(PPO, Context, 2, 1, {**LEARNING[PPO], "use_states": False}).agents[0].algorithm
    assert algorithm.learners["actor_critic"].parameters.named["value.weights.0"].shape == (16, 1)
    assert "state_moments" not in algorithm.snapshot()["policy"]


def test_one_shared_network_cannot_read_states():
    with pytest.raises(
        ConfigError, match=r"^agents.ppo.network.shared=true: .*only a critic's own network may read; set shared or"
    ):
        start(PPO, Context, 2, 1, {"network": {"shared": True}})
    start(PPO, Context, 2, 1, {"network": {"shared": True}, "use_states": False})


# -- successors ------------------------------------------------------------------------------------------------------------

# V(s) = relu(s) = s, of the state alone
SAME = {"value.weights.0": 1.0, "value.biases.0": 0.0, "value.weights.1": 1.0, "value.biases.1": 0.0}
HALF = {"discount_factor": 0.5, "gae_lambda": 0.0, "rollout_length": 4, "standardize_advantages": False,
        "network": {"policy_sizes": [4], "value_sizes": [1], "activation": "relu"}}  # fmt: skip


class OpaqueLevels(Levels):
    """Can't be saved: a resume begins new episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = object()


def levels(kind, timesteps: int, make=Levels, values=SAME, **cfg) -> SequentialTrainer:
    """Return a trainer on `Levels` whose critic says `values`."""
    epochs = {"epochs": 1, "minibatches": 1} if kind is PPO else {}
    trainer = start(kind, make, 2, timesteps, {**HALF, **epochs, **cfg})
    algorithm = trainer.agents[0].algorithm
    snapshot = algorithm.snapshot()
    for name, value in values.items():
        snapshot["policy"]["parameters"][name][:] = value
    algorithm.restore(snapshot)
    return trainer


@pytest.mark.parametrize("kind", [PPO, A2C])
@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [
        # acted on at 100, 101, 102, cut off at 103, 200; 1 + V(next) / 2 with next = 101, 102, 103, 201.
        # A reset's state instead would give 1 + 200 / 2 = 101 in the third
        (0.0, [51.5, 52.0, 52.5, 101.5]),
        # 1 + 52.5 / 2 = 27.25, 1 + 27.25 / 2 = 14.625
        (1.0, [14.625, 27.25, 52.5, 101.5]),
    ],
)
def test_states_of_truncated_and_last_rows_are_the_true_successors(kind, gae_lambda, expected):
    trainer = levels(kind, 4, gae_lambda=gae_lambda)
    batches = watch_batches(trainer.agents[0].algorithm)
    trainer.train()
    returns = batches[0].returns.view(4, 2)
    assert returns[:, 0].tolist() == returns[:, 1].tolist() == expected
    assert batches[0].values.view(4, 2)[:, 0].tolist() == [100, 101, 102, 200]


def test_ten_is_the_fixed_point_of_the_targets():
    # reward 1, no end but the time limit, gamma 0.9: 10 = 1 + 0.9 x 10
    values = {"value.weights.1": 0.0, "value.biases.1": 10.0}
    trainer = levels(PPO, 8, values=values, discount_factor=0.9, gae_lambda=0.95)
    trainer.train()
    assert trainer.agents[0].metrics["loss/value"] < 1e-9


def test_evaluation_in_the_middle_of_a_rollout_keeps_the_state_that_came_next():
    trainer = levels(PPO, 2)
    batches = watch_batches(trainer.agents[0].algorithm)
    trainer.train()
    trainer.eval(episodes=2)  # plays episode 2 and begins 3; training goes on with 4
    trainer.timesteps = 4
    trainer.train()
    # 100, 101, left for good at 102: 1 + 102 / 2; then 400, 401
    assert batches[0].returns.view(4, 2)[:, 0].tolist() == [51.5, 52.0, 201.5, 202.0]


def test_a_resume_without_the_environments_state_keeps_the_state_that_came_next():
    first, second = levels(PPO, 2, OpaqueLevels), levels(PPO, 4, OpaqueLevels)
    batches = watch_batches(second.agents[0].algorithm)
    first.train()
    parts, exact = first.snapshot()
    assert not exact
    second.restore(parts)
    second.train()
    assert batches[0].returns.view(4, 2)[:, 0].tolist() == [51.5, 52.0, 51.5, 52.0]  # the new environment counts from 100 again


# -- moments ---------------------------------------------------------------------------------------------------------------


def test_moments_of_states_are_frozen_until_the_update_ends():
    trainer = levels(PPO, 9, rollout_length=3, normalize_observations=True)
    algorithm, seen = trainer.agents[0].algorithm, []
    batches, act, improve = watch_batches(algorithm), algorithm.act, algorithm.improve

    def look(function):
        def looking(*args, **how):
            seen.append(tuple(float(number) for number in algorithm.critic_inputs.moments))
            return function(*args, **how)

        return looking

    algorithm.act, algorithm.improve = look(act), look(improve)
    trainer.train()
    # two copies at 100, 101, 102: mean 101, variance 2/3; then at 200, 201, 202: mean 151, variance 50^2 + 2/3
    moments = [(0.0, 1.0, 0.0), (101.0, 2 / 3, 6.0), (151.0, 2500 + 2 / 3, 12.0)]
    expected = [moments[0]] * 3 + [moments[1]] * 4 + [moments[2]] * 4  # the first rollout is followed by no update
    assert np.array(seen) == pytest.approx(np.array(expected), rel=1e-5)
    assert float(algorithm.critic_inputs.moments.mean) == pytest.approx(201.0)
    assert len(batches) == 2
    assert batches[0].critic_inputs.flatten().tolist() == [10.0] * 6  # (200 - 101) / sqrt(2/3), clipped
    at = [(state - 151) / np.sqrt(2500 + 2 / 3) for state in (300, 301, 302) for _ in range(2)]
    assert batches[1].critic_inputs.flatten().tolist() == pytest.approx(at, rel=1e-4)
    assert batches[0].inputs.tolist() == [[0.0]] * 6  # the observation has moments of its own
    frozen = kept(trainer)["agents/agent/policy"]
    trainer.eval(episodes=4)
    np.testing.assert_equal(algorithm.snapshot()["policy"], frozen)


def test_dummy_rows_do_not_count():
    """A native environment's row that only resets."""
    env = GymnasiumEnv(
        {"id": "space_envs:Game-v0", "num_envs": 3, "vectorization": "native", "kwargs": {"states": "given"}}, seed=1
    )
    cfg = {**LEARNING[PPO], "normalize_observations": True}
    algorithm = PPO(env.observation_space, env.action_space, state_space=env.state_space, num_envs=3, cfg=cfg)
    agent = Agent(algorithm)
    SequentialTrainer(env, agent, cfg={"timesteps": 64, **SILENT}).train()
    assert 64 * 2 < agent.statistics.env_steps < 64 * 3
    assert float(algorithm.critic_inputs.moments.count) == agent.statistics.env_steps
    # state = observation here, so their moments agree
    assert torch.equal(algorithm.critic_inputs.moments.mean, algorithm.inputs.moments.mean)


# -- resuming, several agents ------------------------------------------------------------------------------------------------

EVERYTHING = functools.partial(Game, "multi discrete", composite=True, masks="seldom", states="given")
NORMALISED = {"rollout_length": 6, "learning_rate": 0.01, "normalize_observations": True, "network": NETWORK}


@pytest.mark.parametrize("make", [Context, Levels])
@pytest.mark.parametrize("kind", [PPO, A2C])
def test_resumed_equals_uninterrupted(kind, make):
    cfg = {**NORMALISED, "normalize_values": True}
    trainer = resumed(lambda timesteps: start(kind, make, 3, timesteps, cfg), 40, 21)
    assert trainer.agents[0].updates == 6


def test_states_of_another_form_do_not_fit():
    trainer, other = (start(PPO, Context, 2, 8, {**NORMALISED, "use_states": use}) for use in (True, False))
    trainer.train()
    with pytest.raises(
        CheckpointError, match=r"^agents.agent: the checkpoint does not fit this agent: value.weights.0 has shape"
    ):
        other.restore(kept(trainer))


def two_agents(timesteps: int) -> SequentialTrainer:
    env = GymnasiumEnv({"num_envs": 3}, seed=4, make=EVERYTHING)
    return SequentialTrainer(
        env, [agent_of(env, PPO, 1, 0), agent_of(env, A2C, 2, 1)], [1, 2], {"timesteps": timesteps, **SILENT}
    )


def agent_of(env: GymnasiumEnv, kind, num_envs: int, index: int) -> Agent:
    spaces = (env.observation_space, env.action_space)
    algorithm = kind(*spaces, state_space=env.state_space, num_envs=num_envs, cfg=NORMALISED, seed=4, index=index)
    return Agent(algorithm, name=f"agent_{index}")


def test_each_of_two_agents_gets_its_rows_and_no_others():
    """Each learns to the bit what it would alone on its copies; its leaves, states and masks are those of its copies."""
    both = two_agents(50)
    both.train()
    whole = GymnasiumEnv({"num_envs": 3}, seed=4, make=EVERYTHING)
    for index, (kind, size, part) in enumerate(zip((PPO, A2C), (1, 2), whole.partition([1, 2]), strict=True)):
        env = part()
        agent = agent_of(env, kind, size, index)
        alone = SequentialTrainer(env, agent, cfg={"timesteps": 50, **SILENT})
        alone.train()
        for group in ("policy", "training"):
            name = f"agents/agent_{index}/{group}"
            np.testing.assert_equal(kept(both)[name], kept(alone)[name])
        assert agent.updates == 8


def test_two_agents_resumed_equal_uninterrupted_and_are_evaluated():
    trainer = resumed(two_agents, 50, 27)
    results = trainer.eval(episodes=5)
    assert [len(results[name]["returns"]) for name in ("agent_0", "agent_1")] == [5, 5]
