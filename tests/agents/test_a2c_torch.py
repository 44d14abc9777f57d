"""A2C against numbers worked out by hand, against plain autograd, and on probe environments."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.distributions import Categorical, Independent, Normal

from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Progress, Transition
from rltrain.trainers import SequentialTrainer

COPIES, OBSERVATION_SIZE = 3, 4
SPACES = {"discrete": Discrete(3, start=2), "continuous": Box(-2.0, 2.0, (2,), np.float32)}
SMALL = {"rollout_length": 7, "network": {"policy_sizes": [8, 6], "value_sizes": [5]}}


def rmsprop_from_one(parameters: list[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    """Return PyTorch's RMSprop with second moments that begin at 1."""
    optimizer = torch.optim.RMSprop(parameters, lr=rate, alpha=0.99, eps=1e-5)
    for parameter in parameters:
        optimizer.state[parameter] = {"step": torch.tensor(0.0), "square_avg": torch.ones_like(parameter)}
    return optimizer


OPTIMIZERS = {
    "rmsprop": rmsprop_from_one,
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate, eps=1e-5),
}
BEGIN, HALF_WAY, BEYOND = Progress(6, 70), Progress(41, 70), Progress(700, 70)  # rollouts that began at 0, 35 and 694 of 70


def make(space: str = "discrete", *, seed: int = 0, **cfg: Any) -> A2C:
    observations = Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
    return A2C(observations, SPACES[space], num_envs=COPIES, cfg={**SMALL, **cfg}, seed=seed)


def play(algorithm: A2C, seed: int = 0, *, dummy_rows: bool = False, masks: bool = False) -> list[Transition]:
    """Record a full rollout of rows that depend on the seed only, with ends of both kinds; return it."""
    generator, length = np.random.default_rng(seed), algorithm.cfg.rollout_length
    actor = algorithm.init_actor(COPIES, seed)
    observations, others = generator.normal(size=(2, length + 1, COPIES, OBSERVATION_SIZE)).astype(np.float32)
    rows: list[Transition] = []
    for t in range(length):
        terminated, truncated = generator.random((2, COPIES)) < 0.15
        valid = ~(rows[-1].terminated | rows[-1].truncated) if dummy_rows and rows else None
        if valid is not None:
            terminated, truncated = terminated & valid, truncated & valid
        following = np.where((terminated | truncated)[:, None], others[t], observations[t + 1])
        allowed = torch.from_numpy(generator.permuted(np.tile([True, True, False], (COPIES, 1)), axis=1)) if masks else None
        inputs = torch.from_numpy(observations[t])
        _, actions, outputs = algorithm.act(actor, inputs, None, allowed, explore=True, progress=BEGIN)
        rewards = generator.normal(size=COPIES).astype(np.float32) + 1
        rows.append(
            Transition(
                observations[t], None, actions.numpy(), following, None, rewards, terminated, truncated, valid, {},
                {key: value.numpy() for key, value in outputs.items()},
            )
        )  # fmt: skip
        algorithm.record(rows[-1])
    return rows


def learn(progress: Progress = BEGIN, **cfg: Any) -> tuple[A2C, dict[str, float]]:
    """Return an algorithm after one update, and its metrics."""
    algorithm = make(**cfg)
    play(algorithm)
    return algorithm, algorithm.update(progress)


# -- plain autograd ------------------------------------------------------------------------------------------------------------


