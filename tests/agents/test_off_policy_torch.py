"""DQN, Double DQN, DDPG, TD3 and SAC against numbers worked out by hand and against autograd on their losses as written."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.ddqn.torch import DDQN
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.off_policy.torch import Batch, choose_uniform
from rltrain.agents.sac.torch import SAC
from rltrain.agents.td3.torch import TD3
from rltrain.structures import Progress, Transition

ALGORITHMS = {"dqn": DQN, "ddqn": DDQN, "ddpg": DDPG, "td3": TD3, "sac": SAC, "sac_choices": SAC}
CONTINUOUS = {"ddpg", "td3", "sac"}
SMALL: dict[str, Any] = {"learning_starts": 0, "batch_size": 8, "memory_size": 1000, "update_interval": 1, "learning_rate": 0.01}
COPIES = 2


def make(name: str, *, seed: int = 0, **cfg: Any) -> Any:
    space = Box(np.array([-4, 0], np.float32), np.array([2, 1], np.float32)) if name in CONTINUOUS else Discrete(3, start=2)
    sizes = {"policy_sizes": [8], "critic_sizes": [8]} if ALGORITHMS[name] not in (DQN, DDQN) else {"sizes": [8]}
    network = {**sizes, **cfg.pop("network", {})}
    observations = Box(-np.inf, np.inf, (3,), np.float32)
    return ALGORITHMS[name](observations, space, num_envs=COPIES, cfg={**SMALL, "network": network, **cfg}, seed=seed)


class World:
    """Rows that depend on nothing but a seed, with ends of both kinds."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.observations = self.observe()

    def observe(self) -> np.ndarray:
        return (self.generator.normal(size=(COPIES, 3)) * [1, 2, 3] + [0, 5, -5]).astype(np.float32)

    def turn(self, algorithm: Any, actor: Any, t: int, timesteps: int = 100) -> Transition:
        """Act, record, and return what was recorded."""
        observations = self.observations
        progress = Progress(t, timesteps)
        _, actions, outputs = algorithm.act(actor, torch.from_numpy(observations), explore=True, progress=progress)
        following, rewards = self.observe(), self.generator.normal(size=COPIES).astype(np.float32)
        terminated, truncated = self.generator.random((2, COPIES)) < 0.1
        transition = Transition(
            observations, None, actions.numpy(), following, None, rewards, terminated, truncated, None, {},
            {key: value.numpy() for key, value in outputs.items()},
        )  # fmt: skip
        algorithm.record(transition)
        self.observations = np.where((terminated | truncated)[:, None], self.observe(), following)
        return transition


def actor_of(algorithm: Any) -> Any:
    return algorithm.init_actor(COPIES, algorithm.actor_seed)


def train(algorithm: Any, timesteps: int, world: World | None = None) -> list[dict[str, float]]:
    """Make timesteps with the updates that are due, and return their metrics."""
    actor, world = actor_of(algorithm), world or World()
    metrics = []
    for t in range(timesteps):
        world.turn(algorithm, actor, t)
        if algorithm.schedule.is_due(t):
            metrics.append(algorithm.update(Progress(t, 100)))
    return metrics


def batch_of(algorithm: Any, size: int = 8, seed: int = 0, **more: Any) -> Batch:
    """Return a batch of random rows."""
    generator = torch.Generator().manual_seed(seed)
    inputs, following = torch.randn(2, size, 3, generator=generator)
    if isinstance(algorithm.cfg, DQN.config) or getattr(algorithm, "discrete", False):
        actions = torch.randint(3, (size,), generator=generator)
    else:
        actions = torch.rand(size, 2, generator=generator) * 2 - 1
    returns, discounts = torch.randn(size, generator=generator), torch.full((size,), 0.9)
    discounts[0] = 0.0
    return Batch(**{
        "inputs": inputs, "next_inputs": following, "actions": actions, "returns": returns, "discounts": discounts,
        "weights": None, "next_action_masks": None, "action_masks": None, **more,
    })  # fmt: skip


