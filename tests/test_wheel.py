"""Every module under rltrain/, and every file of conf/, is in the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", "77")
ROOT = Path(__file__).parents[1]


def test_the_wheel_has_every_module_and_every_setting(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("rltrain", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "rltrain/agents/newcomer").mkdir()
    (source / "rltrain/agents/newcomer/__init__.py").write_text("")  # a folder that nobody listed anywhere
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    kept = [path for path in (source / "rltrain").rglob("*") if path.suffix in (".py", ".typed", ".yaml")]
    wanted = {str(path.relative_to(source)) for path in kept}
    wanted |= {f"rltrain/{path.relative_to(source)}" for path in (source / "conf").rglob("*.yaml")}
    assert wanted <= there, sorted(wanted - there)
