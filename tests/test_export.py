"""`rltrain checkpoint export`: a memory becomes a file that other programs read, or one line says why not."""

import numpy as np
import pytest
from command_line import assert_one_error, call


@pytest.fixture
def trained(here):
    """Two agents' run with their memories, shared: a records copies 0 and 1, b copy 2."""
    agents = ["agents=[a:dqn,b:ddqn]", "agents_scope=[2,1]", "agents.b.memory_of=a", "env.num_envs=3"]
    result = call("train", *agents, "trainer.timesteps=60", "checkpoints.memory=true", "run.dir=run", "seed=3")
    assert result.status == 0, result.err
    return here


def test_every_transition_is_written_with_its_successor(trained):
    result = call("checkpoint", "export", "run", "rows.npz", "agent=b")
    assert (result.status, result.out.split(",")[0]) == (0, "rows.npz: 180 transitions of b")
    with np.load(trained / "rows.npz", allow_pickle=False) as file:
        rows = dict(file)
    assert {name: array.shape for name, array in rows.items()} == {
        "observations": (60, 3, 4), "next_observations": (60, 3, 4), "actions": (60, 3), "rewards": (60, 3),
        "terminated": (60, 3), "truncated": (60, 3), "valid": (60, 3),
    }  # fmt: skip
    done = rows["terminated"] | rows["truncated"]
    goes_on = ~done[:-1]
    assert np.array_equal(rows["next_observations"][:-1][goes_on], rows["observations"][1:][goes_on])
    fallen = np.abs(rows["next_observations"][rows["terminated"]])  # CartPole: |x| > 2.4 or |angle| > 12 degrees
    assert len(fallen) and ((fallen[:, 0] > 2.4) | (fallen[:, 2] > np.radians(12))).all()
    assert (rows["rewards"] == 1).all() and rows["valid"].all()


def test_what_is_there_stays(trained):
    (trained / "mine.npz").write_text("mine")
    assert_one_error(call("checkpoint", "export", "run", "mine.npz", "agent=a"), 2, "mine.npz: is there already")
    assert (trained / "mine.npz").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "rows.npz"], "rltrain checkpoint export: say whose memory with agent=NAME; options: a, b"),
        (["run", "rows.npz", "agent=c"], "agent=c: no such agent; options: a, b"),
        (["run", "rows.npz", "agent=a", "agent=b"], "rltrain checkpoint export run rows.npz agent=a agent=b: write rltrain"),
        (["run"], "rltrain checkpoint export run: write rltrain"),
        (["run", "rows.csv", "agent=a"], "rows.csv: is neither .npz nor .parquet"),
        (["run", "nowhere/rows.npz", "agent=a"], "nowhere/rows.npz: there is no directory nowhere"),
        (["nowhere", "rows.npz", "agent=a"], "nowhere: no such run or checkpoint"),
    ],
)
def test_a_wrong_command_writes_nothing(trained, arguments, sentence):
    before = sorted(trained.iterdir())
    assert_one_error(call("checkpoint", "export", *arguments), 2, sentence)
    assert sorted(trained.iterdir()) == before


@pytest.mark.parametrize(
    ("agent", "status", "sentence"),
    [
        ("ppo", 2, "agent=ppo: PPO learns from rollouts and has no memory of transitions"),
        ("dqn", 3, "run/checkpoints/10: agents.dqn: the checkpoint has no transitions; checkpoints.memory=true keeps"),
    ],
)
def test_without_a_memory_there_is_nothing_to_write(here, agent, status, sentence):
    assert call("train", f"agents={agent}", "trainer.timesteps=10", "run.dir=run").status == 0
    assert_one_error(call("checkpoint", "export", "run", "rows.npz"), status, sentence)
    assert not (here / "rows.npz").exists()
