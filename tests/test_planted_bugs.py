"""The planted bugs of scripts/planted_bugs.py can be planted: their texts are in the source, their tests are there."""

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "planted_bugs.py"


def test_every_entry_fits(monkeypatch):
    spec = importlib.util.spec_from_file_location("planted_bugs", SCRIPT)
    planted = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "planted_bugs", planted)
    spec.loader.exec_module(planted)
    assert len(planted.BUGS) >= 71
    assert {bug.name: planted.misfit(bug) for bug in planted.BUGS if planted.misfit(bug)} == {}
    assert [test for bug in planted.BUGS for test in bug.tests if not (Path(__file__).parent / test).exists()] == []
