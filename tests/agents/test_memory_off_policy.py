"""Off-policy agents that remember: sequences are read as acting read them, and targets with the state after the row."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltrain.agents.base import Agent
from rltrain.agents.ddpg.torch import DDPG
from rltrain.agents.dqn.torch import DQN
from rltrain.agents.sac.torch import SAC
from rltrain.errors import ConfigError
from rltrain.structures import Progress, Transition, starts_after
from rltrain.trainers.sharing import share_memories

COPIES, TIMESTEPS = 3, 40
OBSERVATIONS, BOX, CHOICES = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-2, 2, (2,), np.float32), spaces.Discrete(3)
PICTURES = spaces.Box(0, 255, (6, 6, 3), np.uint8)
SEQUENCES = {"sequence_length": 5, "burn_in": 3, "sequences": 16, "learning_starts": 10, "n_steps": 2, "memory_size": 200}


def make(kind: Any, cell: str = "gru", **cfg: Any) -> Any:
    sizes = {"sizes": [8]} if kind is DQN else {"policy_sizes": [8], "critic_sizes": [8]}
    network = {"cell": cell, "cell_size": 6, **sizes, **cfg.pop("network", {})}
    space, actions = cfg.pop("space", OBSERVATIONS), cfg.pop("actions", CHOICES if kind is DQN else BOX)
    return kind(space, actions, num_envs=COPIES, cfg={**SEQUENCES, "network": network, **cfg}, seed=0)


def play(algorithm: Any, *, valid: bool = False) -> list[dict[str, Any]]:
    """Record rows with episodes that end; keep what was observed, what acting carried and what it said."""
    generator, actor, rows = np.random.default_rng(0), algorithm.init_actor(COPIES, algorithm.actor_seed), []
    space = algorithm.inputs.space
    space.seed(0)
    draw = lambda: np.stack([space.sample() for _ in range(COPIES)])  # noqa: E731
    observations = draw()
    for t in range(TIMESTEPS):
        following, progress, before = draw(), Progress(t, 100), actor
        actor, actions, outputs = algorithm.act(actor, torch.from_numpy(observations), explore=True, progress=progress)
        after, _, said = algorithm.act(before, torch.from_numpy(observations), explore=False, progress=progress)
        terminated, truncated = generator.random((2, COPIES)) < 0.1
        happened = generator.random(COPIES) < 0.8 if valid else None
        rewards = generator.normal(size=COPIES).astype(np.float32)
        stored = {name: array.numpy() for name, array in outputs.items()}
        algorithm.record(
            Transition(
                observations, None, actions.numpy(), following, None, rewards, terminated, truncated, happened, {}, stored
            )
        )  # fmt: skip
        rows.append({"following": following, "logits": said["logits"], "truncated": truncated, "outputs": outputs})
        assert all(torch.equal(a, b) for a, b in zip(actor.carry[1], after.carry[1], strict=True))  # exploring remembers alike
        rows[-1]["after"] = actor.carry  # before it is reset
        actor = algorithm.reset_actor(actor, starts_after(terminated, truncated, happened))
        ended = (terminated | truncated).reshape(-1, *[1] * (following.ndim - 1))
        observations = np.where(ended, draw(), following)
    return rows


def batch_of_every_window(algorithm: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a batch of all windows there are; of each row learned from, the timestep and the copy."""
    memory, cfg = algorithm.memory, algorithm.cfg
    count = (TIMESTEPS - cfg.window + 1) * COPIES
    memory._draw_firsts = lambda count: memory._nth(np.arange(count))
    batch = algorithm._prepare_windows(memory.sample(count, 0.0))
    first = np.arange(count)
    times = first // COPIES + cfg.burn_in + np.arange(cfg.sequence_length)[:, None]  # (L, S)
    return batch, times.reshape(-1), np.broadcast_to(first % COPIES, times.shape).reshape(-1)