class Plain:
    """A2C as one would write it down, on copies of an algorithm's parameters."""

    def __init__(self, algorithm: A2C) -> None:
        self.cfg, arrays = algorithm.cfg, algorithm.learners["actor_critic"].parameters.snapshot()
        self.parameters = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
        self.optimizer = OPTIMIZERS[self.cfg.optimizer](list(self.parameters.values()), self.cfg.learning_rate)

    def network(self, name: str, x: torch.Tensor) -> torch.Tensor:
        p, last = self.parameters, sum(key.startswith(f"{name}.weights") for key in self.parameters) - 1
        for i in range(last):
            x = (x @ p[f"{name}.weights.{i}"].T + p[f"{name}.biases.{i}"]).tanh()
        return x @ p[f"{name}.weights.{last}"].T + p[f"{name}.biases.{last}"]

    def distribution(self, inputs: torch.Tensor, masks: torch.Tensor | None) -> torch.distributions.Distribution:
        logits = self.network("policy", inputs)
        if "policy.log_std" in self.parameters:
            return Independent(Normal(logits, self.parameters["policy.log_std"].exp()), 1)
        return Categorical(logits=logits if masks is None else logits - 1e8 * ~masks)

    def update(self, rows: list[Transition]) -> float:
        """Do one update; return the norm of its gradient."""
        cfg, of = self.cfg, lambda name: torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        rewards, terminated, truncated = of("rewards"), of("terminated"), of("truncated")
        valid = torch.from_numpy(np.stack([np.ones(COPIES, bool) if row.valid is None else row.valid for row in rows])).flatten()
        inputs, following = of("observations").flatten(0, 1), of("next_observations").flatten(0, 1)
        outputs = {key: torch.from_numpy(np.stack([row.outputs[key] for row in rows])).flatten(0, 1) for key in rows[0].outputs}
        actions, masks = outputs["actions"], outputs.get("action_masks")
        with torch.no_grad():
            values, next_values = (self.network("value", x).view(rewards.shape) for x in (inputs, following))
            advantages, running = torch.zeros_like(rewards), torch.zeros(COPIES)
            for t in reversed(range(len(rows))):
                deltas = rewards[t] + cfg.discount_factor * next_values[t] * ~terminated[t] - values[t]
                running = deltas + cfg.discount_factor * cfg.gae_lambda * running * ~(terminated[t] | truncated[t])
                advantages[t] = running
            returns, advantages = (advantages + values).flatten(), advantages.flatten()
            if cfg.standardize_advantages:
                chosen = advantages[valid]
                advantages = (advantages - chosen.mean()) / (chosen.std(correction=0) + 1e-8)
        distribution, values = self.distribution(inputs, masks), self.network("value", inputs)[:, 0]
        policy_losses, errors = -distribution.log_prob(actions) * advantages, (values - returns) ** 2
        rows_losses = policy_losses + cfg.value_scale * errors - cfg.entropy_scale * distribution.entropy()
        self.optimizer.zero_grad()
        rows_losses[valid].mean().backward()
        learned = list(self.parameters.values())
        limit = cfg.grad_norm_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(learned, limit)
        self.optimizer.step()
        return float(norm)


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize(
    ("cfg", "world"),
    [
        ({}, {}),
        ({"grad_norm_clip": 0.0, "value_scale": 2.0, "entropy_scale": 0.5}, {}),
        ({"standardize_advantages": True, "gae_lambda": 0.8, "discount_factor": 0.5}, {}),
        ({}, {"dummy_rows": True}),
    ],
    ids=["plain", "no limit, entropy", "standardised, lambda", "dummy rows"],
)
def test_updates_equal_plain_autograd(space, optimizer, cfg, world):
    rate, moved = {"adam": (0.005, 1e-3), "rmsprop": (0.5, 1e-4)}[optimizer]  # from second moments of 1, steps are small at first
    algorithm = make(space, optimizer=optimizer, learning_rate=rate, **cfg)
    plain, before = Plain(algorithm), algorithm.learners["actor_critic"].parameters.snapshot()
    for seed in range(2):  # the second goes on from the optimiser's moments
        rows = play(algorithm, seed, **world)
        norm = algorithm.update(BEGIN)["policy/grad_norm"]
        assert norm == pytest.approx(plain.update(rows), rel=1e-5)
        assert norm > 0.5  # the default limit
    after = algorithm.learners["actor_critic"].parameters.snapshot()
    assert after.keys() == plain.parameters.keys()
    for name, expected in plain.parameters.items():
        np.testing.assert_allclose(after[name], expected.detach().numpy(), rtol=0, atol=1e-5, err_msg=name)
        assert abs(after[name] - before[name]).max() > moved, name


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_an_update_with_masks_equals_plain_autograd(optimizer):
    algorithm = make(optimizer=optimizer, learning_rate=0.005)
    plain = Plain(algorithm)
    rows = play(algorithm, masks=True)
    algorithm.update(BEGIN)
    plain.update(rows)
    for row in rows:
        assert row.outputs["action_masks"][np.arange(COPIES), row.outputs["actions"]].all()
    for name, array in algorithm.learners["actor_critic"].parameters.snapshot().items():
        np.testing.assert_allclose(array, plain.parameters[name].detach().numpy(), rtol=0, atol=1e-5, err_msg=name)


