"""An agent's networks are ordinary modules: autograd, torch.func, torch.export, optimisers of one's own."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rltrain.agents.dqn.torch import DQN
from rltrain.agents.ppo.torch import PPO
from rltrain.agents.sac.torch import SAC
from rltrain.models.config import NetworkConfig
from rltrain.models.networks.torch import MLP
from rltrain.optimizers.torch import Adam, FlatParameters
from rltrain.structures import Progress, Transition

CPU, COPIES, ROWS = torch.device("cpu"), 2, 20
IMAGES, NUMBERS = Box(0, 255, (6, 6, 3), np.uint8), Box(-9, 9, (4,), np.float32)
PARTS = {"ppo": "policy", "dqn": "q", "sac": "policy"}


def make(name: str, *, images: bool = False, seed: int = 0, **network: Any) -> Any:
    cfg: dict[str, Any] = {"learning_rate": 1e-3, "network": {"cnn": [[4, 3, 1], 8], **network} if images else network}
    if name == "ppo":
        cfg |= {"rollout_length": 4, "epochs": 2, "minibatches": 2}
    else:
        cfg |= {"learning_starts": 0, "batch_size": 8, "memory_size": 100, "update_interval": 4, "gradient_steps": 3}
    algorithm, space = {"ppo": PPO, "dqn": DQN, "sac": SAC}[name], Box(-2, 2, (2,), np.float32) if name == "sac" else Discrete(3)
    return algorithm(IMAGES if images else NUMBERS, space, num_envs=COPIES, cfg=cfg, seed=seed)


def network_of(algorithm: Any) -> nn.Module:
    """Return the network that acts."""
    if isinstance(algorithm, PPO):
        return algorithm.networks.policy
    return algorithm.learners["q" if isinstance(algorithm, DQN) else "policy"].network


def rows_of(algorithm: Any, seed: int = 1, rows: int = ROWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if algorithm.inputs.images:
        return torch.randint(256, (rows, 6, 6, 3), generator=generator, dtype=torch.uint8)
    return torch.randn(rows, 4, generator=generator)


def play(algorithm: Any, timesteps: int = 4, seed: int = 0) -> None:
    """Record rows that depend on nothing but the seed."""
    generator, actor = np.random.default_rng(seed), algorithm.init_actor(COPIES, seed)
    nowhere = np.zeros(COPIES, bool)
    for t in range(timesteps):
        before, after = (rows_of(algorithm, 100 * seed + 2 * t + i, COPIES).numpy() for i in range(2))
        _, actions, outputs = algorithm.act(actor, torch.from_numpy(before), explore=True, progress=Progress(t, 10))
        kept = {key: value.numpy() for key, value in outputs.items()}
        rewards = generator.normal(size=COPIES).astype(np.float32)
        algorithm.record(Transition(before, None, actions.numpy(), after, None, rewards, nowhere, nowhere, None, {}, kept))


CASES = [("ppo", False), ("ppo", True), ("dqn", False), ("dqn", True), ("sac", False), ("sac", True)]
EACH = pytest.mark.parametrize(("name", "images"), CASES, ids=[f"{name}{', images' if images else ''}" for name, images in CASES])


@EACH
def test_backward_and_grad_reach_every_parameter(name, images):
    algorithm = make(name, images=images)
    network, rows = network_of(algorithm), rows_of(algorithm)
    expected = torch.autograd.grad(network(rows).square().sum(), list(network.parameters()))
    network.zero_grad(set_to_none=True)
    network(rows).square().sum().backward()
    for (key, parameter), gradient in zip(network.named_parameters(), expected, strict=True):
        assert gradient.any(), key
        assert torch.equal(parameter.grad, gradient)


def plain(network: MLP, x: torch.Tensor) -> torch.Tensor:
    """Return what a perceptron gives, written out in double precision."""
    layers = [(weight.double(), bias.double()) for weight, bias in zip(network.weights, network.biases, strict=True)]
    for weight, bias in layers[:-1]:
        x = torch.tanh(x @ weight.T + bias)
    return x @ layers[-1][0].T + layers[-1][1]


def test_second_derivatives():
    """Of a gradient penalty, |d outputs / d observations|^2, with respect to the parameters."""
    network = make("ppo", policy_sizes=[8, 6]).networks.policy
    found = []
    for function, kind in ((network, torch.float32), (lambda x: plain(network, x), torch.float64)):
        rows = rows_of(make("ppo")).to(kind).requires_grad_()
        slopes = torch.autograd.grad(function(rows).sum(), rows, create_graph=True)[0]
        found.append(torch.autograd.grad(slopes.square().mean(), list(network.weights)))
    for one, other in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@EACH
def test_func_grad_is_autograds(name, images):
    algorithm = make(name, images=images)
    network, rows = network_of(algorithm), rows_of(algorithm)
    parameters = dict(network.named_parameters())
    detached = {key: parameter.detach() for key, parameter in parameters.items()}
    found = torch.func.grad(lambda p: torch.func.functional_call(network, p, (rows,)).square().mean())(detached)
    expected = torch.autograd.grad(network(rows).square().mean(), list(parameters.values()))
    for key, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(found[key], gradient, rtol=1e-6, atol=1e-7)
    # one gradient for each row, whose mean is that of all
    one = torch.func.grad(lambda p, row: torch.func.functional_call(network, p, (row[None],)).square().mean())
    each = torch.func.vmap(one, (None, 0))(detached, rows)
    for key, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(each[key].mean(0), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("images", [False, True], ids=["numbers", "images"])
def test_export_runs_as_the_network_does(images):
    algorithm = make("ppo", images=images)
    network, rows = algorithm.networks.policy, rows_of(algorithm)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (rows,), dynamic_shapes=({0: batch},))
    other = rows_of(algorithm, 2, 7)
    torch.testing.assert_close(program.module()(other), network(other), rtol=1e-6, atol=1e-6)


# -- optimisers of one's own -----------------------------------------------------------------------------------------------------


@EACH
def test_an_optimiser_of_ones_own_moves_what_acting_reads(name, images):
    algorithm = make(name, images=images)
    network, rows = network_of(algorithm), rows_of(algorithm)
    for count in (1, ROWS):  # acting in NumPy and in torch
        algorithm.act(algorithm.init_actor(count, 0), rows[:count], explore=False, progress=Progress(0, 1))
    last = [parameter for key, parameter in network.named_parameters() if key.endswith("biases.2")]
    others = {key: parameter.detach().clone() for key, parameter in network.named_parameters() if not key.endswith("biases.2")}
    before = network(rows).detach()
    optimizer = torch.optim.SGD(last, lr=1.0)
    network(rows).sum().backward()  # of each output's bias: the number of rows
    optimizer.step()
    for key, parameter in network.named_parameters():
        assert key not in others or torch.equal(parameter, others[key])
    for count in (1, ROWS):
        _, _, outputs = algorithm.act(algorithm.init_actor(count, 0), rows[:count], explore=False, progress=Progress(0, 1))
        torch.testing.assert_close(outputs["logits"], before[:count] - ROWS, rtol=1e-5, atol=1e-5)


def leave_none(network: nn.Module, rows: Any) -> None:
    network.zero_grad(set_to_none=True)


def leave_gradients(network: nn.Module, rows: Any) -> None:
    network(rows).square().sum().backward()


def replace(network: nn.Module, rows: Any) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 37.0)


@pytest.mark.parametrize("leave", [leave_none, leave_gradients, replace])
@EACH
def test_what_is_left_in_the_gradients_does_not_reach_the_next_update(name, images, leave):
    results = []
    for disturbs in (False, True):
        algorithm = make(name, images=images)
        for seed in range(3):
            play(algorithm, seed=seed)
            if disturbs:
                leave(network_of(algorithm), rows_of(algorithm))
            algorithm.update(Progress(3, 10))
        results.append(algorithm.snapshot())
    np.testing.assert_equal(results[1], results[0])


def test_a_second_vector_of_the_same_parameters_is_refused():
    algorithm = make("ppo")
    with pytest.raises(ValueError, match=r"weights.0 is part of a vector already; an optimiser of one's own takes"):
        FlatParameters(dict(algorithm.networks.policy.named_parameters()), CPU)


@pytest.mark.parametrize("between", ["nothing", "none", "another tensor"])
def test_a_loss_written_as_in_the_paper_steps_as_torchs_own_adam(between):
    """Between `clear_gradients` and `clip_gradients` a loss may put its gradients wherever autograd does."""
    networks = [MLP(4, [8], ((3, 1.0),), NetworkConfig(), torch.Generator().manual_seed(0)) for _ in range(2)]
    flat = FlatParameters(dict(networks[0].named_parameters()), CPU)
    ours, theirs = Adam(flat, 0.01), torch.optim.Adam(networks[1].parameters(), lr=0.01)
    rows = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        flat.clear_gradients()
        theirs.zero_grad()
        for parameter in networks[0].parameters():
            if between != "nothing":
                parameter.grad = None if between == "none" else torch.zeros_like(parameter)
        for network in networks:
            network(rows).square().mean().backward()
        norm = flat.clip_gradients(0.1)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(networks[1].parameters(), 0.1))
        ours.step()
        theirs.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
