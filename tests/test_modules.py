"""What is imported from the current directory: what this command line names, last on the path, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import RLTRAIN, Result, assert_one_error, call
from forgery import put_file

from rltrain import modules
from rltrain.checkpoints import CheckpointStore
from rltrain.config.schema import plugin_packages

SCRIPT = (str(Path(sys.executable).parent / "rltrain"),)
PYTHONS = ("random", "re", "pickle", "socket", "tempfile", "multiprocessing")
HOSTILE = (
    "gymnasium", "torch", "numpy", "hydra", "omegaconf", "yaml", "rich", "safetensors", "joblib", "submitit", "evilmod", "mpe2",
    "rltrain_extra",
)  # fmt: skip
SAVED = {"run": {}, "evil": {"plugins": ["evilmod"]}, "foreign": {"trust": True, "plugins": ["evilmod"]}}
OWN = """
import random
import neighbour
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

random.random()
gymnasium.register("Own-v0", CartPoleEnv, max_episode_steps=20)
"""
TINY = ("seed=1", "env.num_envs=2", "total_env_steps=64", "tracking.tensorboard=false")


def forget(name: str) -> None:
    """Have a module imported anew."""
    sys.modules.pop(name, None)
    plugin_packages.discard(name)


@pytest.fixture(autouse=True)
def _afterwards():
    before = list(sys.path)
    yield
    modules.begin([], program=False)
    sys.path[:] = before
    for name in ("evilmod", "own", "neighbour", "rltrain_extra"):
        forget(name)


@pytest.fixture
def hostile(here, trained):
    """A directory with files that say so when they are imported, an own environment, a run, and a run that names one of them."""
    for name in (*HOSTILE, *PYTHONS):
        (here / f"{name}.py").write_text(f"open({str(here / 'marks')!r}, 'a').write('{name} ')\n")
    (here / "own.py").write_text(OWN)
    (here / "neighbour.py").write_text("")
    for name, changes in SAVED.items():
        shutil.copytree(trained, here / name)
        config = here / name / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))
    return here


def run(*command: str, **environ: str) -> Result:
    """Run a command in a process of its own."""
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environ = {**given, "OMP_NUM_THREADS": "1", **environ}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environ)
    return Result(done.returncode, done.stdout, done.stderr)


def marks(directory: Path) -> str:
    file = directory / "marks"
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return text


@pytest.mark.parametrize("command", [SCRIPT, RLTRAIN])
def test_nothing_in_the_current_directory_shadows_what_is_installed(command, hostile):
    """Whole commands, with copies in processes of their own; what was typed is found there."""
    result = run(*command, "train", *TINY, "env=own:Own-v0", "env.vectorization=async", "run.dir=new")
    assert (result.status, marks(hostile)) == (0, ""), result.err
    assert result.out.splitlines()[-1].strip() == "rltrain eval new trust=true"  # ready to paste
    for name in PYTHONS:
        (hostile / f"{name}.py").unlink()  # an empty entry in PYTHONPATH puts the directory before what comes before rltrain
    result = run(*command, "eval", "new", "episodes=1", PYTHONPATH=":")
    assert_one_error(result, 2, "env.id=own:Own-v0: a configuration names own, which only the current directory has")
    assert marks(hostile) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer=parallel", "agents=[a:ppo,b:ppo]", "run.dir=new"),
        ("-m", "hydra/launcher=joblib", "hydra.sweep.dir=new"),
        ("-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=new"),
        ("-m", "hydra.sweep.dir=new"),
    ],
)
@pytest.mark.parametrize("named", [("env=own:Own-v0",), ("plugins=[own]", "env=Own-v0")])
def test_workers_and_jobs_get_what_was_typed(overrides, named, hostile):
    result = run(*RLTRAIN, "train", *TINY, *named, *overrides)
    assert (result.status, marks(hostile)) == (0, ""), result.err
    assert list((hostile / "new").rglob("summary.json"))


COMMANDS = [
    ("train", "resume=evil", "total_env_steps=900"), ("eval", "evil/checkpoints/latest", "episodes=1"),
    ("checkpoint", "export", "evil", "memory.npz"),
]  # fmt: skip


def poison(here: Path) -> None:
    """Have the run's newest checkpoint name the module too, its manifest forged."""
    latest = CheckpointStore(here / "evil/checkpoints").pointer("latest")
    put_file(latest, "config.yaml", (here / "evil/config.yaml").read_bytes())


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_saved_name_is_not_looked_for_in_the_current_directory(arguments, hostile, monkeypatch):
    poison(hostile)
    line = f"rltrain {' '.join(arguments)} trust=true"
    refused = call(*arguments)
    assert_one_error(refused, 2, "plugins=evilmod: a configuration names evilmod", line)
    assert refused.err.splitlines()[-1] == line
    refused = call(*arguments, "plugins=[own]", "trust=false")  # another name lets this one in no more
    assert_one_error(refused, 2, "plugins=evilmod: a configuration names evilmod")
    assert marks(hostile) == ""
    for allowing in ("trust=true", "trust=True", "plugins=[evilmod]"):
        call(*arguments, allowing)
        assert marks(hostile).strip() == "evilmod", allowing
        forget("evilmod")
        assert str(hostile) in sys.path and sys.path[-1] == str(hostile)
    assert_one_error(call(*arguments), 2, "a configuration names evilmod")  # not for the next command
    monkeypatch.syspath_prepend(str(hostile))  # as PYTHONPATH does
    forget("evilmod")
    call(*arguments)
    assert marks(hostile).strip() == "evilmod"


