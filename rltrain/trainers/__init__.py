"""Trainers; one set of classes serves both backends. Names are imported when they are first used: settings need no trainer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer
    from rltrain.trainers.config import ParallelConfig, StepConfig, TrainerConfig
    from rltrain.trainers.parallel import ParallelTrainer
    from rltrain.trainers.sequential import SequentialTrainer
    from rltrain.trainers.step import StepResult, StepTrainer

__all__ = [
    "ParallelConfig",
    "ParallelTrainer",
    "SequentialTrainer",
    "StepConfig",
    "StepResult",
    "StepTrainer",
    "Trainer",
    "TrainerConfig",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    if name.endswith("Config"):
        from rltrain.trainers import config as module
    elif name == "Trainer":
        from rltrain.trainers import base as module  # type: ignore[no-redef]
    elif name == "ParallelTrainer":
        from rltrain.trainers import parallel as module  # type: ignore[no-redef]
    elif name == "SequentialTrainer":
        from rltrain.trainers import sequential as module  # type: ignore[no-redef]
    else:
        from rltrain.trainers import step as module  # type: ignore[no-redef]
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