def improve(algorithm: Any, batch: Batch) -> Any:
    """Take a gradient step with the learning rates of the settings."""
    return algorithm.improve(batch, algorithm._learning_rates(algorithm.cfg.learning_rate))


def answer(network: Any, method: str, *values: Any) -> None:
    """Let a network's method return these values, whatever it is asked."""
    setattr(network, method, lambda *args, **kwargs: torch.tensor(*values))


# -- targets by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "worth"), [("dqn", 7.0), ("ddqn", 4.0)])
def test_what_the_next_state_is_worth(name, worth):
    """The network prefers the second choice, which the target gives 4; the target's own highest is 7."""
    algorithm = make(name)
    learner = algorithm.learners["q"]
    batch = batch_of(algorithm, 2, returns=torch.tensor([1.0, 1.0]), discounts=torch.tensor([0.9**3, 0.0]))
    answer(learner.target, "values", [[2.0, 4.0, 7.0], [2.0, 4.0, 7.0]])
    own = learner.network.values
    learner.network.values = lambda x: torch.tensor([[0.0, 9.0, 1.0]]).expand(2, 3) if x is batch.next_inputs else own(x)
    before = own(batch.inputs).detach().gather(1, batch.actions[:, None])[:, 0]
    _, errors = improve(algorithm, batch)
    assert (before - errors).tolist() == pytest.approx([1 + 0.729 * worth, 1.0], abs=1e-5)


def test_a_masked_choice_is_worth_nothing():
    algorithm = make("dqn")
    masks = torch.tensor([[True, True, False], [False, True, False]])
    batch = batch_of(algorithm, 2, next_action_masks=masks)
    answer(algorithm.learners["q"].target, "values", [[2.0, 4.0, 7.0], [5.0, 3.0, 7.0]])
    assert algorithm._next_values(algorithm.learners["q"], batch).tolist() == [4.0, 3.0]


def test_dueling_values():
    # outputs A = (1, 2, 6), V = 10; the mean of A is 3: Q = (8, 9, 13)
    network = make("dqn", network={"dueling": True}).learners["q"].network
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.tensor([1.0, 2.0, 6.0, 10.0]) if name == "q.biases.1" else torch.zeros(parameter.shape))
    assert network.values(torch.zeros(1, 3)).tolist() == [[8.0, 9.0, 13.0]]


def test_td3_takes_the_lesser_critic_and_ddpg_its_only_one():
    for name, values, worth in (("td3", [[5.0, 1.0], [2.0, 3.0]], [2.0, 1.0]), ("ddpg", [[5.0, 1.0]], [5.0, 1.0])):
        algorithm = make(name)
        critics = algorithm.learners["critics"]
        batch = batch_of(algorithm, 2, returns=torch.tensor([1.0, -1.0]), discounts=torch.tensor([0.5, 0.5]))
        answer(critics.target, "values", values)
        found, _ = improve(algorithm, batch)
        targets = [1 + 0.5 * worth[0], -1 + 0.5 * worth[1]]
        assert float(found["value/target_mean"]) == pytest.approx(sum(targets) / 2)


def test_td3_smooths_its_targets_actions_with_clipped_noise():
    algorithm = make("td3", target_noise=10.0, target_noise_clip=0.25)
    answer(algorithm.learners["policy"].target, "logits", [[0.0, 0.0]] * 500 + [[5.0, -5.0]] * 500)
    actions = algorithm._next_actions(batch_of(algorithm))
    assert actions[:500].abs().max() == 0.25 and len(actions[:500].unique()) > 2
    assert actions.abs().max() <= 1.0
    assert (make("ddpg")._next_actions(batch_of(algorithm)).abs() < 1).all()


def test_what_the_next_state_is_worth_to_sac():
    algorithm = make("sac", entropy_coefficient=0.5)
    answer(algorithm.learners["critics"].target, "values", [[5.0, 1.0], [2.0, 3.0]])
    algorithm.distribution.draw = lambda logits, noise: (torch.zeros(2, 2), torch.tensor([-2.0, 4.0]))
    worth = algorithm._next_values(algorithm.learners["critics"], batch_of(algorithm, 2), algorithm._coefficient())
    assert worth.tolist() == [2.0 + 0.5 * 2.0, 1.0 - 0.5 * 4.0]  # min Q - alpha log p


