"""An agent that writes down what it does, in whichever process it lives."""

import os
import time

from rltrain.agents.base import Agent


class Diary(Agent):
    """Writes a line at each timestep to the file DIARY; agent B is slow."""

    def pre_interaction(self, timestep: int, timesteps: int) -> None:
        """Write down where it is."""
        with open(os.environ["DIARY"], "a") as file:
            file.write(f"{self.name} {timestep} {os.getpid()}\n")
        if self.name == "B":
            time.sleep(0.002)
