"""What a training says for a person to act on: evaluations, the closing lines, a preset that would learn, where `best` is."""

import shlex
import shutil

import pytest
import yaml
from command_line import SMALL, call, merged, summary, train

from rltrain.commands.announce import find_presets
from rltrain.commands.plans import make_plan


def test_evaluations_are_told_and_logged(trained):
    log = (trained / "train.log").read_text()
    best = summary(trained)["agents"]["ppo"]["best"]
    assert f"evaluation at {best['timestep']}: ppo {best['score']:.1f} (best)\n" in log
    assert log.count("evaluation at 100: ppo ") == log.count("evaluation at 200: ppo ") == 1


@pytest.mark.parametrize("trainer", ["sequential", pytest.param("parallel", marks=pytest.mark.slow)])
def test_evaluations_of_several_agents_are_one_line(trainer, here):
    agents = ("agents=[a:ppo,b:ppo]", f"trainer={trainer}", "trainer.timesteps=40")
    own = [setting.replace("ppo", "a", 1) if setting.startswith("agents.ppo") else setting for setting in SMALL]
    result = call("train", *own, *agents, "evaluation.interval=40", "evaluation.episodes=2", "run.dir=run")
    assert result.status == 0, result.err
    scores = {name: agent["best"]["score"] for name, agent in summary(here / "run")["agents"].items()}
    assert f"evaluation at 40: a {scores['a']:.1f} (best), b {scores['b']:.1f} (best)\n" in result.err
    assert result.err.count("40/40 timesteps") == 1


def test_the_closing_lines_can_be_pasted(here):
    result = train("run.dir=my run", "trainer.timesteps=40")
    resume, evaluate = (shlex.split(line) for line in result.out.splitlines()[-2:])
    assert resume[:3] == ["rltrain", "train", "resume=my run"] and evaluate == ["rltrain", "eval", "my run"]
    assert "tensorboard" not in result.out  # which this run doesn't write for
    assert call(*resume[1:]).status == 0 and summary(here / "my run")["timestep"] == 80


def test_an_evaluation_says_which_column_it_is_in(monkeypatch, here):
    monkeypatch.setenv("COLUMNS", "150")
    result = train("trainer.timesteps=40", "evaluation.interval=40", "evaluation.episodes=2")
    assert "best evaluation" in result.out and "return (last 100)" in result.out


def test_latest_best(trained, here):
    shutil.copytree(trained, "outputs/CartPole-v1/ppo/run")
    (here / "outputs/latest").symlink_to("CartPole-v1/ppo/run")
    for given in ("latest/best", "checkpoint=latest/best", "checkpoint=latest", "latest/latest"):
        result = call("eval", given, "episodes=2", "json=true")
        assert result.status == 0, result.err
    result = call("eval", "latest/bets")
    assert result.status == 2 and "latest/bets" in result.err


@pytest.mark.parametrize(
    ("overrides", "presets"),
    [
        (["env=Pendulum-v1"], ["ppo_pendulum"]),
        (["env=Pendulum-v1", "agents=sac"], ["sac_pendulum"]),
        (["env=Pendulum-v1", "agents=a2c"], []),
        (["env=MountainCarContinuous-v0"], ["td3_mountaincar"]),
        (["env=gymnax", "env.id=CartPole-v1", "backend=jax"], ["ppo_gymnax_cartpole"]),
        (["env=Blackjack-v1"], []),
        (["experiment=ppo_pendulum"], []),
        (["env=Pendulum-v1", "experiment=ppo_pendulum"], []),
        ([], []),
    ],
)
def test_presets_for_an_environment(overrides, presets):
    assert find_presets(make_plan(overrides).config, overrides) == presets


def test_a_preset_is_named_once_and_only_at_the_start(here):
    one = merged(SMALL, ("env=Pendulum-v1", "trainer.timesteps=40", "run.dir=run"))
    first = call("train", *one)
    assert first.status == 0 and first.err.count("a preset for this environment: experiment=ppo_pendulum\n") == 1
    assert "preset" not in call("train", "resume=run", "trainer.timesteps=41").text


def test_a_plugins_preset_is_named_too(here, monkeypatch):
    package = here / "own_presets"
    (package / "conf/experiment").mkdir(parents=True)
    (package / "__init__.py").touch()
    preset = {"defaults": [{"override /agents": ["ppo"]}], "env": {"id": "Blackjack-v1"}}
    (package / "conf/experiment/mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(preset))
    (package / "conf/experiment/broken.yaml").write_text("a: [")
    monkeypatch.syspath_prepend(here)
    overrides = ["env=Blackjack-v1", "plugins=[own_presets]"]
    assert find_presets(make_plan(overrides).config, overrides) == ["mine"]
