"""Networks against torch.nn: outputs, gradients, and what they start from."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from rltrain.models.config import ACTIVATIONS, NetworkConfig
from rltrain.models.networks.torch import MLP, ActorCritic
from rltrain.optimizers.torch import FlatParameters

CPU = torch.device("cpu")
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU}
LAYER_NORM = pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(inputs=4, sizes=(8, 6), outputs=((3, 0.01),), seed=0, **cfg: Any) -> MLP:
    return MLP(inputs, list(sizes), outputs, NetworkConfig(**cfg), stream(seed))


def disturb(network: nn.Module) -> None:
    """Move what starts as zeros and ones, so that a mistake in it shows."""
    generator = stream(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def copy_of(network: MLP) -> nn.Sequential:
    """Return the same network made of torch's modules."""
    layers: list[nn.Module] = []
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.data.clone(), bias.data.clone()
        layers.append(linear)
        if len(network.scales) and i < len(network.scales):
            norm = nn.LayerNorm(len(weight))
            norm.weight.data, norm.bias.data = network.scales[i].data.clone(), network.shifts[i].data.clone()
            layers.append(norm)
        layers.append(MODULES[network.activation]())
    return nn.Sequential(*layers[:-1])


def pairs(network: MLP, reference: nn.Sequential) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return each parameter with the module's."""
    linears = [layer for layer in reference if isinstance(layer, nn.Linear)]
    norms = [layer for layer in reference if isinstance(layer, nn.LayerNorm)]
    found = [*zip(network.weights, (linear.weight for linear in linears), strict=True)]
    found += zip(network.biases, (linear.bias for linear in linears), strict=True)
    found += zip(network.scales, (norm.weight for norm in norms), strict=True)
    found += zip(network.shifts, (norm.bias for norm in norms), strict=True)
    assert len(found) == len(list(network.parameters()))
    return found


# -- perceptrons ---------------------------------------------------------------------------------------------------------------


@LAYER_NORM
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(), (8,), (8, 6), (5, 9, 7)])
def test_network_equals_torch_modules(activation, sizes, layer_norm):
    network = mlp(sizes=sizes, activation=activation, layer_norm=layer_norm, outputs=((3, 1.0),))
    disturb(network)
    rows = torch.randn(20, 4, generator=stream(1))
    reference, slopes = copy_of(network), torch.randn(20, 3, generator=stream(3))
    outputs, expected = network(rows), reference(rows)
    assert torch.allclose(outputs, expected, atol=1e-6)
    torch.autograd.backward(outputs, slopes)
    torch.autograd.backward(expected, slopes)
    for one, other in pairs(network, reference):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


@LAYER_NORM
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_the_inputs_equals_torch_modules(activation, layer_norm):
    network, rows = (
        mlp(activation=activation, layer_norm=layer_norm, outputs=((3, 1.0),)),
        torch.randn(20, 4, generator=stream(1)),
    )
    disturb(network)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    network(ours).square().sum().backward()
    copy_of(network)(theirs).square().sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


@LAYER_NORM
def test_gradients_of_two_passes_add_up(layer_norm):
    network = mlp(layer_norm=layer_norm, outputs=((3, 1.0),))
    reference = copy_of(network)
    for seed in (1, 2):
        rows = torch.randn(20, 4, generator=stream(seed))
        network(rows).square().sum().backward()
        reference(rows).square().sum().backward()
    for one, other in pairs(network, reference):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


@LAYER_NORM
def test_gradients_land_in_the_vector_of_all_gradients(layer_norm):
    network = mlp(layer_norm=layer_norm, outputs=((3, 1.0),))
    parameters = FlatParameters(dict(network.named_parameters()), CPU)
    reference, rows = copy_of(network), torch.randn(20, 4, generator=stream(1))
    for _ in range(2):  # clearing the vector clears what the next pass adds to
        parameters.gradients.zero_()
        network(rows).square().sum().backward()
    reference(rows).square().sum().backward()
    expected = {one: other.grad for one, other in pairs(network, reference)}
    flat = torch.cat([expected[parameter].flatten() for parameter in parameters.named.values()])
    assert torch.allclose(parameters.gradients, flat, atol=1e-4)


