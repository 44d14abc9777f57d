"""DDPG's settings, the same for both backends."""

from dataclasses import dataclass
from typing import ClassVar

from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.checks import option, section
from rltrain.models.config import ActorCriticsConfig
from rltrain.ops.schedules import END, KINDS


@dataclass
class DDPGConfig(OffPolicyConfig):
    """Deep deterministic policy gradient (Lillicrap et al. 2016). Noise is in units of half the action range."""

    KIND: ClassVar[str] = "Off-policy; acts in bounded Box spaces."

    policy_learning_rate: float | None = option(None, "of the policy's optimiser; null: learning_rate", above=0, high=1)
    noise: str = option(
        "gaussian",
        "added to actions when exploring: independent, or drifting back to 0 (ornstein_uhlenbeck)",
        choices=["gaussian", "ornstein_uhlenbeck", "none"],
    )
    noise_scale: float = option(
        0.1, "its standard deviation; of ornstein_uhlenbeck, per square root of a unit of time", low=0, high=10
    )
    noise_scale_schedule: str = option("constant", "how it changes over the run", choices=KINDS)
    noise_scale_end: float = option(0.0, END, low=0, high=100)
    noise_decay: float = option(0.15, "theta of ornstein_uhlenbeck: how fast it drifts back", low=0, high=100)
    noise_time_step: float = option(0.01, "dt of ornstein_uhlenbeck: units of time in a timestep", above=0, high=1)
    network: ActorCriticsConfig = section(ActorCriticsConfig, "the networks", fixed=True)
