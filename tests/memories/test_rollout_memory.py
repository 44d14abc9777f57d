"""The rollout: what was recorded comes back, with the true successors that the returns need."""

import copy

import numpy as np
import pytest
import torch

from rltrain.errors import RunError
from rltrain.memories.rollout.torch import RolloutMemory
from rltrain.structures import Transition

LENGTH, COPIES = 5, 2


def transition(t: int, *, terminated=(False, False), truncated=(False, False), valid=None) -> Transition:
    """Row t: observation (10 t + n, -t), successor the same plus 0.5, reward 100 t + n."""
    n = np.arange(COPIES)
    observations = np.stack([10 * t + n, np.full(COPIES, -t)], 1).astype(np.float32)
    return Transition(
        observations=observations,
        states=None,
        actions=n,
        next_observations=observations + np.float32(0.5),
        next_states=None,
        rewards=(100 * t + n).astype(np.float32),
        terminated=np.array(terminated),
        truncated=np.array(truncated),
        valid=None if valid is None else np.array(valid),
        infos={},
        outputs={"actions": n + 7 * t, "log_probs": (n - t).astype(np.float32)},
    )


def memory(rows: int = 0, **flags: dict[int, tuple]) -> RolloutMemory:
    """Return a memory with `rows` rows; `flags` gives terminated, truncated or valid by row."""
    memory = RolloutMemory(LENGTH, COPIES, torch.device("cpu"))
    for t in range(rows):
        memory.record(transition(t, **{key: given[t] for key, given in flags.items() if t in given}))
    return memory


def successors(rollout) -> dict[int, list[float]]:
    """Return the successors kept, by row t * N + n."""
    return dict(zip(rollout.last_rows.tolist(), rollout.last_observations.tolist(), strict=True))


def equal(one, other) -> bool:
    """Compare two rollouts to the bit."""
    for a, b in zip(one, other, strict=True):
        if isinstance(a, dict):
            same = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)
        else:
            same = a is b is None or (torch.equal(a, b) and a.dtype == b.dtype)
        if not same:
            return False
    return True


def test_rows_come_back_as_recorded():
    rollout = memory(LENGTH, terminated={2: (True, False)}).read()
    assert rollout.observations.shape == (5, 2, 2)
    assert rollout.observations[3].tolist() == [[30, -3], [31, -3]]
    assert rollout.rewards.tolist() == [[0, 1], [100, 101], [200, 201], [300, 301], [400, 401]]
    assert rollout.terminated.nonzero().tolist() == [[2, 0]] and not rollout.truncated.any()
    assert rollout.terminated.dtype == rollout.truncated.dtype == torch.bool
    assert rollout.outputs["actions"].tolist() == [[0, 1], [7, 8], [14, 15], [21, 22], [28, 29]]
    assert rollout.outputs["actions"].dtype == torch.int64
    assert rollout.outputs["log_probs"][4].tolist() == [-4, -3]
    assert rollout.valid is None


def test_successors_are_kept_for_truncated_rows_and_the_last_row_only():
    # row 1 of copy 1 is truncated: index 1 x 2 + 1 = 3; the last row has indices 8 and 9; a termination needs none
    rollout = memory(LENGTH, truncated={1: (False, True)}, terminated={2: (True, False)}).read()
    assert successors(rollout) == {3: [11.5, -0.5], 8: [40.5, -3.5], 9: [41.5, -3.5]}


def test_truncation_in_the_last_row_is_kept_once():
    rollout = memory(LENGTH, truncated={4: (True, False)}).read()
    assert sorted(rollout.last_rows.tolist()) == [8, 9]


def test_successors_do_not_change_when_the_environment_writes_into_its_arrays():
    stored = RolloutMemory(2, COPIES, torch.device("cpu"))
    for t in range(2):
        row = transition(t, truncated=(True, True))
        stored.record(row)
        for array in (row.observations, row.next_observations, row.rewards, row.truncated, row.outputs["actions"]):
            array[:] = 0
    rollout = stored.read()
    assert successors(rollout) == {0: [0.5, 0.5], 1: [1.5, 0.5], 2: [10.5, -0.5], 3: [11.5, -0.5]}
    assert rollout.rewards.tolist() == [[0, 1], [100, 101]] and rollout.truncated.all()


