"""An environment that prints wherever it can: in Python, to the descriptor, by C's buffered stdio, from a process of its own."""

import ctypes
import os
import subprocess

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

LIBC = ctypes.CDLL(None)


def chatter(phase: str) -> None:
    print(f"python {phase}")
    os.write(1, f"descriptor {phase}\n".encode())
    LIBC.printf(f"stdio {phase}\n".encode())
    subprocess.run(["echo", f"process {phase}"], check=True)


class Printing(CartPoleEnv):
    def __init__(self):
        super().__init__()
        chatter("make")

    def reset(self, **kwargs):
        chatter("reset")
        return super().reset(**kwargs)

    def close(self):
        chatter("close")
        super().close()


chatter("import")
gymnasium.register("Printing-v0", Printing, max_episode_steps=5)
