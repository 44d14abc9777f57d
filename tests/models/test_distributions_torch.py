"""Policy logits against torch.distributions, one per dimension of an action; masks; actions as the environment takes them."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import distributions

from rltrain.agents.random import RandomAgent
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.models.distributions.torch import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
    make_distribution,
)

CPU = torch.device("cpu")
ROWS = 200


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(space: Any, **cfg: Any) -> Distribution:
    return make_distribution(space, NetworkConfig(**cfg), CPU, "agents.ppo.network")


def spread(policy: Distribution, *offsets: float) -> Distribution:
    """Give the dimensions of a Gaussian different standard deviations."""
    with torch.no_grad():
        policy.log_std += torch.tensor(offsets)
    return policy


# -- an implementation of its own: a product of torch's distributions ----------------------------------------------------------


def normals(policy: Gaussian, logits: torch.Tensor) -> list[distributions.Normal]:
    if not policy.state_dependent_std:
        return [distributions.Normal(logits[:, i], policy.log_std[i].exp()) for i in range(policy.actions)]
    means, log_stds = logits[:, : policy.actions], logits[:, policy.actions :] + policy.initial_log_std
    return [distributions.Normal(means[:, i], log_stds[:, i].exp()) for i in range(policy.actions)]


def categoricals(logits: torch.Tensor, counts: list[int]) -> list[distributions.Categorical]:
    return [distributions.Categorical(logits=part) for part in logits.split(counts, -1)]


@dataclass
class Case:
    """A distribution, and torch's distributions, one per dimension, for its `logits` (B, size)."""

    make: Callable[[], Distribution]
    reference: Callable[[Any, torch.Tensor], list[Any]]

    def log_prob(self, policy: Distribution, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        columns = actions.reshape(len(logits), -1)
        return sum(one.log_prob(columns[:, i]) for i, one in enumerate(self.reference(policy, logits)))

    def entropy(self, policy: Distribution, logits: torch.Tensor) -> torch.Tensor:
        return sum(one.entropy().expand(len(logits)) for one in self.reference(policy, logits))

    def kl(self, policy: Distribution, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.reference(policy, old), self.reference(policy, new), strict=True)
        return sum(distributions.kl_divergence(*pair) for pair in pairs)


BOX = Box(-1.0, 1.0, (3,), np.float32)
CASES = {
    "categorical": Case(lambda: make(Discrete(5)), lambda policy, logits: categoricals(logits, [5])),
    "multi-categorical": Case(
        lambda: make(MultiDiscrete([3, 1, 5, 2], start=[1, 0, -7, 2])), lambda policy, logits: categoricals(logits, [3, 1, 5, 2])
    ),
    "multi-categorical of shape (2, 2)": Case(
        lambda: make(MultiDiscrete([[2, 4], [3, 2]])), lambda policy, logits: categoricals(logits, [2, 4, 3, 2])
    ),
    "bits": Case(
        lambda: make(MultiBinary((2, 2))), lambda policy, logits: [distributions.Bernoulli(logits=logits[:, i]) for i in range(4)]
    ),
    "gaussian": Case(lambda: spread(make(BOX, initial_log_std=-0.3), 0.0, 0.5, -1.0), normals),
    "gaussian, std of the state": Case(lambda: make(BOX, initial_log_std=-0.3, state_dependent_std=True), normals),
}
SQUASHED = {
    "squashed": lambda: spread(make(BOX, initial_log_std=-0.5, squashed=True), 0.0, 0.5, -1.0),
    "squashed, std of the state": lambda: make(BOX, initial_log_std=-0.5, squashed=True, state_dependent_std=True),
}
EVERY = {name: case.make for name, case in CASES.items()} | SQUASHED


def outputs_of_a_network(policy: Distribution, seed: int = 0, scale: float = 1.5) -> torch.Tensor:
    logits = scale * torch.randn(ROWS, policy.size, generator=stream(seed))
    if getattr(policy, "state_dependent_std", False):
        logits[:, policy.actions :] *= 0.25  # inside the bounds of a deviation, which have a test of their own
    return logits


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_log_prob_and_entropy_equal_torch_distributions(case):
    policy = case.make()
    logits = outputs_of_a_network(policy)
    actions = policy.sample(logits, stream(1)).detach()
    log_probs, entropies = policy.log_prob_and_entropy(logits, actions)
    assert torch.allclose(log_probs, case.log_prob(policy, logits, actions), rtol=1e-5, atol=1e-4)
    assert torch.equal(log_probs, policy.log_prob(logits, actions))
    assert torch.allclose(entropies.expand(ROWS), case.entropy(policy, logits), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_equal_torch_distributions(case):
    policy = case.make()
    logits, slopes = outputs_of_a_network(policy).requires_grad_(), torch.randn(ROWS, generator=stream(2))
    actions = policy.sample(logits, stream(1)).detach()
    parameters = [logits, *policy.parameters.values()]
    log_probs, entropies = policy.log_prob_and_entropy(logits, actions)
    ours = torch.autograd.grad((log_probs * slopes).sum() + 3 * entropies.expand(ROWS).sum(), parameters)
    expected = (case.log_prob(policy, logits, actions) * slopes).sum() + 3 * case.entropy(policy, logits).sum()
    for one, other in zip(ours, torch.autograd.grad(expected, parameters), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kl_equals_torch_distributions(case):
    """Of the old to the new, which differs from the new to the old."""
    policy = case.make()
    old, new = outputs_of_a_network(policy, seed=1), outputs_of_a_network(policy, seed=2)
    kl = policy.kl(policy.statistics(old), policy.statistics(new)).detach()
    assert torch.allclose(kl, case.kl(policy, old, new).detach(), rtol=1e-4, atol=1e-4)
    assert (kl > 0).all()
    assert policy.kl(policy.statistics(old), policy.statistics(old)).abs().max() < 1e-6


def test_kl_by_hand():
    # bits of probability 1/2 and 1/4: 1/2 log 2 + 1/2 log(2/3); two choices of the same probabilities: the same
    # Gaussians N(0, 1) and N(1, 2^2): log 2 + (1 + 1) / 8 - 1/2; back: -log 2 + (4 + 1) / 2 - 1/2
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    bits, choice = make(MultiBinary(1)), make(Discrete(2))
    assert float(bits.kl(torch.zeros(1, 1), torch.tensor([[-math.log(3)]]))) == pytest.approx(expected, abs=1e-6)
    halves, quarters = (torch.tensor([[math.log(p), math.log(1 - p)]]) for p in (0.5, 0.25))
    assert float(choice.kl(halves, quarters)) == pytest.approx(expected, abs=1e-6)
    gaussian, one, other = make(Box(-1, 1, (1,))), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, math.log(2)]])
    assert float(gaussian.kl(one, other)) == pytest.approx(math.log(2) + 0.25 - 0.5, abs=1e-6)
    assert float(gaussian.kl(other, one)) == pytest.approx(-math.log(2) + 2.5 - 0.5, abs=1e-6)