@pytest.mark.parametrize("valid", [pytest.param(False, marks=pytest.mark.slow), True], ids=["all rows", "dummy rows"])
@pytest.mark.parametrize(
    ("kind", "cfg"),
    [
        pytest.param(DQN, {"network": {"dueling": True}}, marks=pytest.mark.slow),
        (DQN, {"cell": "lstm", "network": {"remembers_actions": True, "cell_layers": 2}}),
        (SAC, {}),
        pytest.param(SAC, {"actions": CHOICES, "burn_in": 0}, marks=pytest.mark.slow),
        (SAC, {"space": PICTURES, "network": {"cnn": [[2, 3, 1], 5]}, "n_steps": 1}),
        (DDPG, {"noise": "ornstein_uhlenbeck", "cell": "rnn", "learning_starts": 0}),
    ],
    ids=["dueling", "lstm", "sac", "choices", "images", "drifting noise"],
)
def test_sequences_are_read_as_acting_read_them(kind, cfg, valid):
    algorithm = make(kind, **cfg)
    rows = play(algorithm, valid=valid)
    batch, times, copies = batch_of_every_window(algorithm)
    network = algorithm.acting
    with torch.no_grad():
        found = network.logits(batch.inputs)
    acted = torch.stack([rows[t]["logits"][copy] for t, copy in zip(times, copies, strict=True)])
    torch.testing.assert_close(found, acted, rtol=1e-4, atol=1e-5)
    # ---- successors: one step more, on the true one, with what was remembered after the row that ends a sum of rewards
    with torch.no_grad():
        following, last = network.logits(batch.next_inputs), batch.next_inputs.after.numpy()
    count = len(times) // algorithm.cfg.sequence_length
    cut = 0
    for i, (t, copy) in enumerate(zip(times, copies, strict=True)):
        at = last[i] // count + algorithm.cfg.burn_in + (t - algorithm.cfg.burn_in - i // count)
        cut += int(rows[at]["truncated"][copy])
        _, remembered, actions, _ = rows[at]["after"]
        known = tuple(part[copy : copy + 1] for part in remembered)
        successor = algorithm.inputs(torch.from_numpy(rows[at]["following"][copy : copy + 1]))
        if actions is not None:
            own = rows[at]["outputs"]["actions"][copy : copy + 1]
            successor = algorithm.inputs.join(successor, algorithm.distribution.as_numbers(own))
        with torch.no_grad():
            expected, _ = network.step(successor, known)
        torch.testing.assert_close(following[i : i + 1], expected, rtol=1e-4, atol=1e-5)
    assert cut > 10
    if valid:
        happened = batch.happened.numpy()
        assert 0.6 < happened.mean() < 1


def test_without_a_stored_state_a_sequence_begins_with_nothing():
    """As critics do: what is remembered after burn-in is of those rows alone."""
    algorithm = make(DQN, stored_state=False)
    play(algorithm)
    assert "carry.0" not in algorithm.memory.ring.outputs
    batch, _, _ = batch_of_every_window(algorithm)
    network, cfg = algorithm.acting.q, algorithm.cfg
    with torch.no_grad():
        found = algorithm.acting.logits(batch.inputs).view(cfg.sequence_length, -1, 3)
        before, run, _ = batch.inputs
        rows, starts = torch.cat((before.inputs, run.inputs)), torch.cat((before.starts, run.starts))
        whole, _, _ = network.unroll(rows, starts, network.init_carry(rows.shape[1]))
    torch.testing.assert_close(found, whole[cfg.burn_in :], rtol=1e-4, atol=1e-5)


def test_a_row_that_did_not_happen_changes_nothing_that_is_learned():
    """Gradients are means over the rows that happened, whatever the others say."""

    def learned(noise: float) -> np.ndarray:
        algorithm = make(SAC, prioritized=True, learning_rate=1e-2)
        play(algorithm, valid=True)
        ring = algorithm.memory.ring
        wrong = ~ring._arrays["valid"][:TIMESTEPS]
        ring._arrays["rewards"][:TIMESTEPS][wrong] += noise
        ring._arrays["actions"][:TIMESTEPS][wrong] += noise
        algorithm.update(Progress(TIMESTEPS, 100))
        return np.concatenate([array.ravel() for array in algorithm.snapshot()["policy"]["parameters"].values()])

    np.testing.assert_array_equal(learned(0.0), learned(0.1))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"memory_size": 20}, r"agents.dqn.memory_size=20: less than 9 timesteps of 3 copies, as long as a sequence with"),
        ({"batch_size": 32}, r"agents.dqn.batch_size=32: has no effect on networks that remember; set agents.dqn.sequences"),
        (
            {"network": {"cell": "none", "cell_size": 64}},
            r"agents.dqn.sequence_length=5: has no effect on networks that remember nothing; set",
        ),
        ({"network": {"cell": "gro"}}, r"agents.dqn.network.cell=gro"),
    ],
)
def test_settings_that_fit_no_memory_are_refused(cfg, message):
    with pytest.raises(ConfigError, match=message):
        play(make(DQN, **cfg))


@pytest.mark.parametrize(
    ("owner", "borrower", "message"),
    [
        ({}, {"stored_state": False}, r"agents.a.stored_state=true: another agent draws from that memory too"),
        ({"stored_state": False}, {}, r"agents.b.stored_state=true: another agent draws"),
        ({"stored_state": False}, None, r"agents.b.network.cell=none: a, whose memory it shares, has gru; give both a cell"),
        ({"stored_state": False}, {"stored_state": False, "cell": "lstm"}, ""),
    ],
)
def test_agents_that_share_a_memory_store_no_states(owner, borrower, message):
    second = {"memory_of": "a", "memory_size": 200}
    if borrower is None:
        last = DQN(OBSERVATIONS, CHOICES, num_envs=COPIES, cfg=second, seed=1)
    else:
        last = make(DQN, **second, **borrower)
    agents = [Agent(make(DQN, **owner), name="a"), Agent(last, name="b")]
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        share_memories(agents)
