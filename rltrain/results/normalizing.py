"""Scores that compare over tasks: 0 is what random actions reach, 1 a reference; both stand in scores.yaml with their source."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.errors import ConfigError, RltrainError
from rltrain.files import read_small

MAX_BYTES = 2**20
SHIPPED = Path(__file__).with_name("scores.yaml")


@dataclass(frozen=True)
class Scale:
    """What a task's scores are measured by."""

    random: float
    reference: float
    source: str

    def normalize(self, scores: np.ndarray) -> np.ndarray:
        """Return scores with 0 for random actions and 1 for the reference."""
        return (scores - self.random) / (self.reference - self.random)


def read_scales(tasks: Sequence[str], file: str | None = None) -> dict[str, Scale]:
    """Return the scales of those tasks that have one, in the shipped file or in one of somebody's own, which wins.

    Raises ConfigError for a file that can't be read.
    """
    scales = _read(SHIPPED, tasks) | (_read(Path(file), tasks) if file else {})
    return {task: scales[task] for task in tasks if task in scales}


def _read(path: Path, tasks: Sequence[str]) -> dict[str, Scale]:
    import yaml

    try:
        found = yaml.load(read_small(path, MAX_BYTES, "a file of scores"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError, RltrainError) as error:
        raise ConfigError("scores", path, f"can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise ConfigError("scores", path, f"must be sources, each with tasks; see {SHIPPED}")
    return {
        str(task): _scale(path, str(task), pair, str(source))
        for source, named in found.items()
        for task, pair in (named.items() if isinstance(named, dict) else ())
        if task in tasks
    }


def _scale(path: Path, task: str, pair: Any, source: str) -> Scale:
    try:
        random, reference = float(pair["random"]), float(pair["reference"])
        good = math.isfinite(random) and math.isfinite(reference) and random != reference
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise ConfigError("scores", path, f"{task}: must be {{random: NUMBER, reference: ANOTHER}}")
    return Scale(random, reference, source)
