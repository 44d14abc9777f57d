"""Trainers; one set of classes serves both backends."""

from rltrain.trainers.base import Trainer
from rltrain.trainers.config import StepTrainerConfig, TrainerConfig
from rltrain.trainers.sequential import SequentialTrainer
from rltrain.trainers.step import StepResult, StepTrainer

__all__ = ["SequentialTrainer", "StepResult", "StepTrainer", "StepTrainerConfig", "Trainer", "TrainerConfig"]
