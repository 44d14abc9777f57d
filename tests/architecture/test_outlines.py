"""The twins say the same in the same order: names of classes, functions and methods, compared by difflib's ratio."""

import difflib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("house", ROOT / "scripts" / "house.py")
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)

ALIKE = 0.9
# where a library's own objects are wrapped, and what computes: flax's modules aren't PyTorch's, nor XLA its kernels
WRAPPERS = ("rltrain/models/layers", "rltrain/models/engines", "rltrain/models/encoders/own")
FOLDERS = {
    folder: ratio
    for folder, ratio in house.twins(ROOT)
    if folder.startswith(("rltrain/agents/", "rltrain/models/")) and folder not in WRAPPERS
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_twins_have_one_outline(folder):
    names = [house.outline(ROOT / folder / f"{backend}.py") for backend in ("torch", "jax")]
    differences = [line for line in difflib.ndiff(*names) if line[0] in "+-"]
    assert FOLDERS[folder] >= ALIKE, differences


def test_all_twins_are_compared():
    assert len(FOLDERS) > 12 and {"rltrain/agents/ppo", "rltrain/models/networks"} <= FOLDERS.keys()
