"""Parameters as one vector, and Adam and RMSProp on it, against torch's own."""

import numpy as np
import pytest
import torch
from torch import nn

from rltrain.models.config import NetworkConfig
from rltrain.models.networks.torch import MLP
from rltrain.optimizers.torch import Adam, FlatParameters, RMSProp

CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp() -> MLP:
    return MLP(4, [8, 6], ((3, 0.01),), NetworkConfig(), stream())


def copy_of(network: MLP) -> nn.Sequential:
    """Return the same network made of torch's modules."""
    layers: list[nn.Module] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.data.clone(), bias.data.clone()
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def flat() -> tuple[MLP, FlatParameters]:
    network = mlp()
    return network, FlatParameters(dict(network.named_parameters()), CPU)


def test_flattening_keeps_the_numbers():
    network, parameters = flat()
    before = mlp()
    assert parameters.values.numel() == 4 * 8 + 8 + 8 * 6 + 6 + 6 * 3 + 3
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True))


def assert_views(network: MLP, parameters: FlatParameters) -> None:
    """Writing to the vector must be seen in the modules, and a backward pass in the gradient vector."""
    with torch.no_grad():
        kept = parameters.values.clone()
        parameters.values += 1.0
        assert torch.equal(torch.cat([p.flatten() for p in parameters.named.values()]), parameters.values)
        parameters.values.copy_(kept)
    parameters.gradients.zero_()
    network.forward(torch.randn(7, 4, generator=stream(1))).square().sum().backward()
    reference = copy_of(network)
    reference(torch.randn(7, 4, generator=stream(1))).square().sum().backward()
    expected = {f"weights.{i}": reference[2 * i].weight.grad for i in range(3)}
    expected |= {f"biases.{i}": reference[2 * i].bias.grad for i in range(3)}
    start = 0
    for name, parameter in parameters.named.items():
        piece = parameters.gradients[start : start + parameter.numel()].view(parameter.shape)
        assert torch.allclose(piece, expected[name], atol=1e-6), name
        start += parameter.numel()


def test_views_stay_views():
    network, parameters = flat()
    assert_views(network, parameters)
    optimizer = Adam(parameters, 0.1)
    for _ in range(3):
        optimizer.step()
    assert_views(network, parameters)
    parameters.restore(parameters.snapshot())
    assert_views(network, parameters)


def test_an_optimizer_step_moves_the_modules_as_torchs_own():
    network, parameters = flat()
    reference, rows = copy_of(network), torch.randn(20, 4, generator=stream(1))
    ours = Adam(parameters, 0.1, epsilon=1e-5)
    theirs = torch.optim.Adam(reference.parameters(), lr=0.1, eps=1e-5)
    for _ in range(5):
        parameters.gradients.zero_()
        network.forward(rows).square().sum().backward()
        ours.step()
        theirs.zero_grad()
        reference(rows).square().sum().backward()
        theirs.step()
    assert torch.allclose(network.forward(rows), reference(rows), atol=1e-5)


