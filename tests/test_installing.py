"""The command that brings an extra works from wherever rltrain was installed."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from rltrain import installing

CHECKOUT = Path(installing.__file__).parents[1]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            {"url": "https://example.org/rltrain.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
            "pip install 'rltrain[gymnax] @ git+https://example.org/rltrain.git'",
        ),
        (
            {"url": "https://example.org/r.git", "vcs_info": {"vcs": "git", "requested_revision": "v1", "commit_id": "ab12"}},
            "pip install 'rltrain[gymnax] @ git+https://example.org/r.git@v1'",
        ),
        ({"url": CHECKOUT.as_uri(), "dir_info": {"editable": True}}, f"pip install -e '{CHECKOUT}[gymnax]'"),
        (None, f"pip install -e '{CHECKOUT}[gymnax]'"),  # on PYTHONPATH
    ],
)
def test_from_a_repository_or_a_checkout(origin, command, monkeypatch):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert installing.command_for("gymnax") == command


def test_from_a_wheel_and_from_a_registry(monkeypatch, tmp_path):
    origins = [{"url": "file:///dist/rltrain-1-py3-none-any.whl", "archive_info": {}}, None]
    monkeypatch.setattr(installing, "__file__", str(tmp_path / "rltrain" / "installing.py"))

    class Distribution:
        def read_text(self, name):
            origin = origins.pop(0)
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert installing.command_for("torch") == "pip install 'rltrain[torch] @ file:///dist/rltrain-1-py3-none-any.whl'"
    assert installing.command_for("torch") == "pip install 'rltrain[torch]'"