def test_kl_after_the_deviation_has_changed():
    """What `statistics` gave stays as it was when the parameter moves on."""
    policy = spread(make(BOX), 0.0, 0.0, 0.0)
    logits = torch.zeros(1, 3)
    old = policy.statistics(logits).detach()
    spread(policy, 1.0, 1.0, 1.0)
    # N(0, 1) and N(0, e^2) in 3 dimensions: 3 (1 + e^-2 / 2 - 1/2)
    assert float(policy.kl(old, policy.statistics(logits)).detach()) == pytest.approx(3 * (0.5 + math.exp(-2) / 2), abs=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_actions_are_drawn_as_often_as_they_should(case):
    """The mean of each dimension's indicator, or of its value and square, within 4.5 standard errors; the stream is fixed."""
    policy, draws = case.make(), 40_000
    logits = outputs_of_a_network(policy)[:1].expand(draws, -1)
    actions = policy.sample(logits, stream(1)).detach().double().reshape(draws, -1)
    assert actions.shape == (draws, len(case.reference(policy, logits)))
    for column, one in zip(actions.T, case.reference(policy, logits[:1]), strict=True):
        if isinstance(one, distributions.Normal):
            mean, std = float(one.loc.detach()), float(one.scale.detach())
            assert abs(float(column.mean()) - mean) < 4.5 * std / draws**0.5
            assert abs(float(column.std()) - std) < 4.5 * std / (2 * draws) ** 0.5
        else:
            values = one.enumerate_support().flatten()
            probabilities = one.log_prob(values).exp().double()
            counts = torch.stack([(column == value).sum() for value in values])
            assert int(counts.sum()) == draws
            errors = (probabilities * (1 - probabilities) / draws).sqrt()
            assert ((counts / draws - probabilities).abs() <= 4.5 * errors + 1e-9).all()
    varying = [column.numpy() for column in actions.T if len(column.unique()) > 1]
    correlations = np.atleast_2d(np.corrcoef(varying))
    assert abs(correlations - np.eye(len(varying))).max() < 4.5 / draws**0.5


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mode_is_the_likeliest_action(case):
    policy = case.make()
    logits = outputs_of_a_network(policy)
    best, mode = policy.log_prob(logits, policy.mode(logits)), policy.mode(logits)
    for seed in range(20):
        assert (policy.log_prob(logits, policy.sample(logits, stream(seed))) <= best).all()
    assert mode.dtype == policy.sample(logits, stream()).dtype and mode.shape == policy.sample(logits, stream()).shape


@pytest.mark.parametrize("make_case", EVERY.values(), ids=EVERY)
def test_sampling_draws_from_the_given_stream_only(make_case):
    policy, generator = make_case(), stream(3)
    logits, before = torch.zeros(50, policy.size), torch.get_rng_state()
    first, second = policy.sample(logits, generator), policy.sample(logits, generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(first, policy.sample(logits, stream(3)))


def test_extreme_logits_are_finite():
    for policy in (make(Discrete(2)), make(MultiDiscrete([2, 1]))):
        logits = torch.tensor([[1000.0, -1000.0, 0.0]])[:, : policy.size].requires_grad_()
        log_probs, entropies = policy.log_prob_and_entropy(
            logits, torch.zeros(1, *policy.mode(logits).shape[1:], dtype=torch.long)
        )
        assert log_probs.tolist() == [0.0] and entropies.tolist() == [0.0]
        (log_probs + entropies).sum().backward()
        assert torch.isfinite(logits.grad).all()
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    log_probs, entropies = make(MultiBinary(2)).log_prob_and_entropy(logits, torch.tensor([[1.0, 1.0]]))
    assert log_probs.tolist() == [-200.0] and entropies.tolist() == [0.0]
    (log_probs + entropies).sum().backward()
    assert logits.grad.tolist() == [[0.0, 1.0]]


def test_entropy_by_hand():
    # log 4 of four equal choices; log 3 + log 2 of two; 2 log 2 of two coins; log(2 pi e) / 2 + log s of a Gaussian
    for space, entropy in (
        (Discrete(4), math.log(4)), (MultiDiscrete([3, 2]), math.log(6)), (MultiBinary(2), 2 * math.log(2)),
        (Box(-1, 1, (1,)), 0.5 * math.log(2 * math.pi * math.e) - 0.7),
    ):  # fmt: skip
        policy = make(space, initial_log_std=-0.7)
        logits = torch.zeros(1, policy.size)
        assert float(policy.log_prob_and_entropy(logits, policy.mode(logits))[1].detach()) == pytest.approx(entropy, abs=1e-6)


# -- standard deviations that the network gives --------------------------------------------------------------------------------


def test_std_of_the_state_starts_from_the_initial_one():
    policy = make(Box(-1, 1, (2,)), initial_log_std=-1.0, state_dependent_std=True)
    assert (policy.size, policy.parameters) == (4, {})
    means, log_stds = policy.moments(torch.tensor([[0.1, 0.2, 0.0, 0.5]]))
    assert means.tolist() == [pytest.approx([0.1, 0.2])] and log_stds.tolist() == [[-1.0, -0.5]]


def test_std_of_the_state_stays_within_bounds():
    policy = make(Box(-1, 1, (2,)), state_dependent_std=True)
    logits = torch.tensor([[0.0, 0.0, 100.0, -100.0]], requires_grad=True)
    assert policy.moments(logits)[1].tolist() == [[2.0, -20.0]]
    log_probs, entropies = policy.log_prob_and_entropy(logits, torch.zeros(1, 2))
    (log_probs + entropies).sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[0, 2:].tolist() == [0.0, 0.0]


# -- squashed: the density is that of tanh(u) ------------------------------------------------------------------------------------


def squashed_normals(policy: SquashedGaussian, logits: torch.Tensor) -> list[distributions.TransformedDistribution]:
    """Return torch's distributions, in double precision: near the bounds atanh(tanh(u)) loses digits."""
    doubles = [distributions.Normal(one.loc.double(), one.scale.double()) for one in normals(policy, logits)]
    return [distributions.TransformedDistribution(one, distributions.TanhTransform()) for one in doubles]


@pytest.mark.parametrize("make_case", SQUASHED.values(), ids=SQUASHED)
def test_squashed_log_prob_equals_torch_distributions(make_case):
    policy = make_case()
    logits = outputs_of_a_network(policy, scale=0.7).requires_grad_()
    actions, slopes = policy.sample(logits, stream(1)).detach(), torch.randn(ROWS, generator=stream(2))
    columns = torch.tanh(actions.double()).T
    expected = sum(one.log_prob(column) for one, column in zip(squashed_normals(policy, logits), columns, strict=True))
    log_probs = policy.log_prob(logits, actions)
    assert torch.allclose(log_probs.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(log_probs, policy.log_prob_and_entropy(logits, actions)[0])
    parameters = [logits, *policy.parameters.values()]
    ours, theirs = (torch.autograd.grad((x * slopes).sum(), parameters, retain_graph=True) for x in (log_probs, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_squashed_log_prob_far_out():
    # log(1 - tanh^2 u) = log 4 - 2 |u| for large |u|, where 1 - tanh^2 u itself is 0; log p(u) = -log sqrt(2 pi) at u = mean
    policy = make(Box(-1, 1, (1,)), squashed=True)
    for u in (-50.0, 50.0):
        at = torch.tensor([[u]])
        assert float(policy.log_prob(at, at).detach()) == pytest.approx(100 - math.log(4) - 0.5 * math.log(2 * math.pi), abs=1e-3)


def densely(mean: float, log_std: float) -> float:
    """Return the entropy of tanh(u) by a sum over 20,001 points in double precision."""
    z = np.linspace(-9, 9, 20_001)
    weights = np.exp(-z * z / 2)
    u = mean + math.exp(log_std) * z
    log_slopes = 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))
    return log_std + 0.5 * math.log(2 * math.pi * math.e) + float(weights @ log_slopes / weights.sum())


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -0.5), (0.7, 0.0), (-2.0, 0.3), (5.0, -3.0)])
def test_squashed_entropy_equals_a_large_sample(mean, log_std):
    policy = make(Box(-1, 1, (1,)), initial_log_std=log_std, squashed=True)
    logits = torch.full((1_000_000, 1), mean)
    with torch.no_grad():
        log_probs = policy.log_prob(logits, policy.sample(logits, stream()))
        entropy = float(policy.log_prob_and_entropy(logits[:1], logits[:1])[1])
    errors = 4 * float(log_probs.std()) / 1000  # four standard errors
    assert [entropy, densely(mean, log_std)] == pytest.approx([-float(log_probs.mean())] * 2, abs=errors)


