"""With json=true stdout holds the figures alone, whatever an environment, C code and its own processes print."""

import json

import pytest
from command_line import train


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_what_an_environment_prints_goes_to_stderr(zygote, tmp_path, vectorization):
    run = tmp_path / "run"
    train(f"run.dir={run}", "total_env_steps=128", "env.num_envs=2")
    there = (
        f"run.dir={tmp_path / 'there'}",
        f"env.vectorization={vectorization}",
        "episodes=2",
        "env.id=printing_envs:Printing-v0",
    )
    result = zygote.run("eval", str(run), "json=true", *there)
    assert result.status == 0, result.text
    assert json.loads(result.out)["agents"]["ppo"]["episodes"] == 2 and result.out.count("\n") == 1
    for how in ("python", "descriptor", "stdio", "process"):
        for phase in ("make", "reset") if vectorization == "async" else ("import", "make", "reset", "close"):
            if (how, phase, vectorization) == ("stdio", "reset", "async"):
                continue  # C holds it back until the copy's process ends, which doesn't wait for it where it has to be ended
            assert f"{how} {phase}\n" in result.err