def test_what_the_next_state_is_worth_among_choices():
    algorithm = make("sac_choices", entropy_coefficient=0.5)
    answer(algorithm.learners["policy"].network, "logits", [[0.0, 0.0, -1e9]])
    answer(algorithm.learners["critics"].target, "values", [[[5.0, 1.0, 99.0]], [[2.0, 3.0, 99.0]]])
    worth = algorithm._next_values(algorithm.learners["critics"], batch_of(algorithm, 1), algorithm._coefficient())
    # half of min(5, 2) + half of min(1, 3), and half of the entropy log 2
    assert worth.tolist() == pytest.approx([0.5 * 2 + 0.5 * 1 + 0.5 * math.log(2)])


# -- gradients against autograd --------------------------------------------------------------------------------------------


def reference_of(algorithm: Any) -> Any:
    """Return a copy whose networks are differentiated node by node."""
    reference = copy.deepcopy(algorithm)
    reference.generator.set_state(algorithm.generator.get_state())
    return reference


def gradients(learner: Any, loss: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(learner.network.parameters()))
    return torch.cat([gradient.view(-1) for gradient in found])


def forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    """Return a network's outputs, node by node."""
    for i, (weight, bias) in enumerate(list(zip(mlp.weights, mlp.biases, strict=True))[:-1]):
        x = x @ weight.t() + bias
        x = torch.nn.functional.layer_norm(x, x.shape[1:], mlp.scales[i], mlp.shifts[i]) if len(mlp.scales) else x
        x = torch.relu(x)
    return x @ mlp.weights[-1].t() + mlp.biases[-1]


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_the_gradient_of_dqn(loss):
    algorithm = make("dqn", loss=loss, grad_norm_clip=0.0, prioritized=True)
    batch = batch_of(algorithm, weights=torch.linspace(0.1, 1, 8), returns=5 * torch.randn(8, generator=torch.Generator()))
    learner = reference_of(algorithm).learners["q"]
    with torch.no_grad():
        targets = batch.returns + batch.discounts * forward(learner.target.q, batch.next_inputs).max(1).values
    values = forward(learner.network.q, batch.inputs)[torch.arange(8), batch.actions]
    function = torch.nn.functional.smooth_l1_loss if loss == "huber" else torch.nn.functional.mse_loss
    expected = (function(values, targets, reduction="none") * batch.weights).mean()
    found, errors = improve(algorithm, batch)
    assert float(found["loss/q"]) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert errors.tolist() == pytest.approx((values - targets).tolist(), abs=1e-5)
    torch.testing.assert_close(algorithm.learners["q"].parameters.gradients, gradients(learner, expected))


