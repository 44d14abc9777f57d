"""The kill trials, a few of them; `python scripts/kill_trials.py` makes 200."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/kill_trials.py"


@pytest.mark.slow
@pytest.mark.parametrize("agents", ["ppo", "ippo"])
def test_kill_trials(agents):
    if agents == "ippo":
        pytest.importorskip("mpe2")
    command = [sys.executable, str(SCRIPT), "--trials", "12", "--agents", agents]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("12 kills (")


@pytest.fixture
def trials():
    spec = importlib.util.spec_from_file_location("kill_trials", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_trial_that_lost_too_much_or_does_not_verify_is_a_failure(trials, trained, tmp_path):
    """`trained` wrote its last row and its last checkpoint at 200."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    tally = trials.Tally()
    trials.check(run, tally, 1)
    assert (tally.lost, tally.failures) == ([0], [])
    older = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit() and path.name != "200")
    (run / "checkpoints/latest").write_text(str(older))
    trials.check(run, tally, 2)
    assert tally.failures == [f"trial 2: {200 - older} timesteps lost, the interval is {trials.INTERVAL}"]
    (run / f"checkpoints/{older}/manifest.sha256").write_text("0" * 64)
    trials.check(run, tally, 3)
    assert "does not match manifest.sha256" in tally.failures[1]
