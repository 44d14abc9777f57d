"""`trainer=step` on the command line: the sequential run to the bit, and a callback after each step."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL, assert_one_error, call, merged, rows, summary, train

from rltrain.checkpoints import CheckpointStore, read_part, verify
from rltrain.envs.gymnasium import GymnasiumEnv

SCRIPT = Path(__file__).parent.parent / "scripts/curriculum.py"
EVALUATED = ("evaluation.interval=50", "evaluation.episodes=3", "checkpoints.interval=64")
PLUGIN = """
import os, signal

def count(trainer, result):
    with open("calls", "a") as file:
        file.write(f"{trainer.timestep} {result.rewards.shape[0]}\\n")

def fail(trainer, result):
    if trainer.timestep == 7:
        raise ValueError("no more")

def stop(trainer, result):
    if trainer.timestep == 7:
        os.kill(os.getpid(), signal.SIGTERM)

def finish(trainer, result):
    if trainer.timestep == 7:
        trainer.finish()

def few(trainer):
    pass

number = 3
"""


def hashes(run: Path) -> dict[str, str]:
    return {name: agent["parameters_sha256"] for name, agent in summary(run)["agents"].items()}


@pytest.fixture
def mine(here):
    """A working directory with a package of one's own."""
    (here / "mine").mkdir()
    (here / "mine/__init__.py").write_text("")
    (here / "mine/calls.py").write_text(PLUGIN)
    return here


@pytest.fixture(scope="module")
def sequential(tmp_path_factory):
    """A sequential run of 150 timesteps with evaluations."""
    run = tmp_path_factory.mktemp("sequential") / "run"
    train(f"run.dir={run}", "trainer.timesteps=150", *EVALUATED)
    return run


def run_step(zygote, *overrides: str, cwd: Path):
    base = merged(SMALL, ("trainer=step", "plugins=[mine]", "run.dir=run", "trainer.timesteps=20"))
    return zygote.run("train", *merged(tuple(base), overrides), cwd=cwd)


def test_it_is_the_sequential_run(here, sequential):
    train("run.dir=run", "trainer=step", "trainer.timesteps=150", *EVALUATED)
    assert hashes(here / "run") == hashes(sequential) and rows(here / "run") == rows(sequential)
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (here / "run", sequential)]
    assert names[0] == names[1]
    assert "step" in call("list", "trainers").out


@pytest.mark.parametrize(("first", "second"), [("step", "step"), ("step", "sequential"), ("sequential", "step")])
def test_a_resume_may_take_another_trainer(first, second, here, sequential):
    train("run.dir=run", f"trainer={first}", "trainer.timesteps=100", "schedule.horizon=150", *EVALUATED)
    result = call("train", "resume=run", f"trainer={second}", "trainer.timesteps=150")
    assert result.status == 0, result.err
    assert f"{second.capitalize()}Trainer" in result.err
    assert hashes(here / "run") == hashes(sequential)
    assert rows(here / "run") == rows(sequential)


def test_a_resume_with_another_trainer_keeps_what_both_have(here):
    train("run.dir=run", "trainer.timesteps=30", "trainer.render_interval=7")
    assert call("train", "resume=run", "trainer=step", "trainer.timesteps=31").status == 0
    text = (here / "run/config.yaml").read_text()
    assert "rltrain.trainers.StepTrainer" in text and "render_interval: 7" in text and "timesteps: 31" in text


def test_the_callback_comes_after_each_step(mine, zygote):
    result = run_step(zygote, "trainer.callback=mine.calls:count", cwd=mine)
    assert result.status == 0, result.err
    assert (mine / "calls").read_text().splitlines() == [f"{t} 4" for t in range(1, 21)]
    result = zygote.run("eval", "run", "episodes=4", "json=true", "plugins=[mine]", cwd=mine)
    assert json.loads(result.out)["agents"]["ppo"]["episodes"] == 4
    assert len((mine / "calls").read_text().splitlines()) == 20  # an evaluation doesn't call it
    plain = run_step(zygote, "run.dir=plain", cwd=mine)
    assert plain.status == 0 and hashes(mine / "plain") == hashes(mine / "run")


def test_a_callback_that_raises(mine, zygote):
    result = run_step(zygote, "trainer.callback=mine.calls:fail", cwd=mine)
    assert result.status == 1
    assert "error: trainer.callback=mine.calls:fail: after timestep 6: ValueError: no more\nTraceback" in result.err
    assert 'mine/calls.py", line' in result.err and 'mine/calls.py", line' in (mine / "run/error.log").read_text()
    assert summary(mine / "run")["exit_reason"].startswith("failed: RunError: trainer.callback=mine.calls:fail")


@pytest.mark.parametrize(("name", "status", "reason"), [("stop", 143, "stopped by SIGTERM"), ("finish", 0, "finished")])
def test_a_callback_may_end_the_run(name, status, reason, mine, zygote):
    result = run_step(zygote, f"trainer.callback=mine.calls:{name}", cwd=mine)
    assert result.status == status, result.err
    assert (summary(mine / "run")["exit_reason"], summary(mine / "run")["timestep"]) == (reason, 7)
    assert (mine / "run/checkpoints/latest").read_text().strip() == "7"
    result = zygote.run("train", "resume=run", "trainer=sequential", "trust=true", cwd=mine)
    assert result.status == 0 and summary(mine / "run")["timestep"] == 20
    whole = run_step(zygote, "run.dir=whole", cwd=mine)
    assert whole.status == 0 and hashes(mine / "whole") == hashes(mine / "run")