def test_the_gradients_of_ddpg():
    algorithm = make("ddpg", learning_rate=1e-9)  # so that the policy climbs the critic that the reference has too
    batch = batch_of(algorithm)
    reference = reference_of(algorithm).learners
    critic = reference["critics"].network.networks[0]
    with torch.no_grad():
        next_actions = torch.tanh(forward(reference["policy"].target.policy, batch.next_inputs))
        worth = forward(reference["critics"].target.networks[0], torch.cat((batch.next_inputs, next_actions), 1))[:, 0]
        targets = batch.returns + batch.discounts * worth
    critic_loss = ((forward(critic, torch.cat((batch.inputs, batch.actions), 1))[:, 0] - targets) ** 2).mean()
    actions = torch.tanh(forward(reference["policy"].network.policy, batch.inputs))
    policy_loss = -forward(critic, torch.cat((batch.inputs, actions), 1)).mean()
    found, _ = improve(algorithm, batch)
    assert float(found["loss/q"]) == pytest.approx(float(critic_loss.detach()), rel=1e-5)
    assert float(found["loss/policy"]) == pytest.approx(float(policy_loss.detach()), rel=1e-4)
    # the critic's gradient is its own: the policy's went through it and left nothing
    expected = gradients(reference["critics"], critic_loss)
    torch.testing.assert_close(algorithm.learners["critics"].parameters.gradients, expected)
    torch.testing.assert_close(algorithm.learners["policy"].parameters.gradients, gradients(reference["policy"], policy_loss))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_gradients_of_sac(layer_norm):
    algorithm = make("sac", learning_rate=1e-9, initial_entropy_coefficient=0.3, network={"layer_norm": layer_norm})
    batch = batch_of(algorithm)
    other = reference_of(algorithm)
    policy, critics = other.learners["policy"], other.learners["critics"]
    for network in (policy.network, critics.network, critics.target):
        network.double()  # the densities as they are written lose digits

    def read(mlp: Any, x: torch.Tensor) -> torch.Tensor:
        return forward(mlp, x.double())

    def draw(inputs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means, log_stds = read(policy.network.policy, inputs).chunk(2, 1)
        samples = means + log_stds.exp() * noise
        distribution = TransformedDistribution(Normal(means, log_stds.exp()), [TanhTransform(cache_size=1)])
        actions = distribution.transforms[0](samples)
        return actions, distribution.log_prob(actions).sum(1)

    noises = [torch.empty(8, 2).normal_(generator=other.generator) for _ in range(2)]
    with torch.no_grad():
        next_actions, next_log_probs = draw(batch.next_inputs, noises[0])
        rows = torch.cat((batch.next_inputs.double(), next_actions), 1)
        worth = torch.min(*[read(mlp, rows)[:, 0] for mlp in critics.target.networks]) - 0.3 * next_log_probs
        targets = batch.returns + batch.discounts * worth
    rows = torch.cat((batch.inputs, batch.actions), 1)
    critic_loss = sum(((read(mlp, rows)[:, 0] - targets) ** 2).mean() for mlp in critics.network.networks)
    actions, log_probs = draw(batch.inputs, noises[1])
    rows = torch.cat((batch.inputs.double(), actions), 1)
    policy_loss = (0.3 * log_probs - torch.min(*[read(mlp, rows)[:, 0] for mlp in critics.network.networks])).mean()
    critic_gradients = gradients(critics, critic_loss).float()
    policy_gradients = gradients(policy, policy_loss).float()
    found, _ = improve(algorithm, batch)
    assert float(found["loss/q"]) == pytest.approx(float(critic_loss.detach()) / 2, rel=1e-5)
    assert float(found["loss/policy"]) == pytest.approx(float(policy_loss.detach()), rel=1e-4)
    torch.testing.assert_close(algorithm.learners["critics"].parameters.gradients, critic_gradients)
    torch.testing.assert_close(algorithm.learners["policy"].parameters.gradients, policy_gradients)
    slope = -float(log_probs.detach().mean()) - (-2.0)  # entropy - target entropy, of two action dimensions
    assert float(found["loss/entropy_coefficient"]) == pytest.approx(math.log(0.3) * slope, rel=1e-4)


def test_the_gradients_of_sac_among_choices():
    algorithm = make("sac_choices", learning_rate=1e-9, entropy_coefficient=0.3)
    batch = batch_of(algorithm)
    other = reference_of(algorithm)
    policy, critics = other.learners["policy"], other.learners["critics"]
    log_probs = torch.log_softmax(forward(policy.network.policy, batch.inputs), 1)
    values = torch.min(*[forward(mlp, batch.inputs) for mlp in critics.network.networks]).detach()
    loss = (log_probs.exp() * (0.3 * log_probs - values)).sum(1).mean()
    found, _ = improve(algorithm, batch)
    assert float(found["loss/policy"]) == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(algorithm.learners["policy"].parameters.gradients, gradients(policy, loss))


@pytest.mark.parametrize(("entropy", "moves"), [(5.0, -1), (-5.0, 1)])
def test_the_entropy_coefficient_moves_towards_the_target(entropy, moves):
    """Adam's first step is the learning rate, whatever the slope."""
    algorithm = make("sac", initial_entropy_coefficient=0.5)
    loss = algorithm._improve_coefficient(torch.tensor(entropy), 0.01)
    assert float(loss) == pytest.approx(math.log(0.5) * entropy)
    assert algorithm._coefficient().tolist() == pytest.approx([0.5 * math.exp(moves * 0.01)])


def test_target_entropies():
    masks = torch.tensor([[True, True, False], [False, True, False]])

    def target(name, masks=None, **cfg):
        algorithm = make(name, **cfg)
        return float(algorithm._target_entropy(batch_of(algorithm, 2, action_masks=masks)))

    assert target("sac") == -2.0  # two action dimensions
    assert target("sac", target_entropy=-0.5) == -0.5
    assert target("sac_choices") == pytest.approx(0.89 * math.log(3))
    assert target("sac_choices", masks) == pytest.approx(0.89 * math.log(2) / 2)  # two choices, and one
    assert target("sac_choices", masks, target_entropy=0.5) == 0.5
    fixed = make("sac", entropy_coefficient=0.2)
    metrics = train(fixed, 10)[-1]
    assert metrics["policy/entropy_coefficient"] == pytest.approx(0.2) and "loss/entropy_coefficient" not in metrics
    assert "entropy" not in fixed.learners


# -- when what happens -----------------------------------------------------------------------------------------------------


def watch(algorithm: Any, method: str) -> list[int]:
    """Let the list returned collect how many gradient steps had begun at each call of `method`."""
    calls, original = [], getattr(algorithm, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(algorithm.gradient_steps)
        return original(*args, **kwargs)

    setattr(algorithm, method, watched)
    return calls


@pytest.mark.parametrize(
    ("cfg", "steps"),
    [
        ({"learning_starts": 10, "update_interval": 4, "gradient_steps": 3}, [3, 3, 3]),  # after timesteps 11, 15, 19
        ({"learning_starts": 10, "update_interval": 4, "gradient_steps": "auto"}, [8, 8, 8]),  # 4 timesteps of 2 copies
        ({"learning_starts": 17, "update_interval": 1, "gradient_steps": "auto"}, [2, 2, 2]),
        ({"learning_starts": 0, "update_interval": 5, "batch_size": 30, "gradient_steps": 1}, [0, 0, 1, 1]),  # no batch before
    ],
)
def test_gradient_steps(cfg, steps):
    algorithm = make("dqn", **cfg)
    calls = watch(algorithm, "improve")
    metrics = train(algorithm, 20)
    assert len(calls) == sum(steps) == algorithm.gradient_steps
    ratios = [row.get("replay/ratio", 0.0) * cfg["update_interval"] * COPIES for row in metrics]
    assert ratios == pytest.approx(steps)


def test_rows_that_did_not_happen_are_no_env_steps():
    algorithm = make("dqn", gradient_steps="auto", update_interval=5)
    actor, world = actor_of(algorithm), World()
    for t in range(10):
        row = world.turn(algorithm, actor, t)
        if t == 9:  # once more, of one copy only
            algorithm.update(Progress(t, 100))
            for _ in range(5):
                algorithm.record(row._replace(valid=np.array([True, False])))
    before = algorithm.gradient_steps
    algorithm.update(Progress(14, 100))
    assert algorithm.gradient_steps - before == 5


def test_polyak_moves_the_target_after_each_gradient_step():
    algorithm = make("sac", polyak=0.25, gradient_steps=2)
    learner = algorithm.learners["critics"]
    start = learner.target_parameters.values.clone()
    seen = []
    original = algorithm.improve
    algorithm.improve = lambda *given: (original(*given), seen.append(learner.parameters.values.clone()))[0]
    train(algorithm, 4)
    assert len(seen) == 2
    expected = start
    for values in seen:
        expected = 0.75 * expected + 0.25 * values
    torch.testing.assert_close(learner.target_parameters.values, expected)
    assert not torch.equal(expected, start)


def test_a_hard_target_is_copied_with_the_first_update_of_an_interval():
    algorithm = make("dqn", update_interval=4, gradient_steps=2, target_update_interval=10)
    calls = watch(algorithm, "_move_targets")
    train(algorithm, 40)
    # updates after 4, 8, ... 40 timesteps; the first ones at or beyond 10, 20, 30, 40 are 12, 20, 32, 40
    assert calls == [6, 10, 16, 20]
    learner = algorithm.learners["q"]
    assert torch.equal(learner.parameters.values, learner.target_parameters.values)


def test_td3s_policy_and_targets_move_every_second_step():
    algorithm = make("td3", gradient_steps=5, policy_delay=2)
    policies, targets = watch(algorithm, "_improve_policy"), watch(algorithm, "_move_targets")
    train(algorithm, 5)
    assert policies == targets == [2, 4, 6, 8, 10]  # two updates of five steps: 1 ... 10
    assert algorithm.gradient_steps == 10


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # over the first half of 100 timesteps from 0.8 to 0.2: at 0, 25, 50 and beyond
        ("linear", [0.8, 0.5, 0.2, 0.2]),
        ("cosine", [0.8, 0.5, 0.2, 0.2]),
        ("exponential", [0.8, 0.4, 0.2, 0.2]),
        ("constant", [0.8, 0.8, 0.8, 0.8]),
    ],
)
def test_epsilon(kind, expected):
    algorithm = make("dqn", epsilon=0.8, epsilon_end=0.2, exploration_fraction=0.5, epsilon_schedule=kind)
    assert [algorithm._epsilon(Progress(t, 100)) for t in (0, 25, 50, 99)] == pytest.approx(expected)