@pytest.mark.parametrize("log_std", [-5.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0])
def test_squashed_entropy_and_its_gradient_equal_a_dense_sum(log_std):
    """Exact to rounding up to a deviation of 1, to three digits at 1.6, to two at 2.7."""
    tolerance = {0.5: 1e-3, 1.0: 0.02}.get(log_std, 2e-5)
    means, h = [-3.0, -1.0, -0.3, 0.0, 0.7, 1.5, 6.0], 1e-4
    policy = make(Box(-1, 1, (1,)), initial_log_std=log_std, squashed=True)
    for mean in means:
        logits = torch.tensor([[mean]], requires_grad=True)
        entropy = policy.log_prob_and_entropy(logits, torch.zeros(1, 1))[1].sum()
        slopes = [float(slope) for slope in torch.autograd.grad(entropy, [logits, policy.log_std])]
        assert float(entropy.detach()) == pytest.approx(densely(mean, log_std), abs=tolerance)
        expected = [
            (densely(mean + h, log_std) - densely(mean - h, log_std)) / (2 * h),
            (densely(mean, log_std + h) - densely(mean, log_std - h)) / (2 * h),
        ]
        assert slopes == pytest.approx(expected, abs=tolerance)


def test_squashed_entropy_is_the_sum_over_dimensions():
    policy = make(Box(-1, 1, (2,)), squashed=True, state_dependent_std=True)
    logits = torch.tensor([[0.3, -1.0, -0.5, -2.0], [0.0, 2.0, -1.0, 0.0]])
    entropies = policy.log_prob_and_entropy(logits, torch.zeros(2, 2))[1]
    expected = [densely(0.3, -0.5) + densely(-1.0, -2.0), densely(0.0, -1.0) + densely(2.0, 0.0)]
    assert entropies.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("make_case", SQUASHED.values(), ids=SQUASHED)
