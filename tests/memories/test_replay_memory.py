"""The replay memory against transitions that were written down beside it, and its numbers worked out by hand."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rltrain.checkpoints import decode, encode
from rltrain.errors import ConfigError
from rltrain.memories.replay.host import Replay, Sample, Window
from rltrain.memories.replay.priorities import Priorities
from rltrain.structures import Transition


class Stream:
    """Rows in which every number says where it comes from: observation = copy + 100 x turn (+ 0.5: the last of an episode)."""

    def __init__(self, copies: int, *, images: bool = False, composite: bool = False, masks: bool = False) -> None:
        self.copies, self.images, self.composite, self.masks = copies, images, composite, masks
        self.turn = 0
        self.observations = self._wrap(self._numbers())

    def _numbers(self) -> np.ndarray:
        return np.arange(self.copies) + 100.0 * self.turn

    def _wrap(self, numbers: np.ndarray) -> Any:
        if self.images:
            return np.broadcast_to((numbers % 251).astype(np.uint8)[:, None, None], (self.copies, 2, 3)).copy()
        rows = np.stack((numbers, -numbers), 1)
        return {"a": rows, "b": rows[:, :1].astype(np.float32)} if self.composite else rows

    def step(self, *, terminated: Any = (), truncated: Any = (), invalid: Any = (), reward: float | None = None) -> Transition:
        """Return the next row; lists of copies say where an episode ends and which rows did not happen."""
        flags = [np.isin(np.arange(self.copies), copies) for copies in (terminated, truncated, invalid)]
        done = flags[0] | flags[1]
        observations, turn = self.observations, self.turn
        self.turn += 1
        following = self._numbers()
        successors = self._wrap(np.where(done, following + 0.5, following))
        self.observations = self._wrap(following)
        rewards = np.full(self.copies, turn if reward is None else reward, np.float32)
        outputs = {"actions": np.arange(self.copies) + 10 * turn}
        if self.masks:
            outputs["action_masks"] = np.tile([turn % 2 == 0, True], (self.copies, 1))
        return Transition(
            observations, None, outputs["actions"], successors, None, rewards, flags[0], flags[1],
            ~flags[2] if len(invalid) else None, {}, outputs,
        )  # fmt: skip


def filled(memory: Replay, stream: Stream, rows: int, ends: dict[int, dict[str, Any]] | None = None) -> list[Transition]:
    """Record `rows` rows; `ends` says by turn what happens there."""
    written = [stream.step(**(ends or {}).get(stream.turn, {})) for _ in range(rows)]
    for row in written:
        memory.record(row)
    return written


def filled_one_by_one(memory: Replay, stream: Stream, rows: int) -> Iterator[int]:
    for row in range(rows):
        memory.record(stream.step())
        yield row


def every(memory: Replay) -> Sample:
    """Return each transition that is here many times over."""
    return memory.draw(4000)


# -- what comes out is what went in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 23])
@pytest.mark.parametrize("copies", [1, 3])
def test_each_transition_comes_back_with_its_true_successor(rows, copies):
    """Five timesteps are kept, of any number written; ends of both kinds everywhere."""
    memory, stream = Replay(5 * copies, copies, 0), Stream(copies)
    ends = {turn: {"truncated": [turn % copies]} if turn % 2 else {"terminated": [turn % copies]} for turn in range(1, rows, 2)}
    ends |= {turn: {"terminated": [0]} for turn in range(0, rows, 4)}
    written = filled(memory, stream, rows, ends)[-5:]
    sample = every(memory)
    found = set()
    for i in range(len(sample.rows)):
        number = sample.observations[i, 0]
        row, copy = written[int(number // 100) - (rows - len(written))], int(number % 100)
        found.add(number)
        assert sample.returns[i] == row.rewards[copy] and sample.outputs["actions"][i] == row.actions[copy]
        assert sample.discounts[i] == np.float32(0.0 if row.terminated[copy] else 0.99)
        assert sample.next_observations[i].tolist() == row.next_observations[copy].tolist()
    assert found == {number for row in written for number in row.observations[:, 0]}  # every one, and no other
    assert memory.count == len(found) and sample.weights is None


def test_images_stay_bytes_and_are_stored_once():
    memory, stream = Replay(8, 2, 0), Stream(2, images=True)
    written = filled(memory, stream, 9, {3: {"truncated": [1]}, 7: {"truncated": [0, 1]}})[-4:]
    assert memory.ring._arrays["observations"].dtype == np.uint8 and memory.ring._arrays["observations"].shape == (5, 2, 2, 3)
    assert [name for name in memory.ring._arrays if name.startswith("next")] == []
    sample = every(memory)
    for observation, successor in zip(sample.observations, sample.next_observations, strict=True):
        ((t, copy),) = [
            (t, copy) for t, row in enumerate(written) for copy in range(2) if np.array_equal(row.observations[copy], observation)
        ]
        assert np.array_equal(written[t].next_observations[copy], successor)


def test_composite_observations_come_back_as_dicts():
    memory, stream = Replay(8, 2, 0), Stream(2, composite=True)
    filled(memory, stream, 6, {4: {"truncated": [1]}})
    sample = every(memory)
    assert sample.observations["a"].shape == (4000, 2) and sample.observations["b"].shape == (4000, 1)
    assert (sample.observations["a"][:, 0] == sample.observations["b"][:, 0]).all()
    successors = dict(zip(sample.observations["b"][:, 0].tolist(), sample.next_observations["a"][:, 0].tolist(), strict=True))
    assert successors[401.0] == 501.5 and successors[400.0] == 500.0


def test_rows_that_did_not_happen_are_never_drawn():
    memory, stream = Replay(12, 3, 0), Stream(3)
    filled(memory, stream, 4, {1: {"invalid": [0, 2]}, 2: {"invalid": [1]}})
    assert memory.count == 9
    drawn = Counter(every(memory).observations[:, 0].tolist())
    assert not drawn.keys() & {100.0, 102.0, 201.0} and len(drawn) == 9
    # 4000 draws of 9: 444 each, standard deviation 20: drawing wrong ones anew favours none
    assert all(340 < times < 550 for times in drawn.values())


def test_the_generator_alone_decides_what_is_drawn():
    draws = []
    for seed in (1, 1, 2):
        memory = Replay(40, 2, seed)
        filled(memory, Stream(2), 30)
        draws.append(memory.draw(16).rows.tolist())
    assert draws[0] == draws[1] != draws[2]


def test_the_newest_masks_are_those_of_the_next_row_where_there_is_one():
    memory, stream = Replay(10, 1, 0), Stream(1, masks=True)
    filled(memory, stream, 4, {1: {"truncated": [0]}})
    sample = every(memory)
    masks = dict(zip(sample.observations[:, 0].tolist(), sample.outputs["next_action_masks"].tolist(), strict=True))
    # turn 0 is followed by 1 (first forbidden); 1 was cut off, 3 is the newest: not known, so all; 2 is followed by 3
    assert masks == {0.0: [False, True], 100.0: [True, True], 200.0: [False, True], 300.0: [True, True]}


# -- n-step returns --------------------------------------------------------------------------------------------------------


def n_step(ends: dict[int, dict[str, Any]], rows: int = 6, **how: Any) -> dict[float, tuple[float, float, float]]:
    """Return (sum, discount, successor) by observation for rewards 1, 2, 4, 8, ... and gamma 1/2."""
    memory, stream = Replay(20, 1, 0, discount_factor=0.5, n_steps=3, **how), Stream(1)
    for turn in range(rows):
        memory.record(stream.step(reward=2.0**turn, **ends.get(turn, {})))
    sample = every(memory)
    rows_found = zip(sample.observations[:, 0], sample.returns, sample.discounts, sample.next_observations[:, 0], strict=True)
    return {float(o): (float(r), float(d), float(s)) for o, r, d, s in rows_found}


def test_n_step_returns():
    # r_0 + r_1 / 2 + r_2 / 4 = 1 + 2 / 2 + 4 / 4 = 3, then 1/8 of the value three steps on
    # the newest rows sum what there is: 16 + 32 / 2 = 32 with 1/4, 32 with 1/2
    assert n_step({}) == {
        0.0: (3.0, 0.125, 300.0), 100.0: (6.0, 0.125, 400.0), 200.0: (12.0, 0.125, 500.0), 300.0: (24.0, 0.125, 600.0),
        400.0: (32.0, 0.25, 600.0), 500.0: (32.0, 0.5, 600.0),
    }  # fmt: skip


def test_n_step_returns_stop_at_truncation_and_bootstrap_there():
    # cut off after row 2, whose true successor is 300.5: row 1 has 2 + 4 / 2 and bootstraps with gamma^2, row 2 with gamma^1
    found = n_step({2: {"truncated": [0]}})
    assert found[0.0] == (3.0, 0.125, 300.5)
    assert found[100.0] == (4.0, 0.25, 300.5)
    assert found[200.0] == (4.0, 0.5, 300.5)
    assert found[300.0] == (24.0, 0.125, 600.0)


def test_n_step_returns_end_at_termination():
    found = n_step({2: {"terminated": [0], "truncated": [0]}})  # both: terminated
    assert [found[o][:2] for o in (0.0, 100.0, 200.0)] == [(3.0, 0.0), (4.0, 0.0), (4.0, 0.0)]


def test_n_step_returns_stop_before_a_row_that_did_not_happen():
    found = n_step({2: {"truncated": [0]}, 3: {"invalid": [0]}})
    assert 300.0 not in found and found[100.0] == (4.0, 0.25, 300.5)


def test_n_step_returns_do_not_reach_over_the_seam_of_the_ring():
    """The oldest row follows the newest one in the arrays; the sum of the newest doesn't go on there."""
    memory, stream = Replay(4, 1, 0, discount_factor=0.5, n_steps=3), Stream(1)
    for turn in range(11):
        memory.record(stream.step(reward=2.0**turn))
    sample = every(memory)
    found = {
        float(o): (float(r), float(d))
        for o, r, d in zip(sample.observations[:, 0], sample.returns, sample.discounts, strict=True)
    }
    assert found == {700.0: (384.0, 0.125), 800.0: (768.0, 0.125), 900.0: (1024.0, 0.25), 1000.0: (1024.0, 0.5)}


