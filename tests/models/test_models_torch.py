"""Policy heads against torch.distributions, networks against torch.nn, parameters as one vector."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import nn

from rltrain.errors import ConfigError
from rltrain.models.config import ACTIVATIONS
from rltrain.models.torch import MLP, Categorical, Gaussian, Observations, make_head

CPU = torch.device("cpu")
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(low=-1.0, high=1.0, shape=(3,), log_std=-0.3) -> Gaussian:
    return Gaussian(Box(low, high, shape, np.float32), log_std, CPU)


# -- distributions ---------------------------------------------------------------------------------------------------------


def test_categorical_equals_torch_distributions():
    head, logits = Categorical(Discrete(5)), 3 * torch.randn(200, 5, generator=stream())
    actions = torch.randint(0, 5, (200,), generator=stream(1))
    reference = torch.distributions.Categorical(logits=logits)
    log_probs, entropies = head.log_prob_and_entropy(logits, actions)
    assert torch.allclose(log_probs, reference.log_prob(actions), atol=1e-5)
    assert torch.allclose(head.log_prob(logits, actions), reference.log_prob(actions), atol=1e-5)
    assert torch.allclose(entropies, reference.entropy(), atol=1e-5)
    assert torch.equal(head.mode(logits), reference.probs.argmax(-1))


def test_categorical_with_extreme_logits_is_finite():
    head, logits = Categorical(Discrete(2)), torch.tensor([[1000.0, -1000.0]])
    log_probs, entropies = head.log_prob_and_entropy(logits, torch.tensor([0]))
    assert log_probs.tolist() == [0.0] and entropies.tolist() == [0.0]


def test_gaussian_equals_torch_distributions():
    head = gaussian(log_std=-0.3)
    with torch.no_grad():
        head.log_std += torch.tensor([0.0, 0.5, -1.0])
    means, actions = torch.randn(200, 3, generator=stream()), 2 * torch.randn(200, 3, generator=stream(1))
    reference = torch.distributions.Independent(torch.distributions.Normal(means, head.log_std.exp()), 1)
    log_probs, entropy = head.log_prob_and_entropy(means, actions)
    assert torch.allclose(log_probs, reference.log_prob(actions), rtol=1e-5, atol=1e-4)
    assert torch.allclose(head.log_prob(means, actions), reference.log_prob(actions), rtol=1e-5, atol=1e-4)
    assert torch.allclose(entropy.expand(200), reference.entropy(), atol=1e-5)
    assert torch.equal(head.mode(means), means)


def test_gradients_equal_torch_distributions():
    head, (means, weights) = gaussian(), (torch.randn(50, 3, generator=stream(s)) for s in (0, 1))
    actions, logits = torch.randn(50, 3, generator=stream(2)), torch.randn(50, 3, generator=stream(3))
    choices = torch.randint(0, 3, (50,), generator=stream(4))
    for log_prob, entropy, parameters in (
        (*head.log_prob_and_entropy(means.requires_grad_(), actions), (means, head.log_std)),
        (*Categorical(Discrete(3)).log_prob_and_entropy(logits.requires_grad_(), choices), (logits,)),
    ):
        if len(parameters) == 2:
            reference = torch.distributions.Independent(torch.distributions.Normal(means, head.log_std.exp()), 1)
            expected = reference.log_prob(actions), reference.entropy().mean()
        else:
            reference = torch.distributions.Categorical(logits=logits)
            expected = reference.log_prob(choices), reference.entropy().mean()
        ours = torch.autograd.grad((log_prob * weights[:, 0]).sum() + 3 * entropy.mean(), parameters)
        theirs = torch.autograd.grad((expected[0] * weights[:, 0]).sum() + 3 * expected[1], parameters)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_categorical_is_sampled_as_often_as_it_says():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    actions = Categorical(Discrete(4)).sample(probabilities.log().expand(40_000, 4), stream())
    counts = torch.bincount(actions, minlength=4)
    # chi squared with 3 degrees of freedom: above 16.3 once in a thousand streams; this stream is fixed
    assert float(((counts - 40_000 * probabilities) ** 2 / (40_000 * probabilities)).sum()) < 16.3


def test_gaussian_is_sampled_with_its_mean_and_deviation():
    head, means = gaussian(log_std=-0.5), torch.tensor([[-2.0, 0.0, 5.0]])
    samples = head.sample(means.expand(40_000, 3), stream()).detach()
    # four standard errors: 4 x 0.61 / sqrt(40000) = 0.012 of the mean, 4 x 0.61 / sqrt(80000) = 0.009 of the deviation
    assert torch.allclose(samples.mean(0), means[0], atol=0.012)
    assert torch.allclose(samples.std(0), torch.full((3,), 0.6065), atol=0.009)
    assert abs(np.corrcoef(samples.T.numpy()) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("head", [Categorical(Discrete(6)), gaussian(shape=(6,))])
def test_sampling_draws_from_the_given_stream_only(head):
    heads, generator = torch.zeros(50, 6), stream(3)
    before = torch.get_rng_state()
    first, second = head.sample(heads, generator), head.sample(heads, generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(first, head.sample(heads, stream(3)))


# -- actions as the environment takes them ---------------------------------------------------------------------------------


def test_discrete_actions_begin_at_start():
    head = Categorical(Discrete(3, start=-1))
    actions = torch.tensor([0, 1, 2])
    assert head.to_environment(actions).tolist() == [-1, 0, 1]
    # the density is of the choice, not of the number that the environment gives it
    assert torch.allclose(head.log_prob(torch.zeros(3, 3), actions), torch.full((3,), -np.log(3)).float())


def test_bounded_actions_are_scaled_and_clipped():
    head = Gaussian(Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)), 0.0, CPU)
    # middle 0 and 5, half ranges 2 and 5
    actions = torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.5, 0.5], [7.0, -7.0]])
    assert head.to_environment(actions).tolist() == [[0.0, 5.0], [2.0, 0.0], [1.0, 7.5], [2.0, 0.0]]


def test_unbounded_actions_are_left_alone_and_half_bounds_are_kept():
    low, high = np.array([-np.inf, 0.0, -np.inf], np.float32), np.array([np.inf, np.inf, 1.0], np.float32)
    head = Gaussian(Box(low, high), 0.0, CPU)
    assert head.to_environment(torch.tensor([[3.0, 3.0, -3.0], [-30.0, -3.0, 3.0]])).tolist() == [[3, 3, -3], [-30, 0, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_lie_in_the_space(dtype):
    space = Box(-0.4, 0.4, (2, 3), dtype)  # 0.4 has no exact float32: the bound must not be passed by rounding
    head = Gaussian(space, 1.0, CPU)
    actions = head.to_environment(head.sample(torch.zeros(100, 6), stream())).detach().numpy()
    assert actions.shape == (100, 2, 3) and actions.dtype == dtype
    assert all(space.contains(action) for action in actions)
    assert abs(actions).max() == pytest.approx(0.4, abs=1e-6)


def test_head_by_space():
    assert isinstance(make_head(Discrete(2), 0.0, CPU), Categorical)
    assert isinstance(make_head(Box(-1, 1, (2,)), 0.0, CPU), Gaussian)
    for space in (MultiDiscrete([2, 3]), Box(0, 5, (2,), np.int64)):
        with pytest.raises(ConfigError, match="acts in Discrete and in Box spaces of floats"):
            make_head(space, 0.0, CPU)


# -- observations ------------------------------------------------------------------------------------------------------------


def test_observations_become_network_inputs():
    flat = Observations(Box(-1, 1, (2, 3), np.float64))
    assert flat.size == 6
    inputs = flat(torch.arange(12, dtype=torch.float64).reshape(2, 2, 3))
    assert inputs.dtype == torch.float32 and inputs.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_discrete_observations_become_one_hot_from_start():
    one_hot = Observations(Discrete(3, start=5))
    assert one_hot.size == 3
    assert one_hot(torch.tensor([5, 7, 6])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_scalar_observations_are_columns():
    assert Observations(Box(-1, 1, (), np.float32))(torch.tensor([0.5, 0.25])).tolist() == [[0.5], [0.25]]


def test_other_observation_spaces_are_refused():
    with pytest.raises(ConfigError, match="reads Box and Discrete observations"):
        Observations(gymnasium.spaces.Dict({"a": Discrete(2)}))


# -- networks ----------------------------------------------------------------------------------------------------------------


def mlp(inputs=4, sizes=(8, 6), outputs=3, activation="tanh", gain=0.01, seed=0) -> MLP:
    return MLP(inputs, list(sizes), outputs, activation=activation, output_gain=gain, generator=stream(seed))


def copy_of(network: MLP) -> nn.Sequential:
    """Return the same network made of torch's modules."""
    layers: list[nn.Module] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.data.clone(), bias.data.clone()
        layers += [linear, MODULES[network.activation]()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(), (8,), (8, 6), (5, 9, 7)])