def test_what_is_installed_is_found_first(hostile, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("installed")
    (elsewhere / "rltrain_extra.py").write_text("")
    monkeypatch.syspath_prepend(str(elsewhere))
    result = call("train", "plugins=[rltrain_extra]", "--cfg", "job", "seed=1")
    assert (result.status, marks(hostile)) == (0, ""), result.err
    assert sys.modules["rltrain_extra"].__file__ == str(elsewhere / "rltrain_extra.py")


def test_a_package_that_is_missing_is_not_taken_from_the_current_directory(hostile, monkeypatch):
    """PettingZoo's ids name packages too."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "mpe2").exists()])
    for name in [name for name in sys.modules if name.split(".")[0] == "mpe2"]:
        monkeypatch.delitem(sys.modules, name)
    call("train", "env=pettingzoo", "env.id=mpe/simple_spread_v3", "agents=ippo", "run.dir=new")
    assert marks(hostile) == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "+trust=true"], "+trust=true: write trust=true or trust=false"),
        (["train", "++trust=true"], "++trust=true: write trust=true or trust=false"),
        (["train", "trust=1"], "trust=1: write trust=true or trust=false"),
        (["train", "trust"], "trust=: write trust=true or trust=false"),
        (["train", "-m", "seed=1,2", "trust=true"], "trust=true: a sweep reads no saved configuration; name your modules"),
        (["checkpoint", "verify", "run", "trust=true"], "trust=true: is for train, eval and checkpoint export"),
        (["list", "agents", "trust=true"], "trust=true: is for train, eval and checkpoint export"),
        (["train", "resume=foreign", "trust=true"], "trust=true: is read from the command line alone; take it out of the file"),
        (["train", "plugins=[own]", "experiment=trusting"], "trust=true: is read from the command line alone"),
    ],
)
def test_trust_is_read_from_the_command_line_alone(arguments, sentence, hostile):
    (hostile / "conf/experiment").mkdir(parents=True)
    (hostile / "conf/experiment/trusting.yaml").write_text("# @package _global_\ntrust: true\nenv:\n  id: evilmod:X-v0\n")
    assert_one_error(call(*arguments), 2, sentence)
    marks(hostile)


def test_trust_is_not_saved(hostile):
    result = call("train", *TINY, "env=own:Own-v0", "run.dir=new", "trust=true")
    assert result.status == 0, result.err
    assert "trust" not in (hostile / "new/config.yaml").read_text()
    shown = call("train", *TINY, "trust=true", "--cfg", "resolved")
    assert shown.status == 0 and "trust" not in shown.out


def test_a_secret_that_was_typed_is_not_repeated(hostile):
    result = call("train", "resume=evil", "env.kwargs.password=swordfish")
    assert_one_error(result, 2, "a configuration names evilmod", "env.kwargs.password=***")
    assert "swordfish" not in result.text