def test_rewards_are_scaled_then_clipped_one_by_one():
    # 1, 2, 4 x 2 = 2, 4, 8, clipped to 3: 2 + 3 / 2 + 3 / 4
    assert n_step({}, reward_scale=2.0, reward_clip=3.0)[0.0] == (4.25, 0.125, 300.0)


def test_a_run_that_is_interrupted_ends_its_episodes():
    memory, stream = Replay(20, 2, 0, discount_factor=0.5, n_steps=3), Stream(2)
    filled(memory, stream, 3, {2: {"terminated": [1]}})
    memory.interrupt()
    stream.turn, stream.observations = 7, stream._wrap(np.array([700.0, 701.0]))  # new episodes
    filled(memory, stream, 2)
    memory.interrupt()
    memory.interrupt()  # ended already: nothing to do
    sample = every(memory)
    found = {
        float(o): (float(d), float(s))
        for o, d, s in zip(sample.observations[:, 0], sample.discounts, sample.next_observations[:, 0], strict=True)
    }
    assert found[200.0] == (0.5, 300.0) and found[100.0] == (0.25, 300.0)  # the successor that the new episode overwrote
    assert found[201.0][0] == 0.0
    assert found[800.0] == (0.5, 900.0)


# -- priorities ------------------------------------------------------------------------------------------------------------