def test_layer_norm_by_hand():
    # z = (3, -1): mean 1, deviation 2: (1, -1); scaled by (2, 1), shifted by (0, 0.5): (2, -0.5); relu: (2, 0); their sum is 2
    network = mlp(inputs=2, sizes=(2,), outputs=((1, 1.0),), activation="relu", layer_norm=True)
    with torch.no_grad():
        network.weights[0].copy_(torch.eye(2))
        network.weights[1].copy_(torch.ones(1, 2))
        network.scales[0].copy_(torch.tensor([2.0, 1.0]))
        network.shifts[0].copy_(torch.tensor([0.0, 0.5]))
        assert float(network(torch.tensor([[3.0, -1.0]]))) == pytest.approx(2.0, abs=1e-4)


# -- what they start from --------------------------------------------------------------------------------------------------------


def test_initial_weights_are_orthogonal_with_their_gains():
    network = mlp(inputs=4, sizes=(16, 16), outputs=((2, 0.01),))
    first, second, last = (weight.detach() for weight in network.weights)
    assert torch.allclose(first.T @ first, 2 * torch.eye(4), atol=1e-5)  # gain sqrt(2), squared
    assert torch.allclose(second @ second.T, 2 * torch.eye(16), atol=1e-5)
    assert torch.allclose(last @ last.T, 1e-4 * torch.eye(2), atol=1e-8)
    assert all(not bias.any() for bias in network.biases)


def test_each_part_of_the_last_layer_has_its_own_gain():
    last = mlp(sizes=(16,), outputs=((3, 0.01), (1, 1.0), (2, 5.0))).weights[-1].detach()
    for part, gain in zip(last.split([3, 1, 2]), (0.01, 1.0, 5.0), strict=True):
        assert torch.allclose(part @ part.T, gain**2 * torch.eye(len(part)), atol=1e-5 * gain**2)


def test_without_hidden_layers_the_only_one_has_the_gain_of_the_last():
    weight = mlp(sizes=(), outputs=((2, 0.01),)).weights[0].detach()
    assert torch.allclose(weight @ weight.T, 1e-4 * torch.eye(2), atol=1e-8)


def test_default_initialisation_is_uniform_within_one_over_the_root_of_the_inputs():
    network = mlp(inputs=9, sizes=(400, 100), outputs=((50, 0.01), (1, 1.0)), initialization="default")
    for weight, bias, inputs in zip(network.weights, network.biases, (9, 400, 100), strict=True):
        bound = 1 / math.sqrt(inputs)
        values = weight.detach().flatten()
        assert abs(values).max() <= bound and abs(values).max() > 0.995 * bound
        # uniform: deviation bound / sqrt(3), quarters of the range equally often
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert (torch.histc(values, 4, -bound, bound) / len(values)).tolist() == pytest.approx([0.25] * 4, abs=0.02)
        assert 0.8 * bound < abs(bias.detach()).max() <= bound and bias.unique().numel() == bias.numel()


@LAYER_NORM
def test_layer_norm_starts_as_nothing_but_normalising(layer_norm):
    network = mlp(layer_norm=layer_norm, initialization="default")
    assert [len(scale) for scale in network.scales] == ([8, 6] if layer_norm else [])
    assert all((scale == 1).all() for scale in network.scales) and not any(shift.any() for shift in network.shifts)


@pytest.mark.parametrize("initialization", ["orthogonal", "default"])
def test_initial_weights_depend_on_the_stream_only(initialization):
    def weights(seed: int) -> torch.Tensor:
        return torch.cat(
            [parameter.detach().flatten() for parameter in mlp(seed=seed, initialization=initialization).parameters()]
        )

    first = weights(1)
    torch.manual_seed(123)
    assert torch.equal(weights(1), first) and not torch.equal(weights(2), first)


# -- policy and value ------------------------------------------------------------------------------------------------------------


