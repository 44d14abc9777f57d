"""A memory that two agents share: one records copy 0, the other copies 1 and 2; both draw from all three, each in its own way."""

from typing import Any

import numpy as np
import pytest

from rltrain.checkpoints import decode, encode
from rltrain.errors import ConfigError, RunError
from rltrain.memories.replay.host import Replay
from rltrain.structures import Transition


def row(
    observations: list[float], successors: list[float], *, terminated: Any = False, truncated: Any = False, **outputs: Any
) -> Transition:
    """Return a row whose rewards and actions are its observations."""
    numbers = np.array(observations, np.float32)
    outputs = outputs or {"actions": numbers.astype(np.int64)}
    flags = [np.broadcast_to(flag, len(numbers)) for flag in (terminated, truncated)]
    following = np.array(successors, np.float32)[:, None]
    return Transition(numbers[:, None], None, None, following, None, numbers, *flags, None, {}, outputs)


def together(**how: Any) -> tuple[Replay, Replay]:
    """Return two that share a memory of four timesteps."""
    a = Replay(12, 1, 0, discount_factor=0.9, key="agents.a", **how)
    b = Replay(99, 2, 1, discount_factor=0.5, n_steps=2, reward_scale=10.0, key="agents.b", **how)
    a.share([b])
    return a, b


# (a's copy, b's copies): copy 1 is truncated in the second timestep, its true successor is 99; copy 2 terminates in the third
ROWS = [
    (row([0], [10]), row([1, 2], [11, 12])),
    (row([10], [20]), row([11, 12], [99, 22], truncated=[True, False])),
    (row([20], [30]), row([21, 22], [31, 32], terminated=[False, True])),
]


def recorded(*memories: Replay) -> tuple[Replay, ...]:
    for rows in ROWS:
        for memory, own in zip(memories, rows, strict=True):
            memory.record(own)
    return memories


def found(memory: Replay) -> dict[float, tuple[float, float, float]]:
    """Return by observation every transition that is drawn: successor, return, discount."""
    sample = memory.draw(2000)
    np.testing.assert_array_equal(sample.outputs["actions"], sample.observations[:, 0])
    numbers = (sample.observations, sample.next_observations, sample.returns, sample.discounts)
    return {
        float(o[0]): (float(s[0]), float(r), pytest.approx(float(d))) for o, s, r, d in zip(*numbers, strict=True)
    }  # fmt: skip


def test_each_draws_what_both_recorded_by_settings_of_its_own():
    a, b = recorded(*together())
    assert (a.timesteps, a.num_envs, a.count, b.count) == (4, 3, 9, 9)
    assert found(a) == {  # r and 0.9
        0: (10, 0, 0.9), 1: (11, 1, 0.9), 2: (12, 2, 0.9),
        10: (20, 10, 0.9), 11: (99, 11, 0.9), 12: (22, 12, 0.9),
        20: (30, 20, 0.9), 21: (31, 21, 0.9), 22: (32, 22, 0.0),
    }  # fmt: skip
    assert found(b) == {  # 10 (r + r' / 2) and 0.25; 10 r and 0.5 where nothing follows
        0: (20, 50, 0.25), 1: (99, 65, 0.25), 2: (22, 80, 0.25),
        10: (30, 200, 0.25), 11: (99, 110, 0.5), 12: (32, 230, 0.0),
        20: (30, 200, 0.5), 21: (31, 210, 0.5), 22: (32, 220, 0.0),
    }  # fmt: skip


def test_a_timestep_is_there_once_both_have_recorded_it_in_either_order():
    a, b = together()
    a.record(ROWS[0][0])
    assert a.filled == b.filled == 0
    b.record(ROWS[0][1])
    assert a.filled == b.filled == 1
    b.record(ROWS[1][1])
    assert a.filled == 1
    with pytest.raises(RunError, match=r"agents\.b: records another timestep before agents\.a, which shares its memory"):
        b.record(ROWS[2][1])
    a.record(ROWS[1][0])
    assert a.filled == 2 and set(found(a)) == {0, 1, 2, 10, 11, 12}


