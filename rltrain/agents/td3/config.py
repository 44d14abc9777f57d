"""TD3's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.checks import option


@dataclass
class TD3Config(DDPGConfig):
    """Twin delayed DDPG (Fujimoto et al. 2018): the lesser of two critics, a late policy, a smoothed target."""

    policy_delay: int = option(2, "gradient steps of the critics for each of the policy and the targets", low=1, high=10_000)
    target_noise: float = option(0.2, "standard deviation of the noise added to the target policy's actions", low=0, high=10)
    target_noise_clip: float = option(0.5, "that noise is clipped to +- this", low=0, high=10)