BAD = [
    ("foo", "write package.module:function, or null"),
    ("mine.calls:", "write package.module:function"),
    (":count", "write package.module:function"),
    ("mine.calls:count:x", "write package.module:function"),
    ("3", "must be text"),
    ("os:system", "lies outside the packages named in plugins (mine)"),
    ("minecraft:count", "lies outside the packages named in plugins (mine)"),
    ("rltrain.cli:main", "lies outside the packages named in plugins (mine)"),
    ("mine.call:count", "mine.call can't be imported (ModuleNotFoundError"),
    ("mine.calls:cuont", "mine.calls has no cuont; did you mean 'count'?"),
    ("mine.calls:number", "is not a function; options: count"),
    ("mine.calls:few", "must take two arguments: the trainer and what the step brought"),
]


@pytest.mark.parametrize(("name", "sentence"), BAD)
def test_bad_names_create_nothing(name, sentence, mine, zygote):
    before = sorted(mine.rglob("*.yaml")), len(list(mine.iterdir()))
    result = run_step(zygote, f"trainer.callback={name}", cwd=mine)
    assert_one_error(result, 2, f"trainer.callback={name}: ", sentence)
    assert (sorted(mine.rglob("*.yaml")), len(list(mine.iterdir()))) == before


def test_without_plugins_and_without_the_step_trainer(here):
    result = call("train", "trainer=step", "trainer.callback=os:system", "run.dir=run")
    assert_one_error(result, 2, "lies outside the packages named in plugins (none are given)")
    result = call("train", "trainer.callback=a:b", "run.dir=run")
    assert_one_error(result, 2, "trainer.callback=a:b: is a setting of trainer=step; choose that, or leave it out")
    result = call("train", "trainer=step", "trainer.fused=true", "run.dir=run")
    assert_one_error(result, 2, "trainer.fused=true: a step trainer makes one timestep at a time; use auto or false")
    assert not list(here.iterdir())


def test_a_sweep_with_a_bad_callback_runs_none(mine, zygote):
    names = "trainer.callback=mine.calls:count,mine.calls:cuont"
    result = zygote.run("train", "-m", *SMALL, "trainer=step", "plugins=[mine]", "trainer.timesteps=5", names, cwd=mine)
    assert_one_error(result, 2, "mine.calls has no cuont")
    assert not (mine / "outputs").exists() and not (mine / "calls").exists()


# -- the curriculum ----------------------------------------------------------------------------------------------------------


def gravity_of(run: Path) -> float:
    latest = CheckpointStore(run / "checkpoints").pointer("latest")
    trainer = read_part(latest, "trainer", verify(latest))
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 8})
    env.reset()
    env.restore(trainer["env"])
    copies = env.get_attr("gravity")
    assert len(copies) == 8 and len(set(copies)) == 1
    return copies[0]


def test_the_curriculum(here, zygote):
    """Levels are reached one after the other, and a run that was stopped between two of them goes on exactly."""
    shutil.copy(SCRIPT, here)
    (here / "curriculum.py").write_text(SCRIPT.read_text().replace("GOOD_ENOUGH = 30.0, 60.0", "GOOD_ENOUGH = 30.0, 30.0"))
    step = ("seed=1", "trainer=step", "plugins=[curriculum]", "trainer.callback=curriculum:make_harder")
    runs = {}
    for name, timesteps in (("whole", 3000), ("stopped", 2000)):
        how = (f"run.dir={name}", f"trainer.timesteps={timesteps}", "schedule.horizon=3000")
        runs[name] = zygote.run("train", *step, *how, cwd=here)
        assert runs[name].status == 0, runs[name].err
    assert "gravity 9.8 -> 14.8" in runs["whole"].text and "gravity 14.8 -> 19.8" in runs["whole"].text
    assert 9.8 < gravity_of(here / "stopped") < gravity_of(here / "whole")
    assert zygote.run("train", "resume=stopped", "trainer.timesteps=3000", "trust=true", cwd=here).status == 0
    assert hashes(here / "stopped") == hashes(here / "whole")
    assert gravity_of(here / "stopped") == gravity_of(here / "whole")


@pytest.mark.slow
def test_the_curriculum_as_a_script(here):
    result = subprocess.run([sys.executable, str(SCRIPT)], cwd=here, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    levels = re.findall(r"gravity ([\d.]+) -> ([\d.]+)", result.stderr + result.stdout)
    assert levels == [(f"{9.8 + 5 * i:.1f}", f"{14.8 + 5 * i:.1f}") for i in range(5)]  # none left out
    assert re.search(r"^gravity 34.8 m/s\^2 after \d,\d{3} timesteps$", result.stdout, re.MULTILINE)
    assert not list(here.iterdir())