def test_squashing_changes_no_kl(make_case):
    """A bijection leaves it as it is."""
    policy = make_case()
    old, new = outputs_of_a_network(policy, seed=1), outputs_of_a_network(policy, seed=2)
    pairs = zip(normals(policy, old), normals(policy, new), strict=True)
    expected = sum(distributions.kl_divergence(*pair) for pair in pairs).detach()
    assert torch.allclose(policy.kl(policy.statistics(old), policy.statistics(new)).detach(), expected, rtol=1e-4, atol=1e-4)


# -- masks -----------------------------------------------------------------------------------------------------------------------

MASKED = {"categorical": [5], "multi-categorical": [3, 1, 5, 2]}


def draw_masks(counts: list[int], seed: int = 5) -> torch.Tensor:
    """Return (ROWS, sum of counts), in every row and part at least one choice, in some rows exactly one."""
    masks = torch.rand(ROWS, sum(counts), generator=stream(seed)) < 0.4
    starts = [0, *itertools.accumulate(counts)]
    for start, n in zip(starts, counts, strict=False):
        keep = start + torch.randint(0, n, (ROWS,), generator=stream(start))
        masks[torch.arange(ROWS), keep] = True
    return masks


def split(rows: torch.Tensor, counts: list[int]) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(part.unbind() for part in rows.split(counts, -1)), strict=True))


