"""The parts of the parallel trainer by themselves: frames, shared arrays, snapshots cut and joined."""

import pickle
import socket

import jax
import numpy as np
import pytest
from functional_envs import Fenced, make_trainer
from talkative_jobs import TellsAndFails

from rltrain.agents.a2c.jax import A2C
from rltrain.agents.base import Made
from rltrain.agents.ppo.jax import PPO
from rltrain.backends.torch import TorchBackend
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import ParallelTrainer
from rltrain.trainers.workers.board import Board, Slot, slots_like
from rltrain.trainers.workers.channel import Channel
from rltrain.trainers.workers.crew import Crew, WorkerError


def test_frames_come_whole_and_in_order_however_they_are_cut():
    ours, theirs = socket.socketpair()
    channel, payload = Channel(ours), pickle.dumps({"a": np.arange(3)})
    stream = len(payload).to_bytes(8, "big") + payload + b"\0" * 8
    for byte in stream[:-1]:
        theirs.send(bytes([byte]))
        if (messages := channel.read_available()) != []:
            assert byte == payload[-1]
            assert messages[0]["a"].tolist() == [0, 1, 2]
    theirs.send(stream[-1:])
    theirs.close()
    assert channel.read_available() == [None] and not channel.closed
    assert channel.read_available() == [] and channel.closed


def test_a_message_that_nobody_takes_is_given_up():
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(TimeoutError):
        Channel(ours).send(b"x" * 10_000_000, 0.1)


def test_what_a_worker_sent_before_it_failed_comes_first():
    messages = []
    with Crew(["a"], 60.0) as crew:
        crew.start([pickle.dumps(TellsAndFails())])
        with pytest.raises(WorkerError, match=r"agents\.a: make, timestep 0: ZeroDivisionError: broken"):
            while True:
                messages += crew.wait(1.0)
        with pytest.raises(WorkerError, match="broken"):
            crew.send(0, "nobody is there")
    assert [(index, message[0]) for index, message in messages] == [(0, "part"), (0, "row")]


def test_the_board_hands_over_rows_dtypes_and_absence():
    observations = {"image": np.arange(24, dtype=np.uint8).reshape(4, 3, 2), "goal/x": np.full(4, 0.5, np.float32)}
    board = Board({**slots_like(observations, "observations"), "rewards": Slot((4,)), "valid": Slot((4,))})
    board.write("observations", observations)
    board.write("rewards", np.array([1.5, 2, 3, 4]))
    board.write("valid", None)
    found = board.read("observations", slice(1, 3))
    assert list(found) == ["image", "goal/x"]
    assert np.array_equal(found["image"], observations["image"][1:3]) and found["image"].dtype == np.uint8
    assert board.read("rewards").dtype == np.float64 and board.read("valid") is None and board.read("states") is None
    board.write("valid", np.array([True, False, True, True]))
    assert board.read("valid").tolist() == [True, False, True, True]
    found["image"][:] = 0  # a copy
    assert np.array_equal(board.read("observations")["image"], observations["image"])
    with pytest.raises(ValueError, match="narrower"):
        board.write("observations", {"image": np.zeros((4, 3, 2), np.float64), "goal/x": observations["goal/x"]})


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5"])
def test_a_cut_snapshot_restores_slices_and_joins_again(env_id):
    env = GymnasiumEnv({"id": env_id, "num_envs": 5}, seed=4)
    env.action_space.seed(0)
    env.reset()
    generator = np.random.default_rng(0)

    def act(copies: int) -> np.ndarray:
        continuous = env.action_space.dtype.kind == "f"
        return generator.uniform(-1, 1, (copies, 3)) if continuous else generator.integers(0, 2, copies)

    for _ in range(60):
        env.step(act(5))
        env.reset_done()
    snapshot = env.snapshot()
    slices = [make() for make in env.partition([2, 3])]
    for part, own in zip(slices, env.cut_snapshot(snapshot, [2, 3]), strict=True):
        part.restore(own)
    for _ in range(60):
        actions = act(5)
        whole, first, second = env.step(actions), slices[0].step(actions[:2]), slices[1].step(actions[2:])
        for field in ("next_observations", "rewards", "terminated", "truncated"):
            both = np.concatenate([getattr(first, field), getattr(second, field)])
            assert np.array_equal(getattr(whole, field), both), field
        both = np.concatenate([part.reset_done() for part in slices])
        assert np.array_equal(env.reset_done(), both)
    np.testing.assert_equal(env.join_snapshots([part.snapshot() for part in slices]), env.snapshot())


def test_what_is_made_remembers_how_and_a_backend_travels():
    class Mine(Made):
        def __init__(self, size: int, *, key: str = "x") -> None:
            self.size, self.key = 2 * size, key

    kind, args, kwargs = Mine(3, key="y").recipe
    assert vars(kind(*args, **kwargs)) == {"recipe": (Mine, (3,), {"key": "y"}), "size": 6, "key": "y"}
    import torch

    backend, before = TorchBackend({"threads": 1}), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        travelled = pickle.dumps(backend)
        torch.set_num_threads(1)
        assert pickle.loads(travelled).cfg.threads == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


AGENTS = [(PPO, 3, {"rollout_length": 16, "epochs": 2}), (A2C, 2, {"rollout_length": 24})]


@pytest.mark.slow
def test_an_environment_in_jax_is_stepped_here_for_agents_in_workers():
    """Its arrays are acted on in compiled programs, in workers too."""
    sequential = make_trainer(AGENTS, Fenced(), timesteps=60, fused="false")
    parallel = make_trainer(AGENTS, Fenced(), timesteps=60, fused="false", kind=ParallelTrainer)
    for trainer in (sequential, parallel):
        trainer.train()
    one, other = (trainer.snapshot()[0] for trainer in (sequential, parallel))
    one["trainer"].pop("training_seconds"), other["trainer"].pop("training_seconds")
    np.testing.assert_equal(one, other)
    assert parallel.placement == "shared" and isinstance(parallel.observations, jax.Array)
