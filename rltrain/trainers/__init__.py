"""Trainers; one set of classes serves both backends."""

from rltrain.trainers.base import Trainer
from rltrain.trainers.config import ParallelConfig, TrainerConfig
from rltrain.trainers.parallel import ParallelTrainer
from rltrain.trainers.sequential import SequentialTrainer

__all__ = ["ParallelConfig", "ParallelTrainer", "SequentialTrainer", "Trainer", "TrainerConfig"]