@pytest.mark.parametrize("name", MASKED)
def test_masked_choices_are_never_drawn_nor_the_mode(name):
    policy, counts = CASES[name].make(), MASKED[name]
    masks = draw_masks(counts)
    assert 0 < int((masks.sum(-1) == len(counts)).sum()) < ROWS
    # the choices that are not allowed are the ones that the network would like best
    logits = policy.mask(outputs_of_a_network(policy) + 50.0 * ~masks, masks)
    parts, generator = masks.split(counts, -1), stream(7)
    for actions in (policy.mode(logits), *(policy.sample(logits, generator) for _ in range(100))):
        for part, column in zip(parts, actions.reshape(ROWS, -1).T, strict=True):
            assert part.gather(-1, column[:, None]).all()


@pytest.mark.parametrize("name", MASKED)
def test_masked_distribution_is_the_renormalised_one(name):
    """Of every row and part: torch's Categorical over the choices that are left, and its gradients."""
    policy, counts = CASES[name].make(), MASKED[name]
    masks, slopes = draw_masks(counts), torch.randn(ROWS, generator=stream(2))
    logits = outputs_of_a_network(policy).requires_grad_()
    masked = policy.mask(logits, masks)
    actions = policy.sample(masked, stream(1))
    log_probs, entropies = policy.log_prob_and_entropy(masked, actions)
    expected_log_probs, expected_entropies = [], []
    for parts, allowed, chosen in zip(split(logits, counts), split(masks, counts), actions.reshape(ROWS, -1), strict=True):
        kept = [distributions.Categorical(logits=part[m]) for part, m in zip(parts, allowed, strict=True)]
        places = [int(m[:a].sum()) for m, a in zip(allowed, chosen.tolist(), strict=True)]
        expected_log_probs.append(sum(one.log_prob(torch.tensor(i)) for one, i in zip(kept, places, strict=True)))
        expected_entropies.append(sum(one.entropy() for one in kept))
    expected = torch.stack(expected_log_probs), torch.stack(expected_entropies)
    assert torch.allclose(log_probs, expected[0], atol=1e-4) and torch.allclose(entropies, expected[1], atol=1e-4)
    ours, theirs = (
        torch.autograd.grad((one * slopes).sum() + 3 * other.sum(), logits)[0]
        for one, other in ((log_probs, entropies), expected)
    )
    assert torch.isfinite(ours).all() and torch.allclose(ours, theirs, atol=1e-4)
    assert not ours[~masks].any()  # nothing is learned about what was not there to choose


