"""TD3's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.agents.ddpg.config import DDPGConfig
from rltrain.checks import option
from rltrain.errors import ConfigError


@dataclass
class TD3Config(DDPGConfig):
    """Twin delayed DDPG (Fujimoto et al. 2018): the lesser of two critics, a late policy, a smoothed target."""

    policy_delay: int = option(
        2, "gradient steps of the critics for each of the policy and, with polyak below 1, the targets", low=1, high=10_000
    )
    target_noise: float = option(0.2, "standard deviation of the noise added to the target policy's actions", low=0, high=10)
    target_noise_clip: float = option(0.5, "that noise is clipped to +- this", low=0, high=10)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        if self.polyak < 1 < self.policy_delay and self.target_update_interval > self.update_interval:
            raise ConfigError(
                f"{key}.target_update_interval",
                self.target_update_interval,
                f"with {key}.policy_delay={self.policy_delay} targets move with the policy; give at most "
                f"{key}.update_interval={self.update_interval}, or policy_delay=1, or polyak=1",
            )