def test_it_is_the_memory_of_one_agent_with_all_copies():
    a, _ = recorded(*together(priority_exponent=0.5))
    alone = Replay(12, 3, 0, discount_factor=0.9, priority_exponent=0.5)
    for own, others in ROWS:
        parts = zip(own[:9], others[:9], strict=True)
        joined = [None if left is None else np.concatenate((left, right)) for left, right in parts]
        actions = np.concatenate((own.outputs["actions"], others.outputs["actions"]))
        alone.record(Transition(*joined, {}, {"actions": actions}))
    np.testing.assert_equal(a.read(), alone.read())
    for memory in (a, alone):
        memory.update_priorities(np.arange(6), np.arange(6.0))
    np.testing.assert_equal(a.draw(64, 0.4)._asdict(), alone.draw(64, 0.4)._asdict())


def test_an_interruption_ends_the_episodes_of_who_is_interrupted():
    a, b = recorded(*together())
    b.interrupt()
    assert a.read()["truncated"][-1].tolist() == [False, True, False]  # copy 2 terminated anyway
    a.record(row([30], [40]))
    b.record(row([51, 52], [61, 62]))  # other episodes
    assert found(a)[20][0] == 30 and found(a)[21][0] == 31 and found(b)[20][:2] == (40, 350)  # 10 (20 + 30 / 2)


def test_priorities_are_each_ones_own():
    a, b = recorded(*together(priority_exponent=1.0))
    assert a.priorities.total == b.priorities.total == 9.0  # as new as all of them
    a.update_priorities(np.arange(3), np.full(3, 4.0))  # the first timestep's
    assert a.priorities.total == pytest.approx(18) and b.priorities.total == 9.0  # 3 x 4 + 6 x 1
    for t in (30, 40):  # the memory holds four timesteps: the first one goes
        a.record(row([t], [t + 10]))
        b.record(row([t + 1, t + 2], [t + 11, t + 12]))
    assert (
        a.priorities.total == pytest.approx(30) and b.priorities.total == 12.0
    )  # the new ones get the largest so far: 6 + 6 x 4


def test_it_is_kept_once_and_comes_back_to_the_bit():
    a, b = recorded(*together(priority_exponent=0.6))
    for memory, factor in ((a, 1.0), (b, 3.0)):
        memory.update_priorities(memory.draw(8).rows, factor * np.arange(8.0))
    arrays: dict[str, np.ndarray] = {}
    plain = encode([a.snapshot(), b.snapshot()], arrays)
    kept = decode(plain, arrays)
    assert "arrays" in kept[0] and "arrays" not in kept[1]
    others = together(priority_exponent=0.6)
    for other, memory, snapshot in zip(others, (a, b), kept, strict=True):
        other.restore(snapshot)
        np.testing.assert_equal(other.draw(32, 0.4)._asdict(), memory.draw(32, 0.4)._asdict())
    for other in others:  # a checkpoint without it
        other.restore(None)
        assert other.count == 0 and other.priorities.total == 0
    others[1].restore(kept[1])  # priorities of what isn't there
    assert others[1].priorities.total == 0
    with pytest.raises(ValueError, match="another agent's"):
        others[1].restore(kept[0])
    with pytest.raises(ValueError, match="its own"):
        Replay(12, 3, 0).restore(kept[1])


def test_agents_that_record_other_things_cannot_share():
    a, b = together()
    a.record(row([0], [10]))
    with pytest.raises(ConfigError, match=r"agents\.b records actions \(2,\), agents\.a actions \(\)"):
        b.record(row([1, 2], [11, 12], actions=np.zeros((2, 2))))


def test_what_is_in_use_is_not_shared_and_sharing_again_changes_nothing():
    a, b = recorded(*together())
    a.share([b])
    assert a.count == 9
    with pytest.raises(ConfigError, match=r"agents\.a\.memory_of"):
        Replay(12, 1, 0, key="agents.c").share([a])