def test_a_scheduled_learning_rate_keeps_the_rates_apart():
    algorithm = make(
        "sac", learning_rate=0.1, learning_rate_schedule="linear", policy_learning_rate=0.2, entropy_learning_rate=0.4
    )
    rates = algorithm._learning_rates(algorithm.now("learning_rate", Progress(50, 100)))
    assert rates == pytest.approx({"policy": 0.1, "critics": 0.05, "entropy": 0.2})


# -- acting ----------------------------------------------------------------------------------------------------------------


def acts(
    algorithm: Any, times: int, *, timestep: int = 0, explore: bool = True, actor: Any = None, masks: Any = None
) -> np.ndarray:
    actor = actor or actor_of(algorithm)
    rows = torch.zeros(COPIES, 3)
    how = {"explore": explore, "progress": Progress(timestep, 100)}
    return np.concatenate([algorithm.act(actor, rows, None, masks, **how)[1].numpy() for _ in range(times)])


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_uniform_actions_until_learning_starts(name):
    algorithm = make(name, learning_starts=10)
    drawn = acts(algorithm, 1500, timestep=9)
    if name in CONTINUOUS:  # uniform in [-4, 2] x [0, 1]: means -1 and 1/2, deviations of the mean of 3000 below 0.035
        assert drawn.mean(0) == pytest.approx([-1, 0.5], abs=0.13) and drawn.std(0) == pytest.approx(
            [6 / 12**0.5, 12**-0.5], rel=0.05
        )
        assert (drawn.min(0) < [-3.9, 0.02]).all() and (drawn.max(0) > [1.9, 0.98]).all()
    else:
        counts = np.bincount(drawn, minlength=5)
        assert counts[:2].sum() == 0 and counts[2:].min() > 900  # 1000 each
    assert len(np.unique(acts(algorithm, 50, timestep=9), axis=0)) > 1  # drawn afresh at each call


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_an_evaluation_does_not_explore(name):
    algorithm = make(name, learning_starts=10)
    for timestep in (0, 9, 50):
        drawn = acts(algorithm, 40, timestep=timestep, explore=False, actor=algorithm.init_actor(COPIES, 7))
        assert len(np.unique(drawn, axis=0)) == 1