def test_priorities_are_probabilities():
    # |errors| 1, 2, 3 and exponent 2: 1 : 4 : 9 of 14; a fourth row has none
    priorities = Priorities(4, 2.0)
    priorities.update(np.arange(3), np.array([1.0, -2.0, 3.0]))
    assert priorities.total == pytest.approx(14, abs=1e-4)
    generator = np.random.default_rng(0)
    rows, probabilities = priorities.sample(14_000, generator)
    assert np.bincount(rows, minlength=4).tolist() == pytest.approx([1000, 4000, 9000, 0], abs=1)  # one from each equal part
    assert [float(probabilities[rows == row][0]) for row in range(3)] == pytest.approx([1 / 14, 4 / 14, 9 / 14], abs=1e-6)
    assert priorities.largest == pytest.approx(3)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_the_tree_holds_sums(size):
    generator = np.random.default_rng(size)
    priorities, plain = Priorities(size, 0.6), np.zeros(size)
    for _ in range(30):
        rows = generator.integers(0, size, 17)
        errors = generator.normal(size=17)
        priorities.update(rows, errors)
        for row, error in zip(rows, errors, strict=True):
            plain[row] = (abs(error) + 1e-6) ** 0.6
    assert priorities.read(np.arange(size)) == pytest.approx(plain)
    assert priorities.total == pytest.approx(plain.sum())
    drawn, _ = priorities.sample(5000, generator)
    assert (plain[drawn] > 0).all() and drawn.max() < size
    # restoring the leaves gives every sum to the bit
    other = Priorities(size, 0.6)
    other.restore(np.arange(size), priorities.read(np.arange(size)), priorities.largest)
    assert (other.tree == priorities.tree).all()


