"""Engines against `forward` and autograd: the same outputs and gradients, and the same learning without their files."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rltrain.agents.dqn.torch import DQN
from rltrain.agents.ppo.torch import PPO
from rltrain.agents.sac.torch import SAC
from rltrain.models.config import ACTIVATIONS, ActorCriticsConfig, NetworkConfig, QNetworkConfig
from rltrain.models.engines.torch import BLOCK, Autograd, Remembering
from rltrain.models.networks.torch import ActorCritic, Critics, FeedForward, Policy, QNetwork
from rltrain.models.sequences import Run, Sequences, Successors
from rltrain.optimizers.torch import FlatParameters
from rltrain.structures import Progress, Transition

CPU = torch.device("cpu")
ROWS = 20


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


INPUTS, STATES = torch.randn(ROWS, 4, generator=stream(1)), torch.randn(ROWS, 5, generator=stream(2))
ACTIONS = torch.randn(ROWS, 2, generator=stream(3))


@dataclass
class Kind:
    """A network, and what is read of it: by `forward`, by its engine, by its engine with a gradient's way back."""

    make: Callable[[dict[str, Any]], Any]
    forward: Callable[[Any], Any]
    read: Callable[[Any], Any]
    read_with_vjp: Callable[[Any], Any]


def actor_critic(how: dict[str, Any], **cfg: Any) -> ActorCritic:
    states = 4 if cfg.get("shared") else 5
    return ActorCritic(4, states, 3, NetworkConfig(policy_sizes=[8, 6], **cfg, **how), stream(), CPU)


def q_network(how: dict[str, Any], **cfg: Any) -> QNetwork:
    return QNetwork(4, 3, QNetworkConfig(sizes=[8, 6], **cfg, **how), stream(), CPU)


def critics(how: dict[str, Any], inputs: int, outputs: int) -> Critics:
    return Critics(2, inputs, outputs, ActorCriticsConfig(critic_sizes=[8, 6], **how), stream(), CPU)


KINDS = {
    "policy and value": Kind(
        actor_critic, lambda n: n(INPUTS, STATES), lambda n: (n.logits(INPUTS), n.values(STATES)),
        lambda n: n.logits_and_values_with_vjp(INPUTS, STATES),
    ),
    "shared": Kind(
        lambda how: actor_critic(how, shared=True), lambda n: n(INPUTS, INPUTS), lambda n: (n.logits(INPUTS), n.values(INPUTS)),
        lambda n: n.logits_and_values_with_vjp(INPUTS, INPUTS),
    ),
    "values of choices": Kind(q_network, lambda n: n(INPUTS), lambda n: n.values(INPUTS), lambda n: n.values_with_vjp(INPUTS)),
    "dueling": Kind(
        lambda how: q_network(how, dueling=True), lambda n: n(INPUTS), lambda n: n.values(INPUTS),
        lambda n: n.values_with_vjp(INPUTS),
    ),
    "policy": Kind(
        lambda how: Policy(4, 3, ActorCriticsConfig(policy_sizes=[8, 6], **how), stream(), CPU),
        lambda n: n(INPUTS), lambda n: n.logits(INPUTS), lambda n: n.logits_with_vjp(INPUTS),
    ),
    "critics": Kind(
        lambda how: critics(how, 6, 1), lambda n: n(INPUTS, ACTIONS)[:, :, 0], lambda n: n.values(INPUTS, ACTIONS),
        lambda n: n.values_with_vjp(INPUTS, ACTIONS),
    ),
    "critics of choices": Kind(
        lambda how: critics(how, 4, 3), lambda n: n(INPUTS), lambda n: n.values(INPUTS), lambda n: n.values_with_vjp(INPUTS)
    ),
}  # fmt: skip


