"""The replay memory in JAX: on the device what `Replay` is on the host, for the same transitions."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rltrain.errors import ConfigError
from rltrain.memories.replay.host import Replay, Window
from rltrain.memories.replay.jax import ReplayMemory, ReplayOnDevice
from rltrain.structures import Transition

COPIES, TIMESTEPS, EVERY_ROW = 3, 7, 21
HOW: dict[str, Any] = {"discount_factor": 0.5, "n_steps": 3, "reward_scale": 2.0, "reward_clip": 3.0}


def make(window: Window | None = None) -> ReplayMemory:
    how = {**HOW, "window": window}
    return ReplayMemory(Replay(EVERY_ROW, COPIES, 0, **how), ReplayOnDevice(EVERY_ROW, COPIES, **how), "")


def fill(memory: ReplayMemory, timesteps: int, *, on_device: bool, masks: bool = True) -> None:
    """Record transitions whose numbers tell when they were; episodes end and are interrupted."""
    generator = np.random.default_rng(0)
    put = jax.numpy.asarray if on_device else np.asarray
    for t in range(timesteps):
        observations = np.stack((np.full(COPIES, t), np.arange(COPIES)), 1).astype(np.float32)
        terminated, truncated = generator.random((2, COPIES)) < 0.2
        following = observations + np.float32([1, 0])
        following[terminated | truncated] += 100  # the next row's observation is another episode's
        outputs = {"actions": generator.integers(0, 2, COPIES)}
        if memory.on_device.window is not None:
            outputs |= {
                "starts": generator.random(COPIES) < 0.3,
                "actions_before": np.float32(generator.normal(size=(COPIES, 2))),
            }
            outputs["carry.0"] = np.float32(generator.normal(size=(COPIES, 1, 4)))
        if masks:
            outputs["action_masks"] = generator.random((COPIES, 2)) < 0.7
        rewards = np.float32(generator.normal(size=COPIES))
        parts = [{"at": put(array)} for array in (observations, following)]
        memory.record(
            Transition(parts[0], None, None, parts[1], None, rewards, terminated, truncated, None, {}, outputs)  # type: ignore
        )
        if t == 4:
            memory.interrupt()


@pytest.mark.parametrize("timesteps", [7, 17])
def test_every_window_is_what_the_host_would_give(timesteps):
    """Of one step of burn-in and two to learn from; with those that three rewards reach, five timesteps."""
    window = Window(1, 2, 5)
    on_host, on_device = make(window), make(window)
    fill(on_host, timesteps, on_device=False)
    fill(on_device, timesteps, on_device=True)
    host, count = on_host.host, (TIMESTEPS - 5 + 1) * COPIES
    host._draw_firsts = lambda count: host._nth(np.arange(count))
    wanted = host.draw(count)
    oldest = int((on_device.rows.position - TIMESTEPS) % TIMESTEPS) * COPIES
    found = on_device.on_device.read(on_device.rows, (oldest + np.arange(count)) % EVERY_ROW)
    for sample in (wanted, found):  # what is allowed after the last row of an episode doesn't matter
        sample.outputs["next_action_masks"] = np.asarray(sample.outputs["next_action_masks"]) | (sample.discounts == 0)[..., None]
    for name in ("observations", "next_observations", "returns", "discounts", "outputs", "carry", "last", "last_actions"):
        one, other = getattr(wanted, name), getattr(found, name)
        assert jax.tree.structure(one) == jax.tree.structure(other), name
        jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(b), a, rtol=1e-6), one, other)
    # a window is one copy's, its rows follow one another, and it ends where the memory does at the latest
    times, copies = wanted.observations["at"][..., 0], wanted.observations["at"][..., 1]
    assert (np.diff(times, axis=1) == 1).all() and (copies == copies[:, :1]).all()
    assert times.min() == timesteps - TIMESTEPS and times.max() == timesteps - 1
    # the rewards end where an episode does: the last row's successor is the true one, that of the row itself
    ends = times[:, 1:][np.arange(count)[:, None], wanted.last]
    np.testing.assert_array_equal(wanted.next_observations["at"][..., 0] % 100, (ends + 1) % 100)
    assert (wanted.last >= [0, 1]).all() and (wanted.last <= [2, 3]).all() and (wanted.last < [2, 3]).any()
    assert wanted.outputs["actions"].shape == (count, 2) and wanted.outputs["starts"].shape == (count, 5)


@pytest.mark.parametrize("timesteps", [*(pytest.param(count, marks=pytest.mark.slow) for count in (1, 5)), 7, 17])
def test_every_row_is_what_the_host_would_give(timesteps):
    """Before it is full, when it is, and after it went round twice; a row after an interruption is another episode's."""
    on_host, on_device = make(), make()
    fill(on_host, timesteps, on_device=False)
    fill(on_device, timesteps, on_device=True)
    assert on_host.rows is None and on_host.host.filled == min(timesteps, TIMESTEPS) == int(on_device.rows.filled)
    filled, host = on_host.host.filled, on_host.host
    host._draw_rows = lambda count: host._nth(np.arange(filled * COPIES))
    wanted = host.draw(filled * COPIES)
    oldest = int((on_device.rows.position - filled) % TIMESTEPS) * COPIES
    found = on_device.on_device.read(on_device.rows, (oldest + np.arange(filled * COPIES)) % EVERY_ROW)
    ends = np.asarray(found.discounts) == 0
    np.testing.assert_array_equal(found.observations["at"], wanted.observations["at"])
    np.testing.assert_allclose(found.returns, wanted.returns, rtol=1e-6)
    np.testing.assert_array_equal(found.discounts, wanted.discounts)
    for name in ("actions", "action_masks"):
        np.testing.assert_array_equal(found.outputs[name], wanted.outputs[name])
    # where an episode terminated nothing is allowed next, or everything
    masks = "next_action_masks"
    np.testing.assert_array_equal(np.asarray(found.outputs[masks])[~ends], wanted.outputs[masks][~ends])
    np.testing.assert_array_equal(found.next_observations["at"], wanted.next_observations["at"])