def actor_critic(inputs=4, critic_inputs=4, outputs=3, **cfg: Any) -> ActorCritic:
    return ActorCritic(inputs, critic_inputs, outputs, NetworkConfig(**{"policy_sizes": [8, 6], **cfg}), stream(), CPU)


def gradients(networks: ActorCritic, rows: torch.Tensor, logits: torch.Tensor | None, values: torch.Tensor | None) -> dict:
    """Return the gradients by name of a loss with these gradients with respect to logits and values."""
    networks.zero_grad()
    given = [pair for pair in zip(networks(rows, rows), (logits, values), strict=True) if pair[1] is not None]
    torch.autograd.backward(*zip(*given, strict=True))
    none = {name: torch.zeros_like(parameter) for name, parameter in networks.named_parameters()}
    return none | {name: one.grad for name, one in networks.named_parameters() if one.grad is not None}


def test_policy_and_value_have_networks_of_their_own():
    networks = actor_critic(critic_inputs=7, value_sizes=[5])
    names = {"policy.weights.0": (8, 4), "policy.weights.2": (3, 6), "value.weights.0": (5, 7), "value.weights.1": (1, 5)}
    shapes = {name: tuple(parameter.shape) for name, parameter in networks.named_parameters()}
    assert names.items() <= shapes.items() and len(shapes) == 10
    rows, states = torch.randn(20, 4, generator=stream(1)), torch.randn(20, 7, generator=stream(2))
    logits, values = networks(rows, states)
    assert logits.shape == (20, 3) and values.shape == (20,)
    assert torch.allclose(logits, copy_of(networks.policy)(rows), atol=1e-6)
    assert torch.allclose(values, copy_of(networks.value)(states)[:, 0], atol=1e-6)


def test_gains_are_a_hundredth_for_the_policy_and_one_for_the_value():
    for shared in (False, True):
        parameters = dict(actor_critic(shared=shared, value_sizes=[8, 6] if not shared else [64, 64]).named_parameters())
        policy, value = (parameters[f"{'shared' if shared else name}.weights.2"].detach() for name in ("policy", "value"))
        assert torch.allclose(policy[:3] @ policy[:3].T, 1e-4 * torch.eye(3), atol=1e-8)
        assert float(value[-1] @ value[-1]) == pytest.approx(1.0, abs=1e-5)


@LAYER_NORM
def test_a_shared_network_gives_both_and_learns_from_both(layer_norm):
    networks, rows = actor_critic(shared=True, layer_norm=layer_norm), torch.randn(20, 4, generator=stream(1))
    disturb(networks)
    reference = copy_of(networks.shared)
    assert {name.partition(".")[0] for name, _ in networks.named_parameters()} == {"shared"}
    logits, values = networks(rows, rows)
    expected = reference(rows)
    assert torch.allclose(logits, expected[:, :3], atol=1e-6) and torch.allclose(values, expected[:, 3], atol=1e-6)

    slopes = torch.randn(20, 3, generator=stream(3)), torch.randn(20, generator=stream(4))
    of_logits, of_values = gradients(networks, rows, slopes[0], None), gradients(networks, rows, None, slopes[1])
    of_both = gradients(networks, rows, *slopes)
    for name, gradient in of_both.items():
        assert torch.allclose(gradient, of_logits[name] + of_values[name], atol=1e-5), name
        if not name.endswith(".2"):  # every layer but the last is reached by both
            assert of_logits[name].any() and of_values[name].any(), name
    assert not of_logits["shared.weights.2"][3].any() and not of_values["shared.weights.2"][:3].any()
    torch.autograd.backward(expected, torch.cat((slopes[0], slopes[1][:, None]), 1))
    for one, other in pairs(networks.shared, reference):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_networks_of_their_own_do_not_learn_from_each_other():
    networks, rows = actor_critic(), torch.randn(20, 4, generator=stream(1))
    of_logits = gradients(networks, rows, torch.ones(20, 3), None)
    assert {name.partition(".")[0] for name, gradient in of_logits.items() if gradient.any()} == {"policy"}
    of_values = gradients(networks, rows, None, torch.ones(20))
    assert {name.partition(".")[0] for name, gradient in of_values.items() if gradient.any()} == {"value"}
