"""Replay memories by the command line: what can't be had is told before anything is created."""

import pytest
from command_line import assert_one_error, call

from rltrain.checkpoints import CheckpointStore


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["memory_size=1e12"], "agents.dqn.memory_size=1000000000000: takes "),
        (["memory_size=1e12", "memory_mapped=true"], "agents.dqn.memory_size=1000000000000: takes "),
        (["memory_directory=nowhere"], "agents.dqn.memory_directory=nowhere: no such directory; name another one"),
    ],
)
def test_a_memory_without_room_is_refused(overrides, sentence, dry_run, here):
    overrides = [f"agents.dqn.{override}" for override in overrides]
    assert_one_error(call("train", "agents=dqn", *overrides, f"dry_run={dry_run}"), 2, sentence)
    assert not list(here.iterdir())


@pytest.mark.parametrize(("timesteps", "warns"), [(1003, True), (1004, False)])
def test_a_run_that_learns_nothing_says_so(timesteps, warns, here):
    """Updates follow each 4th timestep after the first 1000."""
    agent = ["agents=dqn", "env.num_envs=1", "agents.dqn.learning_starts=1000", "agents.dqn.update_interval=4"]
    result = call("train", *agent, f"trainer.timesteps={timesteps}", "run.dir=run")
    line = "warning: agents.dqn learns nothing: its first update would come after 1,004 timesteps"
    assert (result.status, line in result.err) == (0, warns), result.err


def test_a_latest_checkpoint_that_is_gone_is_told(here):
    assert call("train", "agents=dqn", "trainer.timesteps=20", "checkpoints.interval=10", "run.dir=run").status == 0
    (here / "run/checkpoints/latest").write_text("9999")
    result = call("train", "resume=run", "trainer.timesteps=30")
    assert result.status == 0 and "skipped: run/checkpoints/9999: it is the latest one, and isn't there" in result.err
    assert CheckpointStore(here / "run/checkpoints").pointer("latest").name == "30"