def test_importance_weights():
    # 3 transitions with probabilities 1/6, 2/6, 3/6: (3 p)^-1 = 2, 1, 2/3, divided by the largest: 1, 1/2, 1/3
    memory = Replay(10, 1, 0, priority_exponent=1.0)
    filled(memory, Stream(1), 3)
    memory.update_priorities(np.arange(3), np.array([1.0, 2.0, 3.0]))
    sample = memory.draw(600, 1.0)
    weights = dict(zip(sample.rows.tolist(), sample.weights.tolist(), strict=True))
    assert [weights[row] for row in range(3)] == pytest.approx([1, 1 / 2, 1 / 3], abs=1e-5)
    assert np.bincount(sample.rows).tolist() == pytest.approx([100, 200, 300], abs=1)
    assert set(memory.draw(600, 0.0).weights.tolist()) == {1.0}


def test_new_rows_have_the_largest_priority_and_old_ones_lose_theirs():
    memory, stream = Replay(3, 1, 0, priority_exponent=1.0), Stream(1)
    filled(memory, stream, 3)
    memory.update_priorities(np.arange(3), np.array([1.0, 5.0, 0.5]))
    filled(memory, stream, 1)  # over turn 0, in the spare row: the largest, 5
    drawn = memory.draw(10_500)
    counts = Counter(drawn.observations[:, 0].tolist())
    assert set(counts) == {100.0, 200.0, 300.0}
    assert [counts[o] for o in (100.0, 200.0, 300.0)] == pytest.approx([5000, 500, 5000], abs=2)
    assert memory.priorities.total == pytest.approx(10.5, abs=1e-4)


def test_rows_that_did_not_happen_have_no_priority():
    memory = Replay(12, 3, 0, priority_exponent=0.6)
    filled(memory, Stream(3), 4, {1: {"invalid": [0, 2]}})
    assert not set(every(memory).observations[:, 0].tolist()) & {100.0, 102.0}


@pytest.mark.parametrize("timesteps", [2, 3, 4])
def test_a_restored_memory_has_priorities_for_the_windows_that_are_whole_now(timesteps):
    """A resume may change n_steps, and with it how long a window is."""
    memory = Replay(6, 1, 0, priority_exponent=1.0, window=Window(1, 1, 3))
    filled(memory, Stream(1), 8)
    memory.update_priorities(memory.ring.rows()[:1], np.array([7.0]))
    other = Replay(6, 1, 0, priority_exponent=1.0, window=Window(1, 1, timesteps), n_steps=timesteps - 1)
    other.restore(memory.snapshot())
    priorities = other.priorities.read(other.ring.rows()).tolist()
    whole = 6 - timesteps + 1
    assert priorities == pytest.approx([7.0, 1.0, 1.0, 1.0, 7.0][:whole] + [0.0] * (timesteps - 1), abs=1e-5)


def test_a_window_has_a_priority_while_all_of_it_is_here():
    """Windows of 3 timesteps in 5: they begin in the oldest 3 of them, before and after the ring went round."""
    memory, stream = Replay(5 * 2, 2, 0, priority_exponent=1.0, window=Window(1, 2, 3)), Stream(2)
    for row in filled_one_by_one(memory, stream, 13):
        begun = [turn for turn in range(max(0, row - 4), row - 1)]
        rows = memory.ring.rows()
        priorities = memory.priorities.read(rows).reshape(-1, 2)
        assert (priorities > 0).all(1).tolist() == [turn in begun for turn in range(max(0, row - 4), row + 1)], row
        if begun:
            drawn = memory.draw(200, 1.0)
            assert set(drawn.observations[:, 0, 0].tolist()) == {100.0 * turn + copy for turn in begun for copy in range(2)}
            np.testing.assert_array_equal(np.diff(drawn.observations[..., 0]), 100)
            assert drawn.weights.shape == (200, 2) and (drawn.weights == 1).all()
    memory.update_priorities(memory.draw(1).rows, np.array([5.0]))
    weights = memory.draw(400, 1.0).weights
    assert sorted(set(weights[:, 0].tolist())) == pytest.approx([0.2, 1.0], abs=1e-5) and (weights[:, 0] == weights[:, 1]).all()


