"""An environment that keeps a password and tells it whenever it can."""

import logging
import sys
import warnings
from urllib.parse import urlsplit

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
from omegaconf import OmegaConf


class Leaky(CartPoleEnv):
    def __init__(self, password="", address="", fail_in=""):
        super().__init__()
        self.password, self.deep, self.fail_in = password, {"db": [f"user={password}"]}, fail_in
        self.of_address = urlsplit(address).password
        self.turns = 0
        self.tell("make")

    def tell(self, phase):
        print("out", [self.password], self.of_address)
        print("err", self.password, file=sys.stderr)
        logging.getLogger("leaky").error("logged %s", self.password, exc_info=ValueError(self.password))
        warnings.warn(f"warned of {self.password}", stacklevel=1)
        if self.fail_in == phase:
            raise ValueError(f"{phase}: {self.password!r} {self.of_address}")

    def step(self, action):
        self.turns += 1
        if self.turns == 20:
            self.tell("step")
        return *super().step(action)[:4], {"password": self.password}


class Keeping(Leaky):
    """Says itself what its state is."""

    def snapshot(self):
        return {"turns": self.turns, "text": self.password}

    def restore(self, snapshot):
        self.turns = snapshot["turns"]


gymnasium.register("Leaky-v0", Leaky, max_episode_steps=30)
gymnasium.register("Keeping-v0", Keeping, max_episode_steps=30)
OmegaConf.register_new_resolver("vault", lambda name: f"vault's {name}", replace=True)
