"""Learning curves: presets reach what docs/results.md says, on fewer seeds. Minutes, so marked slow."""

import json

import pytest

from rltrain.cli import main


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "seeds", "least"),
    [
        ("ppo_cartpole", (1, 2, 3), 500.0),
        ("ppo_acrobot", (1,), -95.0),
        ("ppo_pendulum", (1,), -230.0),
        ("dqn_cartpole", (1,), 475.0),
        ("sac_pendulum", (1,), -160.0),
        ("td3_pendulum", (1,), -160.0),
        ("ippo_spread", (1,), -20.0),  # per agent; -26.2 at random
        ("mappo_spread", (1,), -20.0),
    ],
)
def test_a_preset_reaches_its_return(experiment, seeds, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        run = f"{experiment}_{seed}"
        assert main(["train", f"experiment={experiment}", f"seed={seed}", f"run.dir={run}"]) == 0
        capsys.readouterr()
        assert main(["eval", run, "episodes=100", "json=true"]) == 0
        (agent,) = json.loads(capsys.readouterr().out)["agents"].values()
        mean = agent["mean"]
        assert mean >= least, f"{experiment}, seed {seed}: {mean}"