# -- by hand -------------------------------------------------------------------------------------------------------------------


def by_hand(rewards: list[float], ends: dict[int, str], **cfg: Any) -> A2C:
    """Return A2C for one copy with every parameter 0 and a value of 2 everywhere, after recording; gamma = 1/2."""
    settings = {"rollout_length": len(rewards), "discount_factor": 0.5, "network": {"policy_sizes": [2], "value_sizes": [2]}}
    algorithm = A2C(Box(-1, 1, (1,)), Discrete(2), num_envs=1, cfg={**settings, **cfg})
    snapshot = algorithm.snapshot()
    for name, array in snapshot["policy"]["parameters"].items():
        array[:] = 2.0 if name == "value.biases.1" else 0.0
    algorithm.restore(snapshot)
    for t, reward in enumerate(rewards):
        zeros, action, rewarded = np.zeros((1, 1), np.float32), np.array([t % 2]), np.array([reward], np.float32)
        terminated, truncated = (np.array([flag in ends.get(t, "")]) for flag in ("terminated", "truncated"))
        algorithm.record(
            Transition(zeros, None, action, zeros, None, rewarded, terminated, truncated, None, {}, {"actions": action})
        )
    return algorithm


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # the last successor is worth 2:  4 + 2/2 = 5,  2 + 5/2 = 4.5,  1 + 4.5/2 = 3.25
        ({}, [3.25, 4.5, 5.0]),
        # 4,  2 + 4/2 = 4,  1 + 4/2 = 3
        ({2: "terminated"}, [3.0, 4.0, 4.0]),
        # 5 |  2,  1 + 2/2 = 2
        ({1: "terminated"}, [2.0, 2.0, 5.0]),
        # 5 |  2 + 2/2 = 3,  1 + 3/2 = 2.5
        ({1: "truncated"}, [2.5, 3.0, 5.0]),
        ({1: "terminated and truncated"}, [2.0, 2.0, 5.0]),
    ],
)
def test_returns_are_those_of_n_steps(ends, expected):
    algorithm = by_hand([1, 2, 4], ends)
    batch = algorithm._prepare(algorithm.memory.read())
    assert batch.returns.tolist() == pytest.approx(expected, abs=1e-6)
    assert batch.advantages.tolist() == pytest.approx([r - 2 for r in expected], abs=1e-6)  # R - V, as they are