def test_rows_that_did_not_happen_are_marked():
    rollout = memory(LENGTH, valid={1: (False, True), 2: (True, True)}).read()
    assert rollout.valid.tolist() == [[True, True], [False, True], [True, True], [True, True], [True, True]]


def test_the_next_rollout_begins_clean():
    stored = memory(LENGTH, truncated={0: (True, True)}, terminated={1: (True, True)}, valid={2: (False, False)})
    stored.read()
    for t in range(LENGTH):
        stored.record(transition(t + 10))
    rollout = stored.read()
    assert rollout.valid is None and not rollout.terminated.any() and not rollout.truncated.any()
    assert sorted(rollout.last_rows.tolist()) == [8, 9]
    assert rollout.observations[:, 0, 0].tolist() == [100, 110, 120, 130, 140]


def test_a_full_rollout_refuses_another_row():
    stored = memory(LENGTH)
    with pytest.raises(RunError, match="the rollout of 5 timesteps is full; update before recording more"):
        stored.record(transition(5))
    assert stored.read().rewards[:, 0].tolist() == [0, 100, 200, 300, 400]


@pytest.mark.parametrize("written", [0, 1, 3, 5])
def test_snapshot_and_restore(written):
    flags = {"truncated": {0: (True, False), 4: (False, True)}, "valid": {1: (False, True)}}
    whole = memory(LENGTH, **flags).read()
    snapshot = memory(written, **flags).snapshot()
    kept = copy.deepcopy(snapshot)
    restored = RolloutMemory(LENGTH, COPIES, torch.device("cpu"))
    restored.restore(snapshot)
    for t in range(written, LENGTH):
        restored.record(transition(t, **{key: given[t] for key, given in flags.items() if t in given}))
    assert equal(restored.read(), whole)
    np.testing.assert_equal(snapshot, kept)  # going on does not write into the snapshot


def test_snapshot_stays_as_it_was_taken():
    stored = memory(2, truncated={0: (True, False)})
    snapshot = stored.snapshot()
    kept = copy.deepcopy(snapshot)
    for t in range(2, LENGTH):
        stored.record(transition(t))
    stored.read()
    for t in range(3):
        stored.record(transition(t + 50))
    np.testing.assert_equal(snapshot, kept)


def test_restore_replaces_what_was_there():
    stored = memory(4, truncated={2: (True, True)})
    stored.restore(memory(1).snapshot())
    for t in range(1, LENGTH):
        stored.record(transition(t))
    assert equal(stored.read(), memory(LENGTH).read())


def test_interrupted_rollout_is_truncated_at_its_last_row():
    # copy 0's episode ended in row 2 anyway; copy 1 was running: index 2 x 2 + 1 = 5
    stored = memory(3, terminated={2: (True, False)})
    stored.truncate(np.array([[1, 2], [3, 4]], np.float32))
    for t in range(3, LENGTH):
        stored.record(transition(t))
    rollout = stored.read()
    assert rollout.truncated.nonzero().tolist() == [[2, 1]] and rollout.terminated.nonzero().tolist() == [[2, 0]]
    assert successors(rollout) == {5: [3, 4], 8: [40.5, -3.5], 9: [41.5, -3.5]}


def test_interruption_before_the_first_row_is_nothing():
    stored = memory()
    stored.truncate(np.zeros((2, 2), np.float32))
    for t in range(LENGTH):
        stored.record(transition(t))
    assert equal(stored.read(), memory(LENGTH).read())


# -- composite observations, states, masks -------------------------------------------------------------------------------------


