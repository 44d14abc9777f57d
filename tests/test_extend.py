"""The recipes in docs/extend, followed word by word: their code blocks become files, their commands are run."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import gymnasium
import pytest
from command_line import call

from rltrain import modules
from rltrain.config.schema import CHOICES, plugin_options, plugin_packages

PAGES = Path(__file__).parents[1] / "docs/extend"
BLOCK = re.compile(r"^```(python|yaml|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = ("my_env", "my_wrapped", "my_team", "my_lines", "my_agent", "my_package", "my_package.corridor")


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
        else:
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


def test_an_algorithm(here):
    follow("algorithm.md", here)
    text = (here / "climber/metrics.jsonl").read_text()
    assert "climber/best_score" in text