def test_a_masked_choice_has_probability_zero():
    policy = make(MultiDiscrete([3, 2]))
    masks = torch.tensor([[True, False, True, False, True]])
    logits = policy.mask(torch.tensor([[0.0, 9.0, 0.0, 9.0, 0.0]]), masks)
    probabilities = [float(policy.log_prob(logits, torch.tensor([[a, b]])).exp()) for a in range(3) for b in range(2)]
    assert probabilities == [0.0, 0.5, 0.0, 0.0, 0.0, 0.5]
    assert float(policy.log_prob_and_entropy(logits, torch.tensor([[0, 1]]))[1]) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("name", MASKED)
def test_kl_of_masked_distributions(name):
    policy, counts = CASES[name].make(), MASKED[name]
    masks = draw_masks(counts)
    old, new = (outputs_of_a_network(policy, seed) for seed in (1, 2))
    kl = policy.kl(*(policy.statistics(policy.mask(logits, masks)) for logits in (old, new)))
    for row in range(0, ROWS, 10):
        expected = 0.0
        for a, b, m in zip(split(old, counts)[row], split(new, counts)[row], split(masks, counts)[row], strict=True):
            pair = (distributions.Categorical(logits=part[m]) for part in (a, b))
            expected += float(distributions.kl_divergence(*pair))
        assert float(kl[row]) == pytest.approx(expected, abs=1e-4)


# -- actions as the environment takes them ---------------------------------------------------------------------------------------


def test_discrete_actions_begin_at_start():
    policy = make(Discrete(3, start=-1))
    actions = torch.tensor([0, 1, 2])
    assert policy.to_environment(actions).tolist() == [-1, 0, 1]
    # the density is of the choice, not of the number that the environment gives it
    assert torch.allclose(policy.log_prob(torch.zeros(3, 3), actions), torch.full((3,), -np.log(3)).float())


def test_several_choices_begin_at_their_starts_in_the_shape_of_the_space():
    policy = make(MultiDiscrete([[2, 4], [3, 2]], start=[[0, 10], [-5, 1]]))
    actions = torch.tensor([[0, 0, 0, 0], [1, 3, 2, 1]])
    assert policy.to_environment(actions).tolist() == [[[0, 10], [-5, 1]], [[1, 13], [-3, 2]]]
    assert torch.allclose(policy.log_prob(torch.zeros(2, 11), actions), torch.full((2,), -np.log(2 * 4 * 3 * 2)).float())


def test_bits_come_in_the_shape_of_the_space():
    policy = make(MultiBinary((2, 2)))
    bits = policy.to_environment(torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert bits.tolist() == [[[0, 1], [1, 0]]] and bits.dtype == torch.int8


def test_bounded_actions_are_scaled_and_clipped():
    policy = make(Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)))
    # middle 0 and 5, half ranges 2 and 5
    actions = torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.5, 0.5], [7.0, -7.0]])
    assert policy.to_environment(actions).tolist() == [[0.0, 5.0], [2.0, 0.0], [1.0, 7.5], [2.0, 0.0]]


def test_squashed_actions_fill_the_bounds():
    policy = make(Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)), squashed=True)
    actions = torch.tensor([[0.0, 0.0], [math.atanh(0.5), -math.atanh(0.5)], [70.0, -70.0]])
    assert policy.to_environment(actions).tolist() == [[0.0, 5.0], [pytest.approx(1.0), pytest.approx(2.5)], [2.0, 0.0]]