def test_first_update_by_hand():
    # Every value is 2, both actions have probability 1/2; the second row terminates:  R = 1 + 4/2, 4 = 3, 4;  A = 1, 2.
    #   policy loss: -log(1/2) (1 + 2) / 2 = 1.5 log 2;  value loss: (1 + 4) / 2 = 2.5;  entropy log 2, at its top
    #   slope in the value's last bias: 1/2 x 2 x (-1 - 2) / 2 = -1.5
    #   the actions are 0 and 1: slope in logit 0: -(1 x (1 - 1/2) + 2 x (0 - 1/2)) / 2 = 0.25, in logit 1: -0.25
    #   norm: sqrt(1.5^2 + 2 x 0.25^2) = 1.541104; with the limit 0.5 all slopes are multiplied by 0.324443
    algorithm = by_hand([1, 4], {1: "terminated"}, learning_rate=0.001, entropy_scale=0.01)
    metrics = algorithm.update(Progress(1, 20))
    expected = {
        "loss/policy": 1.5 * np.log(2), "loss/value": 2.5, "policy/entropy": np.log(2), "policy/grad_norm": 1.541104,
        "value/explained_variance": 0.0, "policy/learning_rate": 0.001,
    }  # fmt: skip
    assert metrics == pytest.approx(expected, abs=1e-5)
    # RMSProp's first step is rate x g / (sqrt(0.99 + 0.01 g^2) + 1e-5), second moments beginning at 1;
    #   the value's last bias: g = -0.324443 x 1.5 = -0.486665, 0.486665 / (sqrt(0.992368) + 1e-5) = 0.488528
    #   logits: g = 0.324443 x 0.25 = 0.0811108, 0.0811108 / (sqrt(0.990066) + 1e-5) = 0.0815159
    parameters = algorithm.learners["actor_critic"].parameters.snapshot()
    assert parameters["value.biases.1"].tolist() == pytest.approx([2.000488528], abs=2e-7)
    assert parameters["policy.biases.1"].tolist() == pytest.approx([-0.0000815159, 0.0000815159], abs=1e-9)
    assert not parameters["policy.weights.0"].any() and not parameters["value.weights.0"].any()


def test_one_step_per_rollout():
    algorithm = make(optimizer="adam")
    for seed in range(3):
        play(algorithm, seed)
        algorithm.update(BEGIN)
        assert algorithm.learners["actor_critic"].optimizer.steps == seed + 1
    assert algorithm.describe()["gradient_steps_per_update"] == 1


# -- schedules -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["learning_rate", "entropy_scale"])
def test_a_schedule_half_way_to_nothing_equals_half_of_the_setting(setting):
    values = {"learning_rate": 0.01, "entropy_scale": 0.5}
    scheduled, metrics = learn(HALF_WAY, **values, **{f"{setting}_schedule": "linear"})
    constant, expected = learn(HALF_WAY, **{**values, setting: values[setting] / 2})
    np.testing.assert_equal(scheduled.snapshot(), constant.snapshot())
    assert metrics == expected
    whole, _ = learn(HALF_WAY, **values)
    assert not np.allclose(
        whole.learners["actor_critic"].parameters.values.numpy(),
        constant.learners["actor_critic"].parameters.values.numpy(),
        rtol=0,
        atol=1e-7,
    )


def test_schedules_end_at_the_horizon():
    no_bonus, _ = learn(BEYOND, entropy_scale=0.5, entropy_scale_schedule="cosine")
    np.testing.assert_equal(no_bonus.snapshot(), learn(BEYOND, entropy_scale=0.0)[0].snapshot())
    _, metrics = learn(BEYOND, learning_rate=0.01, learning_rate_schedule="exponential", learning_rate_end=0.2)
    assert metrics["policy/learning_rate"] == pytest.approx(0.002)


# -- keeping -------------------------------------------------------------------------------------------------------------------


def cart_pole(timesteps: int, *, horizon: int | None = None, **cfg: Any) -> SequentialTrainer:
    """Return a trainer of A2C on two copies of CartPole."""
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=3)
    algorithm = A2C(env.observation_space, env.action_space, num_envs=2, cfg={**cfg, "network": SMALL["network"]}, seed=3)
    return SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": timesteps, "disable_progressbar": True}, horizon=horizon)


@pytest.mark.parametrize(
    "cfg",
    [
        {"rollout_length": 8},
        {
            "rollout_length": 8,
            "optimizer": "adam",
            "learning_rate_schedule": "linear",
            "normalize_rewards": True,
            "normalize_observations": True,
        },
    ],
    ids=["plain", "adam, schedule, normalised"],
)
def test_resumed_equals_uninterrupted(cfg):
    whole = cart_pole(96, **cfg)
    whole.train()
    first = cart_pole(44, horizon=96, **cfg)  # ends within a rollout of 8
    first.train()
    rest = cart_pole(96, **cfg)
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    one, other = whole.snapshot()[0], rest.snapshot()[0]
    one["trainer"].pop("training_seconds"), other["trainer"].pop("training_seconds")
    np.testing.assert_equal(other, one)
    assert whole.agents[0].updates == 12