def test_an_evaluation_that_is_told_to_explore_does_so_as_at_the_end():
    algorithm = make("dqn", learning_starts=10, epsilon_end=0.0)
    assert len(np.unique(acts(algorithm, 40, actor=algorithm.init_actor(COPIES, 7)))) == 1
    sac = make("sac", learning_starts=10)
    drawn = acts(sac, 400, actor=sac.init_actor(COPIES, 7))
    generator, logits = torch.Generator().manual_seed(7), sac._logits(torch.zeros(COPIES, 3), None)
    expected = [
        sac.distribution.scale(torch.tanh(sac.distribution.sample(logits, generator))).detach().numpy() for _ in range(400)
    ]
    np.testing.assert_allclose(drawn, np.concatenate(expected), atol=1e-5)  # the policy's own actions


def test_a_random_action_comes_with_probability_epsilon():
    algorithm = make("dqn", epsilon=0.6, epsilon_end=0.6)
    best = acts(algorithm, 1, explore=False)[0]
    share = (acts(algorithm, 2000, timestep=50) == best).mean()
    assert share == pytest.approx(0.4 + 0.6 / 3, abs=0.03)  # 4000 draws: a standard deviation of 0.008


def test_masks_are_kept():
    masks = torch.tensor([[False, True, True], [True, False, False]])
    for name in ("dqn", "ddqn", "sac_choices"):
        for timestep in (0, 50):
            drawn = acts(make(name, learning_starts=10), 300, timestep=timestep, masks=masks).reshape(-1, 2)
            assert set(drawn[:, 0]) <= {3, 4} and set(drawn[:, 1]) == {2}
    drawn = choose_uniform(3000, 3, masks[:1].expand(3000, 3), torch.Generator().manual_seed(0))
    assert np.bincount(drawn).tolist() == pytest.approx([0, 1500, 1500], abs=120)


