"""PPO against numbers worked out by hand and against an implementation of its own made of torch's modules, and what it keeps."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Progress, Transition
from rltrain.trainers import Trainer

COPIES, OBSERVATION_SIZE = 3, 4
SPACES = {"discrete": Discrete(3, start=2), "continuous": Box(-2.0, 2.0, (2,), np.float32)}
SMALL = {
    "rollout_length": 7, "epochs": 3, "minibatches": 4, "learning_rate": 0.01,
    "network": {"policy_sizes": [8, 6], "value_sizes": [5]},
}  # fmt: skip


def make(space: str = "discrete", *, num_envs: int = COPIES, seed: int = 0, index: int = 0, **cfg: Any) -> PPO:
    observations = Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
    return PPO(observations, SPACES[space], num_envs=num_envs, cfg={**SMALL, **cfg}, seed=seed, index=index)


class World:
    """Rows that depend on nothing but a seed: observations far from mean 0 and variance 1, ends of both kinds, dummy rows."""

    def __init__(self, seed: int = 0, *, num_envs: int = COPIES, dummy_rows: bool = False, garbage: float = 0.0) -> None:
        self.generator = np.random.default_rng(seed)
        self.num_envs, self.dummy_rows, self.garbage = num_envs, dummy_rows, garbage
        self.observations = self.observe()
        self.done = np.zeros(num_envs, bool)

    def observe(self) -> np.ndarray:
        shape = (self.num_envs, OBSERVATION_SIZE)
        return (3 * self.generator.normal(size=shape) + [0, 5, -20, 100]).astype(np.float32)

    def turn(self, algorithm: PPO, actor: Any) -> Transition:
        """Act, and return what is to be recorded."""
        valid = ~self.done if self.dummy_rows and self.done.any() else None
        observations = self.observations
        if valid is not None:
            observations = np.where(valid[:, None], observations, np.float32(self.garbage))
        _, actions, outputs = algorithm.act(actor, torch.from_numpy(observations), explore=True, progress=Progress(0, 1))
        following, rewards = self.observe(), self.generator.normal(size=self.num_envs).astype(np.float32) + 1
        terminated, truncated = self.generator.random((2, self.num_envs)) < 0.15
        if valid is not None:
            rewards = np.where(valid, rewards, np.float32(self.garbage))
            terminated, truncated = terminated & valid, truncated & valid
        self.done = terminated | truncated
        transition = Transition(
            observations, None, actions.numpy(), following, None, rewards, terminated, truncated, valid, {},
            {key: value.numpy() for key, value in outputs.items()},
        )  # fmt: skip
        self.observations = np.where(self.done[:, None], self.observe(), following)
        return transition

    def rollout(self, algorithm: PPO, actor: Any) -> list[Transition]:
        """Record a full rollout and return its rows."""
        rows = [self.turn(algorithm, actor) for _ in range(algorithm.cfg.rollout_length)]
        for row in rows:
            algorithm.record(row)
        return rows


def actor_of(algorithm: PPO) -> Any:
    return algorithm.init_actor(algorithm.num_envs, algorithm.actor_seed)


def update(algorithm: PPO) -> dict[str, float]:
    return algorithm.update(Progress(0, 1))


def train(algorithm: PPO, world: World, updates: int) -> None:
    actor = actor_of(algorithm)
    for _ in range(updates):
        world.rollout(algorithm, actor)
        update(algorithm)


def watch(algorithm: PPO, method: str) -> list[Any]:
    """Let the list returned collect what `method` is called with from now on."""
    calls, original = [], getattr(algorithm, method)

    def called(*args: Any) -> Any:
        calls.append(args[0])
        return original(*args)

    setattr(algorithm, method, called)
    return calls


def assert_equal(one: Any, other: Any) -> None:
    """Compare two snapshots to the bit."""
    np.testing.assert_equal(one, other)


# -- an implementation of its own ------------------------------------------------------------------------------------------


class Naive:
    """PPO as one would write it down: nn.Sequential, torch.distributions, autograd, a loop over time for the advantages."""

    def __init__(self, algorithm: PPO) -> None:
        self.cfg, self.space = algorithm.cfg, SPACES["discrete" if algorithm.distribution.action_shape == () else "continuous"]
        snapshot = algorithm.snapshot()
        parameters = {name: torch.tensor(array) for name, array in snapshot["policy"]["parameters"].items()}
        self.policy, self.value = self.network("policy", parameters), self.network("value", parameters)
        self.log_std = nn.Parameter(parameters["policy.log_std"].clone()) if "policy.log_std" in parameters else None
        learned = [*self.policy.parameters(), *self.value.parameters(), *([] if self.log_std is None else [self.log_std])]
        self.learned = learned
        self.optimizer = torch.optim.Adam(learned, lr=self.cfg.learning_rate, eps=1e-5)
        self.generator = torch.Generator()
        self.generator.set_state(torch.tensor(snapshot["training"]["generator"]))
        self.seen, self.targets = torch.zeros(0, OBSERVATION_SIZE), torch.zeros(0)

    @staticmethod
    def network(name: str, parameters: dict[str, torch.Tensor]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(sum(key.startswith(f"{name}.weights") for key in parameters)):
            weight = parameters[f"{name}.weights.{i}"]
            layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.Tanh()]
            layers[-2].weight.data, layers[-2].bias.data = weight.clone(), parameters[f"{name}.biases.{i}"].clone()
        return nn.Sequential(*layers[:-1])

    def parameters(self) -> dict[str, np.ndarray]:
        named = {}
        for name in ("policy", "value"):
            linears = [layer for layer in getattr(self, name) if isinstance(layer, nn.Linear)]
            named |= {f"{name}.weights.{i}": layer.weight for i, layer in enumerate(linears)}
            named |= {f"{name}.biases.{i}": layer.bias for i, layer in enumerate(linears)}
        named |= {} if self.log_std is None else {"policy.log_std": self.log_std}
        return {name: parameter.detach().numpy() for name, parameter in named.items()}

    def inputs(self, observations: torch.Tensor) -> torch.Tensor:
        if not self.cfg.normalize_observations:
            return observations
        mean, std = self.seen.mean(0), (self.seen.var(0, correction=0) + 1e-8).sqrt()
        return ((observations - mean) / std).clamp(-10, 10)

    def distribution(self, inputs: torch.Tensor) -> torch.distributions.Distribution:
        logits = self.policy(inputs)
        if self.log_std is None:
            return torch.distributions.Categorical(logits=logits)
        return torch.distributions.Independent(torch.distributions.Normal(logits, self.log_std.exp()), 1)

    def values(self, inputs: torch.Tensor) -> torch.Tensor:
        values = self.value(inputs).squeeze(-1)
        if self.cfg.normalize_values and len(self.targets):
            values = values * (self.targets.var(correction=0) + 1e-8).sqrt() + self.targets.mean()
        return values

    def update(self, rows: list[Transition]) -> None:
        cfg = self.cfg
        observations, following, rewards, terminated, truncated = (
            torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
            for name in ("observations", "next_observations", "rewards", "terminated", "truncated")
        )
        happened = np.stack([np.ones(len(row.rewards), bool) if row.valid is None else row.valid for row in rows])
        valid = torch.from_numpy(happened).flatten()
        actions = torch.from_numpy(np.stack([row.outputs["actions"] for row in rows])).flatten(0, 1)
        if cfg.normalize_observations and not len(self.seen):
            self.seen = observations.flatten(0, 1)[valid]
            return
        with torch.no_grad():
            inputs = self.inputs(observations.flatten(0, 1))
            old_log_probs = self.distribution(inputs).log_prob(actions)
            old_values = self.values(inputs).view(rewards.shape)
            next_values = self.values(self.inputs(following.flatten(0, 1))).view(rewards.shape)
            advantages, running = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
            for t in reversed(range(len(rows))):
                for n in range(rewards.shape[1]):
                    delta = rewards[t, n] - old_values[t, n]
                    delta += 0 if terminated[t, n] else cfg.discount_factor * next_values[t, n]
                    over = terminated[t, n] or truncated[t, n]
                    running[n] = delta + (0 if over else cfg.discount_factor * cfg.gae_lambda * running[n])
                advantages[t] = running
            returns, advantages, old_values = (advantages + old_values).flatten(), advantages.flatten(), old_values.flatten()
            chosen = advantages[valid]
            advantages = (advantages - chosen.mean()) / (chosen.std(correction=0) + 1e-8)
            if cfg.normalize_values:
                self.targets = torch.cat((self.targets, returns[valid]))
                mean, std = self.targets.mean(), (self.targets.var(correction=0) + 1e-8).sqrt()
                returns, old_values = (returns - mean) / std, (old_values - mean) / std
        for _ in range(cfg.epochs):
            for part in torch.randperm(len(inputs), generator=self.generator).tensor_split(cfg.minibatches):
                part = part[valid[part]]
                distribution, values = self.distribution(inputs[part]), self.value(inputs[part]).squeeze(-1)
                ratios = (distribution.log_prob(actions[part]) - old_log_probs[part]).exp()
                clipped = ratios.clamp(1 - cfg.ratio_clip, 1 + cfg.ratio_clip)
                policy_loss = -torch.min(ratios * advantages[part], clipped * advantages[part]).mean()
                errors = (values - returns[part]) ** 2
                if cfg.value_clip is not None:
                    near = old_values[part] + (values - old_values[part]).clamp(-cfg.value_clip, cfg.value_clip)
                    errors = torch.max(errors, (near - returns[part]) ** 2)
                loss = policy_loss + cfg.value_scale * errors.mean() - cfg.entropy_scale * distribution.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                if cfg.grad_norm_clip:
                    nn.utils.clip_grad_norm_(self.learned, cfg.grad_norm_clip)
                self.optimizer.step()
        if cfg.normalize_observations:
            self.seen = torch.cat((self.seen, observations.flatten(0, 1)[valid]))


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize(
    "cfg",
    [
        {},
        {"value_clip": 0.1, "entropy_scale": 0.1, "grad_norm_clip": 0.0},
        {"normalize_observations": True, "normalize_values": True},
        {"ratio_clip": 0.02, "learning_rate": 0.03, "gae_lambda": 0.5, "discount_factor": 0.5},
    ],
    ids=["plain", "value clip, entropy, no limit", "normalised", "much clipped"],
)
@pytest.mark.parametrize("dummy_rows", [False, True], ids=["all rows", "dummy rows"])
def test_updates_equal_an_implementation_of_its_own(space, cfg, dummy_rows):
    # observations of standard size, or the first layer saturates and hides differences
    algorithm, world = make(space, **cfg), World(dummy_rows=dummy_rows)
    if "normalize_observations" not in cfg:
        world.observe = lambda: world.generator.normal(size=(COPIES, OBSERVATION_SIZE)).astype(np.float32)
        world.observations = world.observe()
    naive, actor = Naive(algorithm), actor_of(algorithm)
    before = algorithm.learners["actor_critic"].parameters.snapshot()
    for _ in range(3 if cfg.get("normalize_observations") else 1):
        rows = world.rollout(algorithm, actor)
        update(algorithm)
        naive.update(rows)
    after, expected = algorithm.learners["actor_critic"].parameters.snapshot(), naive.parameters()
    assert after.keys() == expected.keys()
    for name in after:
        np.testing.assert_allclose(after[name], expected[name], atol=1e-5, err_msg=name)
        assert abs(after[name] - before[name]).max() > 1e-3, name  # it has learned meanwhile


def test_first_update_by_hand():
    # Both networks say 0 to everything: two actions of probability 1/2, value 0. gamma = lambda = 1/2, the second row terminates:
    #   delta = 1, 2;  A = 1 + 2/4, 2 = 1.5, 2 = R;  standardised: mean 1.75, deviation 0.25: A = -1, 1
    #   value loss (1.5^2 + 2^2) / 2 = 3.125, its slope in the last bias 1/2 x 2 x (0 - 1.75) = -1.75
    #   the actions are 0 and 1: slope in logit 0: -((-1)(1 - 1/2) + (1)(0 - 1/2)) / 2 = 1/2, in logit 1: -1/2;
    #   the entropy's slope is 0, for it is at its top
    #   norm of the gradient: sqrt(1.75^2 + 1/4 + 1/4) = 1.887459
    cfg = {"rollout_length": 2, "epochs": 1, "minibatches": 1, "discount_factor": 0.5, "gae_lambda": 0.5, "learning_rate": 0.01}
    network = {"policy_sizes": [2], "value_sizes": [2]}
    algorithm = PPO(Box(-1, 1, (1,)), Discrete(2), num_envs=1, cfg={**cfg, "network": network, "value_scale": 0.5})
    snapshot = algorithm.snapshot()
    for array in snapshot["policy"]["parameters"].values():
        array[:] = 0
    algorithm.restore(snapshot)
    for t in range(2):
        zeros, flags = np.zeros((1, 1), np.float32), np.array([t == 1])
        action, reward = np.array([t]), np.array([1 + t], np.float32)
        algorithm.record(
            Transition(zeros, None, action, zeros, None, reward, flags, np.array([False]), None, {}, {"actions": action})
        )
    metrics = update(algorithm)
    expected = {
        "loss/policy": 0.0, "loss/value": 3.125, "policy/entropy": np.log(2), "policy/approx_kl": 0.0,
        "policy/clip_fraction": 0.0, "policy/grad_norm": 1.887459, "value/explained_variance": 0.0, "policy/learning_rate": 0.01,
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    # Adam's first step has the learning rate's size, against the gradient
    parameters = algorithm.learners["actor_critic"].parameters.snapshot()
    assert parameters["value.biases.1"].tolist() == pytest.approx([0.01], rel=1e-3)
    assert parameters["policy.biases.1"].tolist() == pytest.approx([-0.01, 0.01], rel=1e-3)
    assert not parameters["policy.weights.0"].any() and not parameters["value.biases.0"].any()


# -- normalisation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("normalize", [False, True])
def test_ratio_is_one_before_the_first_step_of_every_update(space, normalize):
    algorithm, world = make(space, normalize_observations=normalize, normalize_values=normalize), World()
    actor, drawn = actor_of(algorithm), []
    sample = algorithm.distribution.sample

    def remember(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        actions = sample(logits, generator)
        drawn.append(algorithm.distribution.log_prob(logits, actions))
        return actions

    algorithm.distribution.sample = remember
    ratios, improve = [], algorithm.improve

    def compare(batch: Any, progress: Progress) -> dict[str, float]:
        with torch.no_grad():
            now = algorithm.distribution.log_prob(algorithm.networks.logits(batch.inputs), batch.actions)
        ratios.append(float((now - torch.cat(drawn)).abs().max()))
        assert torch.allclose(batch.log_probs, torch.cat(drawn), atol=1e-5)
        return improve(batch, progress)

    algorithm.improve = compare
    for _ in range(5):
        drawn.clear()
        world.rollout(algorithm, actor)
        update(algorithm)
    assert len(ratios) == (4 if normalize else 5)  # normalising, the first rollout is a warm-up
    assert max(ratios) < 1e-5


def test_observation_statistics_are_frozen_from_the_first_act_to_the_last_epoch():
    algorithm, world = make(normalize_observations=True), World()
    actor, seen = actor_of(algorithm), []
    for iteration in range(3):
        before = copy.deepcopy(algorithm.snapshot()["policy"]["observation_moments"])
        during = []
        differentiate = algorithm.descend

        def spy(*args: Any, during: list = during, differentiate: Any = differentiate) -> Any:
            during.append(algorithm.snapshot()["policy"]["observation_moments"])
            return differentiate(*args)

        algorithm.descend = spy
        for _ in range(7):
            row = world.turn(algorithm, actor)
            algorithm.record(row)
            seen.append(row.observations)
            during.append(algorithm.snapshot()["policy"]["observation_moments"])
        update(algorithm)
        algorithm.descend = differentiate
        assert len(during) == 7 + (12 if iteration else 0)
        for moments in during:
            assert_equal(moments, before)
        rows, after = np.concatenate(seen), algorithm.snapshot()["policy"]["observation_moments"]
        assert after["count"] == len(rows) == 21 * (iteration + 1)
        np.testing.assert_allclose(after["mean"], rows.mean(0), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(after["variance"], rows.var(0), rtol=1e-3)


def test_first_rollout_only_feeds_the_observation_statistics():
    algorithm, world = make(normalize_observations=True), World()
    actor = actor_of(algorithm)
    before = algorithm.snapshot()
    world.rollout(algorithm, actor)
    assert update(algorithm) == {}
    after = algorithm.snapshot()
    assert_equal(after["policy"]["parameters"], before["policy"]["parameters"])
    assert_equal(after["policy"]["value_moments"], before["policy"]["value_moments"])
    assert_equal(after["training"], before["training"])
    world.rollout(algorithm, actor)
    assert "loss/policy" in update(algorithm)
    assert (
        algorithm.learners["actor_critic"].parameters.snapshot()["value.biases.1"]
        != before["policy"]["parameters"]["value.biases.1"]
    ).all()


def test_dummy_rows_feed_no_statistics():
    algorithm, world = make(normalize_observations=True, normalize_values=True), World(dummy_rows=True, garbage=1e6)
    actor, seen = actor_of(algorithm), []
    batches = watch(algorithm, "improve")
    for _ in range(3):
        for row in world.rollout(algorithm, actor):
            seen.append(row.observations if row.valid is None else row.observations[row.valid])
        update(algorithm)
    rows, moments = np.concatenate(seen), algorithm.snapshot()["policy"]
    assert moments["observation_moments"]["count"] == len(rows) < 63
    np.testing.assert_allclose(moments["observation_moments"]["mean"], rows.mean(0), rtol=1e-4, atol=1e-3)
    assert moments["value_moments"]["count"] == sum(float(batch.weights.sum()) for batch in batches)
    assert abs(moments["value_moments"]["mean"]) < 20


def test_values_are_normalised_in_the_statistics_that_hold_the_rollouts_own_returns():
    algorithm, world = make(normalize_values=True, gae_lambda=1.0), World()
    actor, targets = actor_of(algorithm), []
    batches = watch(algorithm, "improve")
    for _ in range(4):
        mean, scale = (0.0, 1.0) if not targets else (np.concatenate(targets).mean(), np.concatenate(targets).std())
        rows = world.rollout(algorithm, actor)
        with torch.no_grad():
            raw, following = (
                [mean + scale * algorithm.networks.values(torch.from_numpy(getattr(row, name))).numpy() for row in rows]
                for name in ("observations", "next_observations")
            )
        update(algorithm)
        # with lambda = 1 a return is the discounted sum of rewards, cut at an end, plus the value of the successor where cut off
        returns, running = np.zeros((7, COPIES)), following[-1]
        for t in reversed(range(7)):
            running = np.where(rows[t].truncated, following[t], running)
            running = rows[t].rewards + 0.99 * np.where(rows[t].terminated, 0.0, running)
            returns[t] = running
        targets.append(returns.reshape(-1))
        mean, scale = np.concatenate(targets).mean(), np.concatenate(targets).std()
        np.testing.assert_allclose(batches[-1].returns.numpy(), (returns.reshape(-1) - mean) / scale, atol=1e-3)
        np.testing.assert_allclose(batches[-1].values.numpy(), (np.concatenate(raw) - mean) / scale, atol=1e-3)
        moments = algorithm.snapshot()["policy"]["value_moments"]
        assert moments["count"] == sum(map(len, targets))
        assert [float(moments["mean"]), float(moments["variance"])] == pytest.approx([mean, scale**2], rel=1e-3)


# -- minibatches -------------------------------------------------------------------------------------------------------------


def test_every_row_is_used_once_an_epoch_and_remainders_are_spread():
    algorithm, world = make(rollout_length=7, minibatches=4, epochs=3), World()
    parts = watch(algorithm, "_differentiate_loss")
    world.rollout(algorithm, actor_of(algorithm))
    update(algorithm)
    assert [len(part.inputs) for part in parts] == [6, 5, 5, 5] * 3  # 21 rows in 4 parts
    epochs = [torch.cat([part.log_probs for part in parts[i : i + 4]]) for i in (0, 4, 8)]
    assert all(torch.equal(epoch.sort().values, epochs[0].sort().values) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_rows_stay_whole_when_they_are_shuffled():
    algorithm, world = make("continuous"), World()
    batches, parts = watch(algorithm, "improve"), watch(algorithm, "_differentiate_loss")
    world.rollout(algorithm, actor_of(algorithm))
    update(algorithm)

    def rows(batch: Any) -> set[tuple]:
        columns = [getattr(batch, name) for name in ("inputs", "actions", "log_probs", "advantages", "returns", "values")]
        return {tuple(row.tolist()) for row in torch.cat([column.reshape(len(column), -1) for column in columns], 1)}

    assert set().union(*(rows(part) for part in parts[:4])) == rows(batches[0])


def test_as_many_minibatches_as_rows():
    algorithm, world = make(minibatches=21, epochs=1), World()
    world.rollout(algorithm, actor_of(algorithm))
    metrics = update(algorithm)
    assert all(np.isfinite(value) for value in metrics.values())


# -- rows that did not happen --------------------------------------------------------------------------------------------------


def test_what_stands_in_a_row_that_did_not_happen_changes_nothing():
    results = []
    for garbage in (0.0, 37.0):
        algorithm = make(normalize_observations=True, normalize_values=True, normalize_rewards=True)
        train(algorithm, World(dummy_rows=True, garbage=garbage), 4)
        results.append(algorithm.snapshot())
    results[1]["training"]["memory"] = results[0]["training"]["memory"]  # there the garbage lies still
    for one, other in zip(*(result["policy"]["parameters"].values() for result in results), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert_equal(results[0]["policy"]["observation_moments"], results[1]["policy"]["observation_moments"])
    for name in ("reward_moments", "running_returns"):
        assert_equal(results[0]["training"][name], results[1]["training"][name])


# -- acting --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
def test_not_exploring_is_deterministic_and_draws_nothing(space):
    algorithm, observations = make(space), torch.randn(COPIES, OBSERVATION_SIZE)
    actor = actor_of(algorithm)
    before = algorithm.actor_snapshot(actor)
    _, first, outputs = algorithm.act(actor, observations, explore=False, progress=Progress(0, 1))
    _, second, _ = algorithm.act(actor, observations, explore=False, progress=Progress(500, 1000))
    assert torch.equal(first, second) and set(outputs) == {"logits"}
    assert_equal(algorithm.actor_snapshot(actor), before)
    with torch.no_grad():
        logits = algorithm.networks.logits(observations)
    expected = logits.argmax(-1) + 2 if space == "discrete" else (2 * logits).clamp(-2, 2)
    assert torch.allclose(first, expected)


@pytest.mark.parametrize("space", list(SPACES))
def test_actions_lie_in_the_space(space):
    algorithm = make(space)
    observations = torch.randn(COPIES, OBSERVATION_SIZE)
    _, actions, _ = algorithm.act(actor_of(algorithm), observations, explore=True, progress=Progress(0, 1))
    assert all(SPACES[space].contains(action) for action in actions.numpy())


def draws(algorithm: PPO, actor: Any) -> bytes:
    observations = torch.zeros(COPIES, OBSERVATION_SIZE)
    acted = [algorithm.act(actor, observations, explore=True, progress=Progress(t, 20))[1] for t in range(20)]
    return torch.stack(acted).numpy().tobytes()


def test_streams_depend_on_seed_and_index_only():
    streams = {}
    for seed, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        algorithm = make(seed=seed, index=index)
        streams[seed, index] = draws(algorithm, actor_of(algorithm))
    assert len(set(streams.values())) == 4
    torch.manual_seed(123)  # a global generator must not matter
    np.random.seed(123)
    algorithm = make(seed=1, index=1)
    assert draws(algorithm, actor_of(algorithm)) == streams[1, 1]


def test_one_actors_draws_do_not_move_another():
    algorithm = make()
    alone = draws(algorithm, actor_of(algorithm))
    training, evaluation = actor_of(algorithm), algorithm.init_actor(5, 99)
    algorithm.act(evaluation, torch.zeros(5, OBSERVATION_SIZE), explore=True, progress=Progress(0, 1))
    assert draws(algorithm, training) == alone


def test_initial_parameters_depend_on_seed_and_index_only():
    def weights(seed: int, index: int) -> bytes:
        return make(seed=seed, index=index).snapshot()["policy"]["parameters"]["policy.weights.0"].tobytes()

    assert len({weights(0, 0), weights(0, 1), weights(1, 0), weights(1, 1)}) == 4
    torch.manual_seed(123)
    assert weights(1, 1) == weights(1, 1)


# -- keeping -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
def test_restored_goes_on_to_the_bit(space):
    cfg = {"normalize_observations": True, "normalize_values": True, "normalize_rewards": True}
    algorithm, world = make(space, **cfg), World(3)
    actor = actor_of(algorithm)
    for _ in range(3):
        world.rollout(algorithm, actor)
        update(algorithm)
    for _ in range(4):  # into the next rollout
        algorithm.record(world.turn(algorithm, actor))
    snapshot, acting = copy.deepcopy((algorithm.snapshot(), algorithm.actor_snapshot(actor)))
    other = make(space, seed=99, **cfg)
    train(other, World(7), 2)
    other.restore(snapshot)
    other_world, other_actor = copy.deepcopy(world), other.restore_actor(acting)
    for one, its_world, its_actor in ((algorithm, world, actor), (other, other_world, other_actor)):
        for _ in range(3):
            one.record(its_world.turn(one, its_actor))
        update(one)
        its_world.rollout(one, its_actor)
        update(one)
    assert_equal(other.snapshot(), algorithm.snapshot())
    assert_equal(other.actor_snapshot(other_actor), algorithm.actor_snapshot(actor))


def test_snapshot_does_not_change_as_learning_goes_on():
    algorithm, world = make(normalize_observations=True, normalize_values=True), World()
    train(algorithm, world, 2)
    snapshot = algorithm.snapshot()
    kept = copy.deepcopy(snapshot)
    train(algorithm, world, 2)
    assert_equal(snapshot, kept)


def test_policy_alone_restores_what_acting_needs():
    algorithm = make(normalize_observations=True)
    train(algorithm, World(), 3)
    other = make(seed=5, normalize_observations=True)
    other.restore({"policy": algorithm.snapshot()["policy"]})
    observations = torch.from_numpy(World(9).observe())
    acted = [one.act(None, observations, explore=False, progress=Progress(0, 1))[1] for one in (algorithm, other)]
    assert torch.equal(*acted)


def test_evaluation_changes_nothing():
    cfg = {"id": "CartPole-v1", "num_envs": COPIES}
    env, evaluation_env = GymnasiumEnv(cfg, seed=0), GymnasiumEnv(cfg, seed=0, role=1)
    settings = {"rollout_length": 16, "normalize_observations": True, "normalize_values": True}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=COPIES, cfg=settings))
    trainer = Trainer(env, agent, cfg={"timesteps": 40, "disable_progressbar": True, "stochastic_evaluation": True},
                      evaluation_env=evaluation_env)  # fmt: skip
    trainer.train()  # ends within a rollout
    before = copy.deepcopy(trainer.snapshot()[0])
    results = trainer.eval(episodes=5)
    after = trainer.snapshot()[0]
    before["trainer"].pop("training_seconds"), after["trainer"].pop("training_seconds")
    assert len(results["agent"]["returns"]) == 5 and before["trainer"]["env"] is not None
    assert_equal(after, before)


def test_minibatches_that_would_be_empty_are_refused():
    from rltrain.errors import ConfigError

    algorithm, world = make(minibatches=22), World()
    row = world.turn(algorithm, actor_of(algorithm))  # acting is no fault: a policy may be evaluated on fewer copies
    with pytest.raises(ConfigError, match=r"agents.ppo.minibatches=22: more than rollout_length=7 x 3 copies = 21 rows"):
        algorithm.record(row)


def test_reads_discrete_observations_and_matrices():
    for space, rows in ((Discrete(3, start=1), np.array([1, 3])), (Box(-1, 1, (2, 2)), np.zeros((2, 2, 2), np.float32))):
        cfg = {**SMALL, "rollout_length": 2, "minibatches": 2, "normalize_observations": True}
        algorithm = PPO(space, Discrete(2), num_envs=2, cfg=cfg)
        actor, flags = actor_of(algorithm), np.zeros(2, bool)
        for _ in range(4):
            _, actions, outputs = algorithm.act(actor, torch.from_numpy(rows), explore=True, progress=Progress(0, 1))
            rewards, outputs = np.ones(2, np.float32), {key: value.numpy() for key, value in outputs.items()}
            algorithm.record(Transition(rows, None, actions.numpy(), rows, None, rewards, flags, flags, None, {}, outputs))
            if algorithm.memory.position == 2:
                metrics = update(algorithm)
        assert metrics["loss/value"] > 0
