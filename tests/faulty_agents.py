"""Agents that fail when told to by environment variables, in whichever process they live.

FAULT="agent:updates:what" makes the agent of that name, in that update (from 1; 0: when it is made in a worker), do `what`:
raise, nan, exit, kill, segfault, stop or hang. The time is written to the file FAULT_AT first.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.ppo.torch import PPO
from rltrain.config import register


class Faulty(PPO):
    """PPO until the fault."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count = 0
        if multiprocessing.parent_process() is not None:
            self._obey()

    def update(self, progress: Any) -> dict[str, float]:
        """Learn, or fail."""
        self.count += 1
        self._obey()
        return super().update(progress)

    def _obey(self) -> None:
        name, count, what = os.environ.get("FAULT", "nobody:0:raise").split(":")
        if self.key != f"agents.{name}" or int(count) != self.count:
            return
        Path(os.environ["FAULT_AT"]).write_text(str(time.time()))
        if what == "raise":
            raise ZeroDivisionError("my agent is broken")
        if what == "nan":
            self.parameters.values.fill_(float("nan"))
            return
        if what == "exit":
            os._exit(3)
        if what == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(what, 0))
        time.sleep(1000)


register("agents", "faulty", "faulty_agents.Faulty", PPOConfig)