def test_draws_are_uniform_over_what_is_there():
    memory = make()
    fill(memory, 4, on_device=True)
    rows = np.asarray(memory.on_device.draw_rows(memory.rows, jax.random.key(0), 24_000))
    counts = np.bincount(rows, minlength=EVERY_ROW)
    assert (counts[12:] == 0).all() and counts[:12] == pytest.approx(2000, rel=0.1)


def test_it_comes_back_where_it_was_and_refuses_what_does_not_fit():
    memory, again = make(), make()
    fill(memory, 10, on_device=True)
    again.restore(memory.snapshot())
    for a, b in zip(jax.tree.leaves(memory.rows), jax.tree.leaves(again.rows), strict=True):
        np.testing.assert_array_equal(a, b)
    small = ReplayMemory(Replay(9, COPIES, 0), ReplayOnDevice(9, COPIES, **HOW), "")
    with pytest.raises(ValueError, match="the memory there doesn't fit 3 timesteps of 3 copies"):
        small.restore(memory.snapshot())
    host_only = ReplayMemory(Replay(EVERY_ROW, COPIES, 0), ReplayOnDevice(EVERY_ROW, COPIES, **HOW), "agents.dqn.x=true keeps it")
    with pytest.raises(ValueError, match=r"the memory there was on the device, but agents\.dqn\.x=true keeps it"):
        host_only.restore(memory.snapshot())


def test_a_file_of_the_device_is_one_of_the_host(tmp_path):
    on_device, on_host = make(), make()
    fill(on_device, 6, on_device=True)
    assert on_device.count == 6 * COPIES
    on_device.export(tmp_path / "all.npz")
    on_host.load(tmp_path / "all.npz")
    there, here = np.load(tmp_path / "all.npz"), on_host.host.read()
    assert set(there.files) == set(here) and on_host.rows is None
    for name in ("observations/at", "next_observations/at", "rewards", "terminated", "actions"):
        np.testing.assert_array_equal(there[name], here[name], err_msg=name)
    with pytest.raises(ConfigError, match="this memory is on the device already"):
        on_device.load(tmp_path / "all.npz")
