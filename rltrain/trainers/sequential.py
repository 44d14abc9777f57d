"""The sequential trainer: agents act and learn one after the other in each timestep."""

from rltrain.trainers.base import Trainer


class SequentialTrainer(Trainer):
    """Agents act and learn one after the other in each timestep: the loop as it stands in the base class."""

    strict = True