@pytest.mark.parametrize("theirs", [torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-5])
def test_many_steps_equal_torchs_own(theirs, epsilon):
    """Gradients of every size, of either sign and 0, over 300 steps; the learning rate changes on the way."""
    sizes = torch.logspace(-6, 4, 50)
    parameter = nn.Parameter(torch.linspace(-1, 1, 50))
    expected = nn.Parameter(parameter.detach().clone())
    parameters = FlatParameters({"p": parameter}, CPU)
    made = {torch.optim.Adam: Adam, torch.optim.RMSprop: RMSProp}[theirs]
    ours, reference = made(parameters, 0.01, epsilon=epsilon), theirs([expected], lr=0.01, eps=epsilon)
    if theirs is torch.optim.RMSprop:  # ours begins with second moments of 1
        reference.state[expected] = {"step": torch.tensor(0.0), "square_avg": torch.ones(50)}
    generator = stream()
    for i in range(300):
        gradient = sizes * torch.randn(50, generator=generator) * (torch.rand(50, generator=generator) < 0.8)
        parameters.gradients.copy_(gradient)
        expected.grad = gradient.clone()
        ours.learning_rate = reference.param_groups[0]["lr"] = 0.01 / (1 + i // 100)
        ours.step()
        reference.step()
        assert torch.allclose(parameter, expected, rtol=1e-5, atol=1e-5), i
    assert float((parameter - torch.linspace(-1, 1, 50)).abs().detach().mean()) > 0.03  # they have moved meanwhile


def test_gradients_are_clipped_by_their_common_norm():
    _, parameters = flat()
    parameters.gradients.zero_()
    parameters.gradients[:2] = torch.tensor([3.0, 4.0])
    assert float(parameters.clip_gradients(0.0)) == 5.0 and parameters.gradients[:2].tolist() == [3.0, 4.0]
    assert float(parameters.clip_gradients(10.0)) == 5.0 and parameters.gradients[:2].tolist() == [3.0, 4.0]
    assert float(parameters.clip_gradients(0.5)) == 5.0  # the norm before
    assert parameters.gradients[:2].tolist() == pytest.approx([0.3, 0.4], abs=1e-6)


def test_snapshot_is_a_copy_by_name():
    network, parameters = flat()
    snapshot = parameters.snapshot()
    kept = {name: array.copy() for name, array in snapshot.items()}
    assert list(snapshot) == [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        parameters.values += 1
    assert all(np.array_equal(snapshot[name], kept[name]) for name in kept)
    parameters.restore(snapshot)
    assert all(np.array_equal(array, kept[name]) for name, array in parameters.snapshot().items())


def test_a_wrong_shape_is_refused():
    _, parameters = flat()
    snapshot = parameters.snapshot()
    snapshot["weights.1"] = snapshot["weights.1"][:1]  # would be broadcast without a word
    with pytest.raises(ValueError, match=r"weights.1 has shape \(1, 8\) there and \(6, 8\) here"):
        parameters.restore(snapshot)


def test_a_missing_parameter_is_named():
    _, parameters = flat()
    snapshot = parameters.snapshot()
    del snapshot["biases.2"]
    with pytest.raises(ValueError, match=r"biases\.2 is not there"):
        parameters.restore(snapshot)


def test_one_step_by_hand():
    # g = 2: m = 0.2, v = 0.004; corrected m / 0.1 = 2, v / 0.001 = 4; p - lr 2 / (2 + 1) = 1 - 0.3 * 2 / 3 = 0.8
    network = torch.nn.Parameter(torch.tensor([1.0]))
    parameters = FlatParameters({"p": network}, CPU)
    optimizer = Adam(parameters, 0.3, epsilon=1.0)
    parameters.gradients[:] = 2.0
    optimizer.step()
    assert float(network.detach()) == pytest.approx(0.8, abs=1e-6)


def test_one_step_of_rmsprop_by_hand():
    # g = sqrt(13): v = 0.75 + 0.25 x 13 = 4; p - lr g / (2 + 1) = 1 - 0.3 x 1.2018504 = 0.6394449; then g = 0: v = 3, p stays
    network = torch.nn.Parameter(torch.tensor([1.0]))
    parameters = FlatParameters({"p": network}, CPU)
    optimizer = RMSProp(parameters, 0.3, epsilon=1.0, decay=0.75)
    parameters.gradients[:] = 13**0.5
    optimizer.step()
    assert float(network.detach()) == pytest.approx(0.6394449, abs=1e-6)
    parameters.gradients[:] = 0.0
    optimizer.step()
    assert float(network.detach()) == pytest.approx(0.6394449, abs=1e-6)
    assert optimizer.snapshot()["second_moments"].tolist() == pytest.approx([3.0], abs=1e-6)


@pytest.mark.parametrize("optimizer_class", [Adam, RMSProp])
def test_an_optimizer_goes_on_from_a_snapshot(optimizer_class):
    (_, one), (_, other) = flat(), flat()
    a, b = optimizer_class(one, 0.1), optimizer_class(other, 0.1)
    for parameters, optimizer in ((one, a), (other, b)):
        parameters.gradients[:] = torch.linspace(-1, 1, parameters.gradients.numel())
        optimizer.step()
    snapshot = b.snapshot()
    b.step()  # does not write into what was taken
    other.restore(one.snapshot())
    c = optimizer_class(other, 0.1)
    c.restore(snapshot)
    a.step()
    c.step()
    assert torch.equal(one.values, other.values)