def test_gaussian_noise():
    algorithm = make("td3", noise_scale=0.05)
    drawn = acts(algorithm, 2000, timestep=50)
    assert drawn.std(0) == pytest.approx([0.05 * 3, 0.05 * 0.5], rel=0.05)  # in units of half the range
    assert drawn.mean(0) == pytest.approx(acts(algorithm, 1, explore=False)[0], abs=0.02)
    assert len(np.unique(acts(make("td3", noise="none"), 40, timestep=50), axis=0)) == 1


def test_ornstein_uhlenbeck_noise_drifts_and_begins_anew_with_an_episode():
    algorithm = make("ddpg", noise="ornstein_uhlenbeck", noise_scale=0.4, noise_decay=0.5, noise_time_step=0.25)
    actor = actor_of(algorithm)
    generator = torch.Generator().manual_seed(algorithm.actor_seed)
    expected = torch.zeros(COPIES, 2)
    for _ in range(3):
        actor = algorithm.act(actor, torch.zeros(COPIES, 3), explore=True, progress=Progress(50, 100))[0]
        normal = torch.empty(COPIES, 2).normal_(generator=generator)
        expected = expected - 0.5 * expected * 0.25 + 0.4 * 0.5 * normal  # sqrt(0.25) = 0.5
        torch.testing.assert_close(actor.carry, expected)
    actor = algorithm.reset_actor(actor, np.array([True, False]))
    torch.testing.assert_close(actor.carry, expected * torch.tensor([[0.0], [1.0]]))
    restored = algorithm.restore_actor(algorithm.actor_snapshot(actor))
    np.testing.assert_equal(acts(algorithm, 5, timestep=50, actor=actor), acts(algorithm, 5, timestep=50, actor=restored))


# -- normalised observations -----------------------------------------------------------------------------------------------