def test_network_equals_torch_modules(activation, sizes):
    network, rows = mlp(sizes=sizes, activation=activation, gain=1.0), torch.randn(20, 4, generator=stream(1))
    with torch.no_grad():
        for bias in network.biases:
            bias += 0.1 * torch.randn(bias.shape, generator=stream(2))
    reference, slopes = copy_of(network), torch.randn(20, 3, generator=stream(3))
    outputs, expected = network.forward(rows), reference(rows)
    assert torch.allclose(outputs, expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(network.forward(rows), expected, atol=1e-6)

    torch.autograd.backward(outputs, slopes)
    torch.autograd.backward(expected, slopes)
    linears = [layer for layer in reference if isinstance(layer, nn.Linear)]
    for linear, weight, bias in zip(linears, network.weights, network.biases, strict=True):
        assert torch.allclose(weight.grad, linear.weight.grad, atol=1e-5)
        assert torch.allclose(bias.grad, linear.bias.grad, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_the_inputs_equals_torch_modules(activation):
    network, rows = mlp(activation=activation, gain=1.0), torch.randn(20, 4, generator=stream(1))
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    network.forward(ours).square().sum().backward()
    copy_of(network)(theirs).square().sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_leaves_its_inputs_alone(activation):
    rows = torch.randn(20, 4, generator=stream(1))
    kept = rows.clone()
    mlp(activation=activation).forward(rows)
    with torch.no_grad():
        mlp(activation=activation).forward(rows)
    assert torch.equal(rows, kept)


def test_gradients_of_two_passes_add_up():
    network, reference = mlp(gain=1.0), copy_of(mlp(gain=1.0))
    for seed in (1, 2):
        rows = torch.randn(20, 4, generator=stream(seed))
        network.forward(rows).square().sum().backward()
        reference(rows).square().sum().backward()
    assert torch.allclose(network.weights[0].grad, reference[0].weight.grad, atol=1e-4)
    assert torch.allclose(network.biases[2].grad, reference[4].bias.grad, atol=1e-4)


def test_initial_weights_are_orthogonal_with_their_gains():
    network = mlp(inputs=4, sizes=(16, 16), outputs=2, gain=0.01)
    first, second, last = (weight.detach() for weight in network.weights)
    assert torch.allclose(first.T @ first, 2 * torch.eye(4), atol=1e-5)  # gain sqrt(2), squared
    assert torch.allclose(second @ second.T, 2 * torch.eye(16), atol=1e-5)
    assert torch.allclose(last @ last.T, 1e-4 * torch.eye(2), atol=1e-8)
    assert all(not bias.any() for bias in network.biases)


def test_initial_weights_depend_on_the_stream_only():
    assert torch.equal(mlp(seed=1).weights[0], mlp(seed=1).weights[0])
    assert not torch.equal(mlp(seed=1).weights[0], mlp(seed=2).weights[0])
