"""Policies that remember: what learning unrolls is what acting did, and bootstraps are of the state after the row."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rltrain.agents.ppo.torch import PPO
from rltrain.models.cells.torch import Cell
from rltrain.structures import Progress, Transition, starts_after

COPIES, LENGTH = 3, 12
OBSERVATIONS = spaces.Box(-1, 1, (2,), np.float32)
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_torchs(kind, layers):
    cell = Cell(kind, 4, 5, layers, "orthogonal", torch.Generator().manual_seed(0))
    theirs = CELLS[kind](4, 5, layers)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        for i in range(layers):
            for name, own in (
                ("weight_ih", cell.weights),
                ("bias_ih", cell.biases),
                ("weight_hh", cell.hidden_weights),
                ("bias_hh", cell.hidden_biases),
            ):
                getattr(theirs, f"{name}_l{i}").copy_(own[i])
    x, carry = torch.randn(7, 3, 4), tuple(torch.randn(3, layers, 5) for _ in cell.init_carry(3))
    out, after = cell(x, torch.zeros(7, 3, dtype=torch.bool), carry)
    states = [part.transpose(0, 1).contiguous() for part in carry]
    expected, last = theirs(x, tuple(states) if kind == "lstm" else states[0])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(after, last if kind == "lstm" else (last,), strict=True):
        torch.testing.assert_close(one, other.transpose(0, 1), rtol=1e-5, atol=1e-6)
    # step by step it is the same, and every carry is there
    _, every = cell(x, torch.zeros(7, 3, dtype=torch.bool), carry, every=True)
    for t in range(7):
        row, carry = cell.step(x[t], carry)
        torch.testing.assert_close(row, out[t], rtol=1e-5, atol=1e-6)
        for one, other in zip(carry, every, strict=True):
            torch.testing.assert_close(one, other[t], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CELLS)
def test_two_episodes_in_one_unroll_are_two_unrolls(kind):
    cell = Cell(kind, 4, 5, 2, "default", torch.Generator().manual_seed(0))
    x, starts = torch.randn(9, 2, 4), torch.zeros(9, 2, dtype=torch.bool)
    starts[4, 1] = True
    carry = tuple(torch.randn(2, 2, 5) for _ in cell.init_carry(2))
    out, _ = cell(x, starts, carry)
    alone, _ = cell(x[:, :1], starts[:, :1], tuple(part[:1] for part in carry))
    second, _ = cell(x[4:, 1:], torch.zeros(5, 1, dtype=torch.bool), cell.init_carry(1))
    torch.testing.assert_close(out[:, :1], alone)
    torch.testing.assert_close(out[4:, 1:], second)


def make(**cfg: Any) -> PPO:
    network = {"cell": "gru", "cell_size": 6, "policy_sizes": [5], **cfg.pop("network", {})}
    cfg = {"rollout_length": LENGTH, "epochs": 1, "minibatches": 1, "network": network, **cfg}
    return PPO(OBSERVATIONS, spaces.Discrete(3), num_envs=COPIES, cfg=cfg, seed=0)


def play(algorithm: PPO, actor: Any, generator: np.random.Generator, seen: list[Any], valid: bool = False) -> Any:
    """Record a rollout with episodes that end; keep what was observed and what acting said about it."""
    for t in range(LENGTH):
        observations, following = generator.normal(size=(2, COPIES, 2)).astype(np.float32)
        before = actor
        actor, actions, outputs = algorithm.act(actor, torch.from_numpy(observations), explore=True, progress=Progress(t, 100))
        _, _, said = algorithm.act(before, torch.from_numpy(observations), explore=False, progress=Progress(t, 100))
        terminated, truncated = generator.random((2, COPIES)) < 0.15
        happened = generator.random(COPIES) < 0.8 if valid else None
        algorithm.record(
            Transition(
                observations,
                None,
                actions.numpy(),
                following,
                None,
                generator.normal(size=COPIES).astype(np.float32),
                terminated,
                truncated,
                happened,
                {},
                {name: array.numpy() for name, array in outputs.items()},
            )
        )
        seen.append((observations, said["logits"].numpy(), outputs["starts"].numpy(), truncated, following))
        actor = algorithm.reset_actor(actor, starts_after(terminated, truncated, happened))
        begins = terminated | truncated | (False if happened is None else ~happened)
        assert np.array_equal(actor.carry[0].numpy(), begins)
        assert all(not part[begins].any() and part[~begins].any(-1).all() for part in actor.carry[1])
    return actor


@pytest.mark.parametrize("network", [{}, {"cell": "lstm", "cell_layers": 2}, {"shared": True}], ids=str)
@pytest.mark.parametrize("valid", [False, True], ids=["all rows", "dummy rows"])
def test_learning_unrolls_what_acting_did_over_rollouts(network, valid):
    algorithm, generator, seen = make(network=network, learning_rate=1e-9), np.random.default_rng(0), []
    actor, batches, improve = algorithm.init_actor(COPIES, 1), [], algorithm.improve
    algorithm.improve = lambda batch, progress: (batches.append((batch, algorithm.evaluate(batch))), improve(batch, progress))[1]
    for update in range(3):
        actor = play(algorithm, actor, generator, seen, valid)
        algorithm.update(Progress((update + 1) * LENGTH - 1, 100))
    for k, (_, evaluation) in enumerate(batches):
        rows = seen[k * LENGTH : (k + 1) * LENGTH]
        acted = np.stack([logits for _, logits, *_ in rows]).swapaxes(0, 1).reshape(COPIES * LENGTH, -1)  # copy by copy
        np.testing.assert_allclose(evaluation.logits.numpy(), acted, rtol=1e-4, atol=1e-5)
    assert sum(starts.sum() for _, _, starts, *_ in seen) > COPIES + 5


def test_sequences_begin_with_what_was_remembered_there():
    whole, parts = make(), make(sequence_length=4)
    evaluations = []
    for algorithm in (whole, parts):
        play(algorithm, algorithm.init_actor(COPIES, 1), np.random.default_rng(0), [])
        batch = algorithm._prepare(algorithm.memory.read())
        evaluations.append((batch, algorithm.evaluate(batch)))
    for name in ("log_probs", "values", "entropies"):
        one, other = (getattr(evaluation, name) for _, evaluation in evaluations)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert [len(batch.carries["0"]) for batch, _ in evaluations] == [COPIES, COPIES * 3]


@pytest.mark.parametrize("actions", [False, True], ids=["observations", "actions too"])
def test_a_successor_is_read_with_what_is_remembered_after_its_row(actions):
    """By hand: the value network's cell unrolled over each episode, and one step more where it was cut."""
    algorithm, seen = make(discount_factor=0.5, gae_lambda=1.0, network={"remembers_actions": actions}), []
    play(algorithm, algorithm.init_actor(COPIES, 1), np.random.default_rng(3), seen)
    network, found = algorithm.networks.value, []
    rollout = algorithm.memory.read()
    keep = algorithm._remember
    algorithm._remember = lambda *given: (found.append(keep(*given)), found[-1])[1]
    algorithm._prepare(rollout)
    _, values, last_values, _ = found[0]
    rows = rollout.last_rows.tolist()
    assert len(rows) > COPIES
    with torch.no_grad():
        for copy in range(COPIES):
            carry = network.init_carry(1)
            before = torch.zeros(1, 3)  # the action, one-hot
            for t, (observations, _, starts, truncated, following) in enumerate(seen):
                carry = network.init_carry(1) if starts[copy] else carry
                before = torch.zeros(1, 3) if starts[copy] else before

                def read(rows, copy=copy):
                    own = torch.from_numpy(rows[copy : copy + 1])
                    return torch.cat((own, before), 1) if actions else own  # noqa: B023

                value, carry = network.step(read(observations), carry)
                before = nn.functional.one_hot(rollout.outputs["actions"][t, copy : copy + 1], 3).float()
                torch.testing.assert_close(values[t, copy], value[0, 0], rtol=1e-5, atol=1e-6)
                if truncated[copy]:
                    expected, _ = network.step(read(following), carry)
                    torch.testing.assert_close(last_values[rows.index(t * COPIES + copy)], expected[0, 0], rtol=1e-5, atol=1e-6)


def test_copies_in_another_order_learn_the_same():
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(LENGTH, COPIES, 2)).astype(np.float32)
    starts = generator.random((LENGTH, COPIES)) < 0.2
    network = make().networks.policy
    order = [2, 0, 1]
    rows = [torch.from_numpy(array) for array in (observations, starts, observations[:, order], starts[:, order])]
    one, _, _ = network.unroll(rows[0], rows[1], network.init_carry(COPIES))
    other, _, _ = network.unroll(rows[2], rows[3], network.init_carry(COPIES))
    torch.testing.assert_close(one[:, order], other, rtol=1e-5, atol=1e-6)