def test_every_window_that_is_here_is_drawn_and_no_other():
    memory, stream = Replay(5, 1, 0, window=Window(1, 2, 3)), Stream(1)
    for row in filled_one_by_one(memory, stream, 13):
        if row >= 2:
            drawn = memory.draw(200)
            assert set(drawn.observations[:, 0, 0].tolist()) == {100.0 * turn for turn in range(max(0, row - 4), row - 1)}
            np.testing.assert_array_equal(np.diff(drawn.observations[..., 0]), 100)


def test_windows_over_an_episode_s_end_and_rows_that_did_not_happen():
    memory = Replay(8, 1, 0, n_steps=2, discount_factor=0.5, window=Window(0, 3, 4))
    filled(memory, Stream(1), 4, {1: {"truncated": [0]}, 2: {"invalid": [0]}})
    sample = memory.draw(1)
    # rewards 0 1 2 3: row 0 sums two and stops where the episode does; a row that didn't happen ends a sum before it
    assert sample.returns.tolist() == [[0.5, 1.0, 3.5]] and sample.discounts.tolist() == [[0.25, 0.5, 0.25]]
    assert sample.last.tolist() == [[1, 1, 3]] and sample.happened.tolist() == [[1, 1, 0]]
    assert sample.next_observations[0, :, 0].tolist() == [200.5, 200.5, 400.0]
    assert sample.last_actions.tolist() == [[10, 10, 30]]


# -- keeping ---------------------------------------------------------------------------------------------------------------


def through_a_checkpoint(tree: Any) -> Any:
    arrays: dict[str, np.ndarray] = {}
    plain = encode(tree, arrays)
    return decode(plain, arrays)


@pytest.mark.parametrize("rows", [0, 3, 6, 17])
@pytest.mark.parametrize("how", [{}, {"priority_exponent": 0.6, "n_steps": 3}], ids=["plain", "priorities"])
def test_a_restored_memory_goes_on_to_the_bit(rows, how):
    def make(seed):
        return Replay(6 * 2, 2, seed, **how), Stream(2, masks=True)

    ends = {1: {"truncated": [0]}, 4: {"terminated": [1]}, 9: {"truncated": [0, 1]}, 14: {"invalid": [0]}, 16: {"truncated": [1]}}
    memory, stream = make(1)
    filled(memory, stream, rows, ends)
    if rows:
        sample = memory.draw(8, 0.4)
        if how:
            memory.update_priorities(sample.rows, np.arange(8.0))
    other = make(2)[0]
    filled(other, Stream(2, masks=True), 4)  # whatever it held itself is gone
    other.restore(through_a_checkpoint(memory.snapshot()))
    more = [stream.step(**ends.get(stream.turn, {})) for _ in range(5)]
    for row in more:
        for one in (memory, other):
            one.record(row)
        np.testing.assert_equal(memory.draw(32, 0.4)._asdict(), other.draw(32, 0.4)._asdict())
    np.testing.assert_equal(memory.read(), other.read())
    assert memory.count == other.count


