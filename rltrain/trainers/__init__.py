"""Trainers; one set of classes serves both backends."""

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
