"""Trainers; one set of classes serves both backends."""

from rltrain.trainers.base import Trainer
from rltrain.trainers.config import StepConfig, TrainerConfig
from rltrain.trainers.sequential import SequentialTrainer
from rltrain.trainers.step import StepResult, StepTrainer

__all__ = ["SequentialTrainer", "StepResult", "StepTrainer", "StepConfig", "Trainer", "TrainerConfig"]