def test_unbounded_actions_are_left_alone_and_half_bounds_are_kept():
    low, high = np.array([-np.inf, 0.0, -np.inf, -2.0], np.float32), np.array([np.inf, np.inf, 1.0, 4.0], np.float32)
    policy = make(Box(low, high))
    actions = torch.tensor([[3.0, 3.0, -3.0, 0.0], [-30.0, -3.0, 3.0, 2.0], [0.0, 0.0, 0.0, -0.5]])
    assert policy.to_environment(actions).tolist() == [[3, 3, -3, 1], [-30, 0, 1, 4], [0, 0, 0, -0.5]]


@pytest.mark.parametrize("size", [1e37, 3e38, float(np.finfo(np.float32).max)])
def test_bounds_near_the_largest_number_are_none(size):
    low, high = np.array([-size, -2.0, -size], np.float32), np.array([size, size, 1.0], np.float32)
    actions = [[0.5, 3.0, 0.5], [-30.0, -3.0, 2.0]]
    assert make(Box(low, high)).to_environment(torch.tensor(actions)).tolist() == [[0.5, 3.0, 0.5], [-30.0, -2.0, 1.0]]
    jax = pytest.importorskip("rltrain.models.distributions.jax")
    policy = jax.Gaussian(Box(low, high), NetworkConfig())
    assert policy.to_environment(np.array(actions, np.float32)).tolist() == [[0.5, 3.0, 0.5], [-30.0, -2.0, 1.0]]
    drawn = RandomAgent("random", Box(low, high))
    drawn.begin_evaluation(100)
    assert np.abs(drawn.act(None)).max() < 100
    assert make(Box(-1e36, 1e36, (1,), np.float32)).to_environment(torch.tensor([[0.5]])).item() == pytest.approx(5e35)


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_lie_in_the_space(dtype, squashed):
    space = Box(-0.4, 0.4, (2, 3), dtype)  # 0.4 has no exact float32: the bound must not be passed by rounding
    policy = make(space, initial_log_std=1.0, squashed=squashed)
    samples = policy.sample(torch.zeros(100, 6), stream()) * (5 if squashed else 1)
    actions = policy.to_environment(samples).detach().numpy()
    assert actions.shape == (100, 2, 3) and actions.dtype == dtype
    assert all(space.contains(action) for action in actions)
    assert abs(actions).max() == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("make_case", EVERY.values(), ids=EVERY)
def test_every_draw_and_mode_is_in_the_space(make_case):
    policy = make_case()
    space = {
        Categorical: Discrete(5), Bernoulli: MultiBinary((2, 2)), Gaussian: BOX, SquashedGaussian: BOX,
        MultiCategorical: {(4,): MultiDiscrete([3, 1, 5, 2], start=[1, 0, -7, 2])}.get(
            policy.action_shape, MultiDiscrete([[2, 4], [3, 2]])
        ),
    }[type(policy)]  # fmt: skip
    logits = outputs_of_a_network(policy)
    for actions in (policy.mode(logits), policy.sample(logits, stream())):
        for action in policy.to_environment(actions).detach().numpy():
            assert space.contains(action.astype(space.dtype))
            assert np.array_equal(action.astype(space.dtype), action)  # the cast to the space's own type changes nothing


# -- which distribution --------------------------------------------------------------------------------------------------------


def test_distribution_by_space():
    assert type(make(Discrete(2))) is Categorical
    assert type(make(MultiDiscrete([2, 3]))) is MultiCategorical
    assert type(make(MultiBinary(3))) is Bernoulli
    assert type(make(BOX)) is Gaussian
    assert type(make(BOX, squashed=True)) is SquashedGaussian
    for space in (Box(0, 5, (2,), np.int64), gymnasium.spaces.Tuple((Discrete(2), Discrete(2))), gymnasium.spaces.Text(3)):
        with pytest.raises(ConfigError, match=r"acts in Discrete, MultiDiscrete, MultiBinary, and in Box spaces of floats"):
            make(space)


def test_squashing_needs_bounds():
    with pytest.raises(ConfigError, match=r"agents.ppo.network.squashed=true: the actions Box\(.*are not bounded on all sides"):
        make(Box(-np.inf, 1.0, (2,), np.float32), squashed=True)
