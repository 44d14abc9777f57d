"""Whole runs compared, checkpoint by checkpoint and row by row, to the bit; what depends on the clock aside."""

from pathlib import Path
from typing import Any

import numpy as np
from command_line import rows, summary

from rltrain.checkpoints import read_part, verify


def checkpoints_of(run: Path) -> dict[str, Any]:
    """Return everything that a run's checkpoints hold, and where its pointers point."""
    held: dict[str, Any] = {}
    for path in sorted((run / "checkpoints").iterdir()):
        if not path.is_dir():
            held[path.name] = path.read_text()
            continue
        manifest = verify(path)
        parts = [name.removesuffix(".safetensors") for name in manifest["files"] if name.endswith(".safetensors")]
        held[path.name] = {part: read_part(path, part, manifest) for part in parts}
        held[path.name]["trainer"]["training_seconds"] = 0.0
        # versions are of what the process has imported, in tests for other environments too
        held[path.name]["manifest"] = {key: value for key, value in manifest.items() if key not in ("files", "versions")}
    return held


def assert_same_runs(one: Path, other: Path) -> None:
    """Compare two runs."""
    np.testing.assert_equal(checkpoints_of(one), checkpoints_of(other))
    assert rows(one) == rows(other)
    first, second = summary(one)["agents"], summary(other)["agents"]
    assert first == second