# -- probes --------------------------------------------------------------------------------------------------------------------

PROBE = {
    "rollout_length": 8, "optimizer": "adam", "learning_rate": 0.01, "discount_factor": 0.5, "entropy_scale": 0.0,
    "network": {"policy_sizes": [16], "value_sizes": [16]},
}  # fmt: skip


def solve(name: str, updates: int, **cfg: Any) -> A2C:
    """Train A2C on a probe."""
    env = GymnasiumEnv({"id": f"probe_envs:{name}-v0", "num_envs": 8}, seed=1)
    algorithm = A2C(env.observation_space, env.action_space, num_envs=8, cfg={**PROBE, **cfg}, seed=1)
    timesteps = algorithm.cfg.rollout_length * updates
    SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    return algorithm


def values(algorithm: A2C, *observations: float) -> list[float]:
    with torch.no_grad():
        return algorithm._values(algorithm.inputs(torch.tensor(observations)[:, None])).tolist()


def acts(algorithm: A2C, *observations: float) -> list:
    rows = torch.tensor(observations)[:, None]
    return algorithm.act(None, rows, explore=False, progress=Progress(0, 1))[1].reshape(-1).tolist()


def probability(algorithm: A2C, observation: float, action: int) -> float:
    with torch.no_grad():
        logits = algorithm.networks.logits(algorithm.inputs(torch.tensor([[observation]])))
        return float(algorithm.distribution.log_prob(logits, torch.tensor([action])).exp())


@pytest.mark.parametrize(("optimizer", "updates"), [("adam", 60), ("rmsprop", 300)])
def test_constant_value(optimizer, updates):
    assert values(solve("ConstantValue", updates, optimizer=optimizer), 0.0) == pytest.approx([1.0], abs=0.05)


@pytest.mark.parametrize("cfg", [{}, {"normalize_observations": True, "normalize_values": True}], ids=["plain", "normalised"])
def test_value_from_observation(cfg):
    assert values(solve("ValueFromObservation", 60, **cfg), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.1)


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
def test_discounting(gae_lambda):
    algorithm = solve("Discounting", 50, gae_lambda=gae_lambda, learning_rate=0.02)
    assert values(algorithm, 0.0, 1.0) == pytest.approx([0.5, 1.0], abs=0.05)


@pytest.mark.parametrize(("optimizer", "updates"), [("adam", 60), ("rmsprop", 400)])
def test_advantage(optimizer, updates):
    algorithm = solve("Advantage", updates, optimizer=optimizer)
    assert acts(algorithm, 0.0) == [1] and probability(algorithm, 0.0, 1) > 0.95


def test_policy_from_observation():
    algorithm = solve("PolicyFromObservation", 60)
    assert acts(algorithm, -1.0, 1.0) == [0, 1]
    assert min(probability(algorithm, -1.0, 0), probability(algorithm, 1.0, 1)) > 0.95


def test_credit_reaches_the_first_of_two_actions():
    algorithm = solve("TwoStepPolicy", 100, entropy_scale=0.01)
    assert acts(algorithm, -1.0, 1.0) == [1, 0]
    assert min(probability(algorithm, -1.0, 1), probability(algorithm, 1.0, 0)) > 0.9


def test_continuous_target():
    assert acts(solve("ContinuousTarget", 400), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.25)


def test_truncation():
    # 1 / (1 - 0.9) = 10; as an end: at most 2.71; from the next episode's first observation: a mixture of both
    algorithm = solve("Truncation", 100, discount_factor=0.9, learning_rate=0.02, grad_norm_clip=0.0)
    assert values(algorithm, -1.0, 1.0) == pytest.approx([0.0, 10.0], abs=0.5)


def test_entropy_bonus_keeps_the_policy_open():
    # action 1 earns more, yet a large bonus holds both probabilities near 1/2; of the wrong sign it would drive one to 1
    assert 0.3 < probability(solve("Advantage", 60, entropy_scale=5.0), 0.0, 1) < 0.8
