"""SBX's DQN and SAC (Stable-Baselines3 in JAX) on the off-policy tasks."""

from peers.off_policy import Result, Task
from peers.sb3_off_policy import train


def run(task: Task, seed: int) -> Result:
    """Train in this process, with no Monitor wrapper and no logging."""
    import torch
    from flax import linen
    from sbx import DQN, SAC

    torch.set_num_threads(1)
    return train(task, seed, DQN, SAC, linen.relu)