def test_statistics_are_of_all_rows_and_change_with_updates_only():
    algorithm = make("dqn", normalize_observations=True, learning_starts=6, update_interval=5)
    actor, world = actor_of(algorithm), World()
    seen = []
    for t in range(20):
        before = algorithm.inputs.moments
        seen.append(world.turn(algorithm, actor, t).observations)
        assert algorithm.inputs.moments is before  # recording and acting read
        if algorithm.schedule.is_due(t):
            algorithm.update(Progress(t, 100))
            rows = np.concatenate(seen)
            torch.testing.assert_close(algorithm.inputs.moments.mean, torch.from_numpy(rows.mean(0)), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(algorithm.inputs.moments.variance, torch.from_numpy(rows.var(0)), rtol=1e-4, atol=1e-4)
    assert float(algorithm.inputs.moments.count) == 40
    kept = algorithm.memory.read()["observations"]
    np.testing.assert_array_equal(kept.reshape(-1, 3), np.concatenate(seen))  # raw


# -- priorities, keeping ---------------------------------------------------------------------------------------------------


def test_priorities_follow_the_errors():
    algorithm = make("dqn", prioritized=True, priority_exponent=1.0, gradient_steps=1)
    drawn = []
    original = algorithm.improve
    algorithm.improve = lambda *given: drawn.append(original(*given)) or drawn[-1]
    rows = []
    sample = algorithm.memory.sample
    algorithm.memory.sample = lambda *args: rows.append(sample(*args)) or rows[-1]
    train(algorithm, 4)
    last = {int(row): abs(float(error)) + 1e-6 for row, error in zip(rows[-1].rows, drawn[-1][1], strict=True)}
    found = algorithm.memory.priorities.read(np.array(list(last)))
    assert found.tolist() == pytest.approx(list(last.values()))


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_snapshot_holds_everything(name):
    """What goes on from it is equal to the bit, though it had learned something else before."""
    how = {"prioritized": True, "n_steps": 2, "normalize_observations": True, "gradient_steps": 3, "polyak": 0.1}
    one, other = make(name, **how), make(name, seed=5, **how)
    world = World()
    train(one, 12, world)
    train(other, 7, World(3))
    other.restore(copy.deepcopy(one.snapshot()))
    assert one.gradient_steps > 0 and len(one.snapshot()["training"]["optimizers"]) == len(one.learners)
    other.actor_seed = one.actor_seed
    worlds = world, copy.deepcopy(world)
    for algorithm, place in zip((one, other), worlds, strict=True):
        train(algorithm, 9, place)
    np.testing.assert_equal(one.snapshot(), other.snapshot())


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_without_its_memory_an_agent_waits_until_there_is_one(name):
    algorithm = make(name, learning_starts=5, batch_size=4)
    train(algorithm, 12)
    algorithm.keeps_memory = False
    saved = algorithm.snapshot()
    assert saved["training"]["memory"] is None
    resumed = make(name, learning_starts=5, batch_size=4)
    resumed.restore(saved)
    calls = watch(resumed, "improve")
    actor, world = actor_of(resumed), World()
    for t in range(12, 24):
        world.turn(resumed, actor, t)
        learned = resumed.update(Progress(t, 100))
        assert bool(learned) == (t >= 12 + 5)  # the sixth row is the first that learning starts after
    assert calls


def test_only_the_policy_may_be_restored():
    one, other = make("td3"), make("td3", seed=3)
    train(one, 10)
    other.restore({"policy": one.snapshot()["policy"]})
    for name, learner in other.learners.items():
        assert torch.equal(learner.parameters.values, one.learners[name].parameters.values)
        assert torch.equal(learner.target_parameters.values, learner.parameters.values)
    assert other.gradient_steps == 0 and other.memory.count == 0


def test_starting_over_keeps_transitions_and_ends_episodes():
    algorithm = make("dqn", n_steps=5)
    train(algorithm, 10)
    held = algorithm.memory.count
    algorithm.discard()
    assert algorithm.memory.count == held == 20
    last = algorithm.memory.read()
    assert (last["truncated"][-1] | last["terminated"][-1]).all()


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_non_finite_parameter_is_seen(name):
    algorithm = make(name)
    assert algorithm.is_finite()
    for learner in algorithm.learners.values():
        kept = learner.parameters.values[-1].clone()
        learner.parameters.values[-1] = torch.nan
        assert not algorithm.is_finite()
        learner.parameters.values[-1] = kept
