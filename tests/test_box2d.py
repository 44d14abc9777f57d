"""LunarLander, whose simulator's state can't be saved: a resume begins new episodes and says so; learned numbers go on."""

import json
import shutil

import pytest
from command_line import rows, summary, train

pytest.importorskip("Box2D")

LANDER = ("env=LunarLander-v3", "agents.ppo.normalize_observations=true", "agents.ppo.normalize_rewards=true")


def test_a_resume_that_is_not_exact_says_so_and_goes_on(here):
    train(*LANDER, "trainer.timesteps=50", "run.dir=run", "schedule.horizon=100")
    checkpoint = here / "run/checkpoints/50"
    assert json.loads((checkpoint / "manifest.json").read_text())["exact_resume"] is False
    shutil.copytree(here / "run", here / "other")
    for name in ("run", "other"):
        said = train(f"resume={name}", "trainer.timesteps=100", "seed=1", "env.num_envs=4").text
        assert "new episodes start here (exact_resume is false)" in said
    one, other = summary(here / "run"), summary(here / "other")
    # one update at 32 feeds the statistics, 64 and 96 learn; the resumed runs draw the same new episodes
    assert one["agents"]["ppo"]["updates"] == 3
    assert one["agents"]["ppo"]["parameters_sha256"] == other["agents"]["ppo"]["parameters_sha256"]
    assert [row["timestep"] for row in rows(here / "run")] == [20, 40, 50, 60, 80, 100]
