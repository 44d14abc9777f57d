"""DQN's settings, the same for both backends."""

from dataclasses import dataclass
from typing import ClassVar

from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.checks import option, section
from rltrain.errors import ConfigError
from rltrain.models.config import QNetworkConfig
from rltrain.ops.schedules import KINDS


@dataclass
class DQNConfig(OffPolicyConfig):
    """Deep Q-learning (Mnih et al. 2015)."""

    KIND: ClassVar[str] = "Off-policy; acts in Discrete spaces."

    update_interval: int = option(4, "timesteps between updates", low=1, high=10_000_000)
    gradient_steps: int | str = option(
        "auto", "of an update; auto: as many as env steps since the last one", low=1, high=10_000_000, choices=["auto"]
    )
    batch_size: int = option(64, "transitions of a gradient step, drawn uniformly with replacement", low=1, high=10_000_000)
    learning_rate: float = option(1e-4, "Adam's step size", above=0, high=1)
    polyak: float = option(
        1.0,
        "share of the network in its target: target <- target + this (network - target) after each gradient step; 1: a "
        "copy, after an update's last one",
        above=0,
        high=1,
    )
    target_update_interval: int = option(
        250, "timesteps between moves of the target; a move comes with the next update", low=1, high=1_000_000_000
    )
    loss: str = option(
        "huber",
        "of Q against its target: squared: d^2; huber: d^2 / 2 up to |d| = 1, |d| - 1/2 beyond",
        choices=["squared", "huber"],
    )
    grad_norm_clip: float = option(10.0, "largest norm of the gradient; 0: no limit", low=0)
    epsilon: float = option(1.0, "probability of a uniform random action at the start", low=0, high=1)
    epsilon_schedule: str = option("linear", "how it changes over exploration_fraction of the run", choices=KINDS)
    epsilon_end: float = option(0.05, "probability of a uniform random action from there on", low=0, high=1)
    exploration_fraction: float = option(0.1, "part of the horizon in which epsilon changes", above=0, high=1)
    network: QNetworkConfig = section(QNetworkConfig, "the network", fixed=True)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        if self.epsilon_end > self.epsilon:
            raise ConfigError(
                f"{key}.epsilon_end",
                self.epsilon_end,
                f"more than {key}.epsilon={self.epsilon}, where it begins; give at most that",
            )