def composite(t: int, **flags) -> Transition:
    """Row t with observations {"goal/x": (10 t + n,), "image": uint8 t + n} and states (1000 t + n, t)."""
    n = np.arange(COPIES)

    def observations(half: float) -> dict[str, np.ndarray]:
        goal = (10 * t + n + half).astype(np.float64)[:, None]
        return {"goal/x": goal, "image": np.broadcast_to((t + n + int(2 * half)).astype(np.uint8)[:, None, None], (COPIES, 2, 3))}

    def states(half: float) -> np.ndarray:
        return np.stack([1000 * t + n + half, np.full(COPIES, t + half)], 1).astype(np.float32)

    row = transition(t, **flags)
    return row._replace(
        observations=observations(0), next_observations=observations(0.5), states=states(0), next_states=states(0.5),
        outputs={**row.outputs, "action_masks": np.array([[True, t % 2 == 0], [t % 3 == 0, True]])},
    )  # fmt: skip


def filled(rows: int = LENGTH, stored: RolloutMemory | None = None, first: int = 0, **flags) -> RolloutMemory:
    stored = stored or RolloutMemory(LENGTH, COPIES, torch.device("cpu"))
    for t in range(first, rows):
        stored.record(composite(t, **{key: given[t] for key, given in flags.items() if t in given}))
    return stored


def test_composite_observations_and_states_come_back_by_path():
    rollout = filled().read()
    assert list(rollout.observations) == ["goal/x", "image"]
    assert rollout.observations["goal/x"][:, :, 0].tolist() == [[10 * t, 10 * t + 1] for t in range(5)]
    assert rollout.observations["image"].shape == (5, 2, 2, 3)
    assert {path: array.dtype for path, array in rollout.observations.items()} == {"goal/x": torch.float64, "image": torch.uint8}
    assert rollout.states[3].tolist() == [[3000, 3], [3001, 3]]
    assert sorted(rollout.outputs) == ["action_masks", "actions", "log_probs"]
    assert rollout.outputs["action_masks"].dtype == torch.bool
    assert rollout.outputs["action_masks"][1].tolist() == [[True, False], [False, True]]


def test_composite_successors_and_states_belong_to_the_same_rows():
    rollout = filled(truncated={1: (False, True)}).read()
    assert rollout.last_rows.tolist() == [3, 8, 9]
    assert rollout.last_observations["goal/x"][:, 0].tolist() == [11.5, 40.5, 41.5]
    assert rollout.last_observations["image"][:, 0, 0].tolist() == [3, 5, 6]
    assert rollout.last_states.tolist() == [[1001.5, 1.5], [4000.5, 4.5], [4001.5, 4.5]]


@pytest.mark.parametrize("written", [0, 1, 3, 5])
def test_composite_snapshot_and_restore(written):
    flags = {"truncated": {0: (True, False)}, "valid": {1: (False, True)}}
    whole = filled(**flags).read()
    snapshot = filled(written, **flags).snapshot()
    restored = RolloutMemory(LENGTH, COPIES, torch.device("cpu"))
    restored.restore(snapshot)
    rollout = filled(LENGTH, restored, written, **flags).read()
    for name in ("observations", "last_observations", "outputs"):
        one, other = getattr(rollout, name), getattr(whole, name)
        assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one), name
    for name in ("states", "last_states", "rewards", "truncated", "valid", "last_rows"):
        assert torch.equal(getattr(rollout, name), getattr(whole, name)), name


def test_interruption_keeps_composite_successors_and_states():
    stored = filled(3, terminated={2: (True, False)})
    observations = {"goal/x": np.array([[7.0], [8.0]]), "image": np.full((2, 2, 3), 9, np.uint8)}
    stored.truncate(observations, np.array([[5, 6], [7, 8]], np.float32))
    for array in observations.values():
        array[:] = 0  # the environment may write into its arrays afterwards
    rollout = filled(LENGTH, stored, 3).read()
    assert rollout.last_rows.tolist() == [5, 8, 9]
    assert rollout.last_observations["goal/x"][0].tolist() == [8.0] and (rollout.last_observations["image"][0] == 9).all()
    assert rollout.last_states[0].tolist() == [7, 8]


def test_without_states_there_are_none():
    rollout = memory(LENGTH).read()
    assert rollout.states is rollout.last_states is None