def tuple_of(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def disturbed(network: Any) -> Any:
    """Return a network of which nothing is zero or one."""
    generator = stream(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def equal(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_autograd(kind, activation, layer_norm):
    case = KINDS[kind]
    network = disturbed(case.make({"activation": activation, "layer_norm": layer_norm}))
    expected = tuple_of(case.forward(network))
    back = [torch.randn(output.shape, generator=stream(4)) / ROWS for output in expected]
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(expected, parameters, back)
    for one, other in zip(tuple_of(case.read(network)), expected, strict=True):
        equal(one, other.detach())
        assert not one.requires_grad
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)  # gradients are added
    with torch.no_grad():
        *outputs, vjp = case.read_with_vjp(network)
        vjp(*back)
    for one, other in zip(outputs, expected, strict=True):
        equal(one, other.detach())
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.any()
        equal(parameter.grad - 1, gradient)


@pytest.mark.parametrize("count", [None, 1])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_actions_are_those_of_autograd(activation, layer_norm, count):
    network = disturbed(critics({"activation": activation, "layer_norm": layer_norm}, 6, 1))
    actions = ACTIONS.clone().requires_grad_()
    values = network(INPUTS, actions)[:count, :, 0]
    back = torch.randn(values.shape, generator=stream(4))
    expected = torch.autograd.grad(values, actions, back)[0]
    with torch.no_grad():
        outputs, vjp = network.values_with_vjp(INPUTS, ACTIONS, to_actions=True, count=count)
        gradient = vjp(back)
    equal(outputs, values.detach())
    equal(gradient, expected)
    assert all(parameter.grad is None for parameter in network.parameters())  # the critics learn nothing from it


def feed_forward(sizes: list[int], **cfg: Any) -> FeedForward:
    return disturbed(FeedForward(4, sizes, ((3, 1.0),), NetworkConfig(**cfg), stream()))


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [[], [8, 6]], ids=str)
def test_few_rows_are_worth_what_they_are_among_many(activation, sizes, layer_norm):
    network, rows = feed_forward(sizes, activation=activation, layer_norm=layer_norm), INPUTS.clone()
    expected = network(rows).detach()
    with torch.inference_mode():
        for count in (*range(1, 9), ROWS):
            equal(network.engine.infer(rows[:count]), expected[:count])
    assert torch.equal(rows, INPUTS)  # left as they were


def test_rows_follow_the_parameters_wherever_they_move():
    network = feed_forward([8, 6])
    flat = FlatParameters(dict(network.named_parameters()), CPU)
    for rows in (INPUTS[:1], INPUTS):
        assert network.engine.infer(rows).any()
    flat.values.zero_()
    for rows in (INPUTS[:1], INPUTS):
        assert not network.engine.infer(rows).any()


class Halves(torch.nn.Module):
    """An encoder that says how many rows it was asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.asked: list[int] = []

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.asked.append(len(inputs["a"]))
        return torch.cat((inputs["a"] * self.scale, inputs["b"]), 1)


def test_an_encoder_reads_long_rollouts_in_blocks():
    encoder = Halves()
    network = FeedForward(4, [8], ((3, 1.0),), NetworkConfig(), stream(), encoder)
    rows = torch.randn(2 * BLOCK + 7, 4, generator=stream(1))
    inputs = {"a": rows[:, :1], "b": rows[:, 1:]}
    expected = network(inputs).detach()
    encoder.asked.clear()
    equal(network.engine.infer(inputs), expected)
    assert encoder.asked == [BLOCK, BLOCK, 7]


# -- without the file of an engine ---------------------------------------------------------------------------------------------


def learned(name: str) -> dict[str, np.ndarray]:
    """Return an algorithm's parameters after a few updates on rows that depend on nothing."""
    space = Box(-2, 2, (2,), np.float32) if name == "sac" else Discrete(3)
    cfg: dict[str, Any] = {"learning_rate": 1e-3}
    if name == "ppo":
        cfg |= {"rollout_length": 4, "epochs": 2, "minibatches": 2}
    else:
        cfg |= {"learning_starts": 2, "batch_size": 8, "memory_size": 100, "update_interval": 2, "gradient_steps": 3}
    algorithm: Any = {"ppo": PPO, "dqn": DQN, "sac": SAC}[name](Box(-9, 9, (4,), np.float32), space, num_envs=2, cfg=cfg)
    generator, actor = np.random.default_rng(0), algorithm.init_actor(2, algorithm.actor_seed)
    nowhere = np.zeros(2, bool)
    for t in range(8):
        before, after = generator.normal(size=(2, 2, 4)).astype(np.float32)
        progress = Progress(t, 8)
        _, actions, outputs = algorithm.act(actor, torch.from_numpy(before), explore=True, progress=progress)
        kept = {key: value.numpy() for key, value in outputs.items()}
        rewards = generator.normal(size=2).astype(np.float32)
        algorithm.record(Transition(before, None, actions.numpy(), after, None, rewards, nowhere, nowhere, None, {}, kept))
        if algorithm.schedule.is_due(t):
            algorithm.update(progress)
    return algorithm.snapshot()["policy"]["parameters"]


@pytest.mark.parametrize("name", ["ppo", "dqn", "sac"])
def test_learning_is_the_same_without_the_engines_file(name, monkeypatch):
    by_hand = learned(name)
    monkeypatch.setitem(sys.modules, "rltrain.models.engines.by_hand.torch", None)  # to import it raises ImportError
    assert isinstance(feed_forward([8]).engine, Autograd)
    by_autograd = learned(name)
    assert by_hand.keys() == by_autograd.keys()
    for key, array in by_hand.items():
        np.testing.assert_allclose(by_autograd[key], array, rtol=0, atol=1e-6, err_msg=key)


# -- one row at a time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [None, torch.randn(6, 3, 2, generator=stream(3))], ids=["observations", "actions too"])
@pytest.mark.parametrize("encoder", [None, Halves()], ids=["rows of numbers", "an encoder"])
def test_unrolled_rows_are_those_of_steps_and_of_forward(encoder, actions):
    network = FeedForward(4 if actions is None else 6, [8], ((3, 1.0),), NetworkConfig(), stream(), encoder)
    rows = torch.randn(6, 3, 4, generator=stream(1))  # T, N
    read = (lambda x: x) if encoder is None else (lambda x: {"a": x[..., :1], "b": x[..., 1:]})
    outputs, carry, changes = network.unroll(
        read(rows), torch.zeros(6, 3, dtype=torch.bool), network.init_carry(3), actions=actions
    )
    assert outputs.shape == (6, 3, 3) and outputs.requires_grad and carry is None and changes == {}
    carry = network.init_carry(3)
    for t in range(6):
        now = None if actions is None else actions[t]
        step, carry = network.step(read(rows[t]), carry, actions=now)
        equal(step, outputs[t].detach())
        equal(network(read(rows[t]), now), outputs[t])


# -- what remembers --------------------------------------------------------------------------------------------------------------


class Widened(nn.Module):
    """An encoder of one's own: six features of four numbers."""

    size = 6

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.first(x))