def test_a_memory_of_other_copies_does_not_fit():
    memory = Replay(10, 2, 0)
    filled(memory, Stream(2), 4)
    for other in (Replay(10, 5, 0), Replay(6, 2, 0)):
        with pytest.raises(ValueError, match="doesn't fit"):
            other.restore(memory.snapshot())


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("kind", [{"masks": True}, {"images": True}, {"composite": True}], ids=["masks", "images", "composite"])
def test_a_file_brings_every_transition_back(suffix, kind, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    memory, other, smaller = Replay(12, 2, 0), Replay(40, 2, 0), Replay(6, 2, 0)
    filled(memory, Stream(2, **kind), 9, {4: {"truncated": [1]}, 6: {"terminated": [0]}, 7: {"invalid": [1]}})
    memory.interrupt()
    path = tmp_path / f"transitions.{suffix}"
    memory.export(path)
    other.load(path)
    np.testing.assert_equal(other.read(), memory.read())
    smaller.load(path)
    np.testing.assert_equal(smaller.read(), {name: array[-3:] for name, array in memory.read().items()})
    other.load(path)  # once more: the first ones' last episodes don't go on in the second ones
    assert other.count == 2 * memory.count and other.read()["truncated"][5].tolist() == [True, True]
    assert memory.draw(8).next_observations is not None


def test_files_that_hold_something_else_are_refused(tmp_path):
    memory = Replay(12, 2, 0)
    filled(memory, Stream(2), 3)
    memory.export(tmp_path / "two.npz")
    (tmp_path / "text.npz").write_text("nothing")
    np.savez(tmp_path / "other.npz", rewards=np.zeros((2, 2)))
    np.savez(tmp_path / "pickled.npz", rewards=np.array([{}], object))
    for name, sentence in {
        "no.npz": "no such file", "text.npz": "can't be read as transitions", "pickled.npz": "can't be read as transitions",
        "other.npz": "terminated, truncated, valid, actions, observations, next_observations missing",
        "two.npz": "holds transitions of 2 copies; this memory is of 3",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=sentence):
            Replay(12, 3, 0).load(tmp_path / name)
    with np.load(tmp_path / "two.npz") as file:
        two = dict(file)
    for name, wrong, sentence in (
        ("blind", {"observations": None}, "observations missing"),
        ("endless", {"next_observations": None}, "next_observations missing"),
        ("wide", {"next_observations": np.zeros((3, 2, 5))}, r"next_observations has the shape \(3, 2, 5\)"),
        ("short", {"actions": two["actions"][:2]}, r"actions has the shape \(2, 2\), rewards \(3, 2\)"),
    ):
        np.savez(tmp_path / f"{name}.npz", **{key: array for key, array in {**two, **wrong}.items() if array is not None})
        with pytest.raises(ConfigError, match=sentence):
            Replay(12, 2, 0).load(tmp_path / f"{name}.npz")
    with pytest.raises(ConfigError, match=r"is neither .npz nor .parquet"):
        memory.export(tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match="the memory is empty"):
        Replay(12, 3, 0).export(tmp_path / "none.npz")


def test_files_of_other_environments_are_refused(tmp_path):
    """Before anything is there the first row recorded tells; what the file has besides is left alone."""
    memory, other = Replay(12, 2, 0), Replay(12, 2, 0)
    filled(memory, Stream(2), 3)
    np.savez(tmp_path / "more.npz", **memory.read(), extra=np.zeros((3, 2)))
    other.load(tmp_path / "more.npz")
    filled(other, Stream(2), 2)
    assert other.ring.outputs == ["actions"] and other.count == 10
    images = Replay(12, 2, 0)
    filled(images, Stream(2, images=True), 1)
    with pytest.raises(ConfigError, match=r"this memory's .*s \(2, 3\), .* the file's of observations \(2,\)"):
        images.load(tmp_path / "more.npz")
    fresh = Replay(12, 2, 0)
    fresh.load(tmp_path / "more.npz")
    with pytest.raises(ConfigError, match=r"the file's .*, the environment's of observations \(2, 3\)"):
        filled(fresh, Stream(2, images=True), 1)


# -- where the arrays are --------------------------------------------------------------------------------------------------


def test_a_mapped_memory_is_the_same_and_leaves_no_file(tmp_path):
    plain, mapped = Replay(10, 2, 0, mapped="false"), Replay(10, 2, 0, mapped="true", directory=str(tmp_path))
    for memory in (plain, mapped):
        filled(memory, Stream(2), 13, {5: {"truncated": [0]}, 11: {"truncated": [1]}})
    np.testing.assert_equal(plain.draw(64)._asdict(), mapped.draw(64)._asdict())
    assert isinstance(mapped.ring._arrays["rewards"].base, np.memmap)
    assert list(tmp_path.iterdir()) == []


def test_auto_maps_what_does_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr("rltrain.memories.replay.mapping.free_memory", lambda: 1000)
    memory = Replay(100, 1, 0, directory=str(tmp_path))
    filled(memory, Stream(1), 2)
    assert isinstance(memory.ring._arrays["rewards"].base, np.memmap)
    with pytest.raises(ConfigError, match=r"agents.dqn.memory_size=100: takes .* bytes of memory, and 1,000 are free; give less"):
        filled(Replay(100, 1, 0, mapped="false", key="agents.dqn"), Stream(1), 1)


@pytest.mark.parametrize(("mapped", "where"), [("false", "of memory, and"), ("auto", "and /"), ("true", "and /")])
def test_more_than_there_could_ever_be_is_told_in_a_sentence(mapped, where):
    memory = Replay(10**13, 1, 0, mapped=mapped, key="agents.dqn")
    with pytest.raises(ConfigError, match=rf"agents.dqn.memory_size=10000000000000: takes \S+ bytes,? {where}.*; give less, or"):
        filled(memory, Stream(1), 1)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"agents.dqn.memory_directory=.*: no such directory; name another one"):
        filled(Replay(10, 1, 0, mapped="true", directory=str(tmp_path / "no"), key="agents.dqn"), Stream(1), 1)
