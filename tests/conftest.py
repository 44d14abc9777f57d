"""One thread, and modules beside this file importable by name, in this process and in those it starts."""

import os
import signal
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # for agents on a device each
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from command_line import Zygote, train
from long_ones import NAMES
from only_here import MISSING, left_out, needs


def pytest_ignore_collect(collection_path):
    """Leave out the files that import a backend that isn't installed."""
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_") and needs(collection_path) & set(MISSING):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave the long ones to -m slow."""
    for item in items:
        if item.nodeid in NAMES:
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter):
    """Say which those are."""
    for name, files in left_out().items():
        terminalreporter.write_line(f"{name} is not installed; left out, of all tests: {', '.join(files)}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory, and the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    """Starts commands as processes of their own."""
    zygote = Zygote(tmp_path_factory.mktemp("processes"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of 200 timesteps with evaluations and checkpoints; copy it to change it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    evaluation = ("evaluation.interval=100", "evaluation.episodes=3")
    train(f"run.dir={run}", "trainer.timesteps=200", "checkpoints.interval=64", *evaluation)
    return run