@pytest.mark.parametrize("encoder", [False, True], ids=["numbers", "an encoder"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_cell_by_hand_is_the_one_of_autograd(cell, layers, encoder):
    cfg = NetworkConfig(cell=cell, cell_size=5, cell_layers=layers)
    network = disturbed(FeedForward(6 if encoder else 4, [7], [(3, 1.0)], cfg, stream(), Widened() if encoder else None))
    by_hand, by_autograd = network.engine, Remembering(network)
    assert type(by_hand) is not Remembering
    length, copies = 6, 3
    rows = torch.randn(length * copies, 4, generator=stream(1))
    starts = torch.rand(length, copies, generator=stream(2)) < 0.3
    carry = tuple(torch.randn(copies, layers, 5, generator=stream(3)) for _ in network.init_carry(copies))
    for every in (False, True):
        for one, other in zip(
            *(engine.unroll(rows, starts, carry, every=every) for engine in (by_hand, by_autograd)), strict=True
        ):
            for own, expected in zip(
                one if isinstance(one, tuple) else (one,), other if isinstance(other, tuple) else (other,), strict=True
            ):
                equal(own, expected)
    one, other = (engine.step(rows[:copies], carry) for engine in (by_hand, by_autograd))
    equal(one[0], other[0])
    for own, expected in zip(one[1], other[1], strict=True):
        equal(own, expected)
    gradients = []
    for engine in (by_autograd, by_hand):
        network.zero_grad(set_to_none=True)
        outputs, vjp = engine.unroll_and_vjp(rows, starts, carry)
        assert not outputs.requires_grad
        vjp(torch.randn(length, copies, 3, generator=stream(4)))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for expected, own in zip(*gradients, strict=True):
        assert expected.any()
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def cut(rows: torch.Tensor, starts: torch.Tensor, first: int, end: int) -> Run:
    return Run(rows[first:end], starts[first:end])


@pytest.mark.parametrize("stored", [False, True], ids=["from nothing", "from a stored state"])
@pytest.mark.parametrize("encoder", [False, True], ids=["numbers", "an encoder"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_sequences_by_hand_are_those_of_autograd_and_of_steps(cell, encoder, stored):
    """What is remembered before the rows to learn from; what follows one of them; gradients of parameters and of actions."""
    cfg = ActorCriticsConfig(cell=cell, cell_size=5)
    inputs, widened = (8, Widened()) if encoder else (6, None)
    network = disturbed(FeedForward(inputs, [7], [(1, 1.0)], cfg, stream(), widened, actions=2))
    engines = Remembering(network), network.engine
    assert type(engines[1]) is not Remembering
    burn_in, length, beyond, copies = 3, 4, 2, 3
    rows = torch.randn(burn_in + length + beyond, copies, 4, generator=stream(1))
    starts = torch.rand(rows.shape[:2], generator=stream(2)) < 0.2
    carry = tuple(torch.randn(copies, 1, 5, generator=stream(3)) for _ in network.init_carry(1)) if stored else None
    sequences = Sequences(cut(rows, starts, 0, burn_in), cut(rows, starts, burn_in, burn_in + length), carry)
    actions, next_rows = torch.randn(12, 2, generator=stream(4)), torch.randn(12, 4, generator=stream(5))
    last = torch.randint(length + beyond, (12,), generator=stream(6)) * copies + torch.arange(12) % copies
    successors = Successors(sequences._replace(rows=cut(rows, starts, burn_in, len(rows))), next_rows, last)
    # ---- by steps
    state, after, seen = carry or network.init_carry(copies), [], []
    for t in range(len(rows)):
        state = tuple(torch.where(starts[t][:, None, None], 0.0, part) for part in state)
        k = t - burn_in
        own = actions[k * copies : (k + 1) * copies] if 0 <= k < length else actions[:copies]
        output, state = network.step(rows[t], state, actions=own)
        seen.append(output)
        after.append(state)
    expected = torch.cat(seen[burn_in : burn_in + length])
    known = tuple(torch.cat([state[i] for state in after[burn_in:]])[last] for i in range(len(after[0])))
    following = network.step(next_rows, known, actions=actions)[0]
    # ---- as sequences
    gradients, back = [], torch.randn(12, 1, generator=stream(7))
    for engine in engines:
        equal(engine.infer(sequences, actions), expected)
        equal(engine.infer(successors, actions), following)
        network.zero_grad(set_to_none=True)
        outputs, vjp = engine.forward_and_vjp(sequences, actions, to_actions=True)
        equal(outputs, expected)
        to_actions = vjp(back)
        assert all(parameter.grad is None for parameter in network.parameters())
        outputs, vjp = engine.forward_and_vjp(sequences, actions)
        equal(outputs, expected)
        vjp(back)
        gradients.append([to_actions, *(parameter.grad.clone() for parameter in network.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", [False, True], ids=["numbers", "a common encoder"])
def test_critics_read_sequences_from_nothing_each_with_a_cell_of_its_own(encoder):
    cfg = ActorCriticsConfig(cell="gru", cell_size=5, critic_sizes=[7])
    own = Critics(2, 8 if encoder else 6, 1, cfg, stream(), CPU, Widened() if encoder else None, actions=2)
    rows, starts = torch.randn(5, 3, 4, generator=stream(1)), torch.zeros(5, 3, dtype=torch.bool)
    carry = tuple(torch.randn(3, 1, 5, generator=stream(3)) for _ in range(1))
    sequences = Sequences(cut(rows, starts, 0, 2), cut(rows, starts, 2, 5), carry)
    actions = torch.randn(9, 2, generator=stream(4))
    all_actions = torch.cat((actions.new_zeros(6, 2), actions)).view(5, 3, 2)
    found, vjp = own.values_with_vjp(sequences, actions)
    equal(found, own.values(sequences, actions))
    equal(found, own(sequences, actions)[:, :, 0])
    for i, network in enumerate(own.networks):
        read = own.encoder(rows) if encoder else rows
        outputs, _, _ = network.unroll(read, starts, network.init_carry(3), actions=all_actions)
        equal(found[i], outputs[2:].flatten())
    assert not torch.allclose(found[0], found[1])
    back = torch.randn(2, 9, generator=stream(5))
    wanted = torch.autograd.grad((own(sequences, actions)[:, :, 0] * back).sum(), list(own.parameters()))
    vjp(back)
    for parameter, gradient in zip(own.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5)
