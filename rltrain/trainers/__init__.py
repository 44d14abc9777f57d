"""Trainers; one set of classes serves both backends."""

from rltrain.trainers.base import Trainer
from rltrain.trainers.config import TrainerConfig
from rltrain.trainers.sequential import SequentialTrainer

__all__ = ["SequentialTrainer", "Trainer", "TrainerConfig"]
