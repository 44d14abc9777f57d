"""The recipes in docs/extend, followed word by word: their code blocks become files, their commands are run."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from command_line import call

from rltrain import modules
from rltrain.config.schema import CHOICES, plugin_options, plugin_packages

PAGES = Path(__file__).parents[1] / "docs/extend"
BLOCK = re.compile(r"^```(python|py|yaml|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = (
    "my_nets",
    "my_jax_nets",
    "my_env",
    "my_wrapped",
    "my_team",
    "my_lines",
    "my_rewards",
    "my_tank",
    "my_agent",
    "my_awr",
    "my_awr.in_torch",
    "my_awr.in_jax",
    "my_package",
    "my_package.corridor",
)


@pytest.fixture(autouse=True)
def _afterwards():
    path, choices = list(sys.path), {group: dict(there) for group, there in CHOICES.items()}
    options = set(plugin_options)
    yield
    modules.begin([], program=False)
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)
        plugin_packages.discard(name)
    for group, there in choices.items():
        CHOICES[group].clear()
        CHOICES[group].update(there)
    plugin_options.intersection_update(options)
    gymnasium.registry.pop("Corridor-v0", None)


def follow(page: str, directory: Path) -> list[str]:
    """Write what a page's blocks say into files, run its commands in between; return the files and commands."""
    done = []
    for kind, text in BLOCK.findall((PAGES / page).read_text(encoding="utf-8")):
        if kind == "bash":
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "rltrain"
                result = call(*arguments)
                assert result.status == 0, f"{line}\n{result.err}"
                done.append(line)
        elif text.startswith("# "):
            name = re.search(r"^# (\S+\.\w+)$", text, re.MULTILINE).group(1)
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text, encoding="utf-8")
            done.append(name)
    return done


def test_a_package_with_a_preset(here):
    done = follow("index.md", here)
    assert done[-1].startswith("rltrain eval corridor episodes=20 fail_under=0.9") and (here / "corridor/summary.json").exists()


def test_an_environment(here, monkeypatch):
    pytest.importorskip("mpe2")
    follow("environment.md", here)
    assert all((here / run / "summary.json").exists() for run in ("point", "wrapped", "team", "lines"))
    monkeypatch.syspath_prepend(str(here))
    runpy.run_path(str(here / "my_program.py"), run_name="__main__")


@pytest.mark.slow
def test_an_encoder(here):
    pytest.importorskip("jax")
    done = follow("encoder.md", here)
    assert all((here / run / "summary.json").exists() for run in ("encoded", "encoded_jax")), done


def test_an_algorithm(here):
    pytest.importorskip("jax")
    follow("algorithm.md", here)
    assert "climber/best_score" in (here / "climber/metrics.jsonl").read_text()
    assert all("loss/policy" in (here / run / "metrics.jsonl").read_text() for run in ("awr", "awr_jax"))
    result = call("eval", "awr", "episodes=20", "trust=true", "fail_under=100")
    assert result.status == 0, result.text


def test_a_reward(here, monkeypatch, capsys):
    follow("rewards.md", here)
    assert all((here / run / "summary.json").exists() for run in ("gentle", "frugal"))
    monkeypatch.syspath_prepend(str(here))
    runpy.run_path(str(here / "my_tank.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1] == "[0.0, 0.0, 0.0, 0.0]"


@pytest.mark.slow
def test_a_command(here):
    """The page's code goes into a copy of rltrain; so does its test, which is run there."""
    root = PAGES.parents[1]
    shutil.copytree(root / "rltrain", here / "rltrain", ignore=shutil.ignore_patterns("__pycache__"))
    (here / "tests").mkdir()
    for name in ("conf", "pyproject.toml"):
        (here / name).symlink_to(root / name)
    for name in ("conftest.py", "command_line.py", "long_ones.py", "only_here.py"):
        (here / "tests" / name).symlink_to(root / "tests" / name)
    commands = []
    for kind, text in BLOCK.findall((PAGES / "command.md").read_text(encoding="utf-8")):
        first, _, rest = text.partition("\n")
        table = re.fullmatch(r"# in (\w+) of (\S+)", first)
        if kind == "bash":
            commands += text.splitlines()
        elif table is None:
            (here / first.removeprefix("# ")).write_text(rest)
        else:
            path = here / table[2]
            source = path.read_text(encoding="utf-8")
            place = re.search(rf"^{table[1]}\b[^\n]*\n(?:    verb\.name: verb\n    for verb in \(\n)?", source, re.MULTILINE)
            path.write_text(source[: place.end()] + rest + source[place.end() :], encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    script = " && ".join(line.replace("rltrain ", f"{sys.executable} -m rltrain ", 1) for line in commands)
    done = subprocess.run(script, shell=True, capture_output=True, text=True, env=environ, cwd=here)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("64: "), done.stderr
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_size.py"]
    done = subprocess.run(pytest_here, capture_output=True, text=True, env=environ, cwd=here)
    assert done.returncode == 0, done.stdout
