"""IPPO's settings, the same for both backends."""

from dataclasses import dataclass
from typing import ClassVar

from rltrain.agents.multi_agent.config import TeamConfig
from rltrain.agents.ppo.config import PPOConfig
from rltrain.checks import option
from rltrain.errors import ConfigError


@dataclass
class IPPOConfig(PPOConfig, TeamConfig):
    """Independent proximal policy optimisation (de Witt et al. 2020): every critic reads its own member's observation."""

    KIND: ClassVar[str] = "On-policy; for teams; acts in Box, Discrete, MultiDiscrete and MultiBinary spaces."

    use_states: bool = option(False, "stays false: a critic that reads the state of the whole is mappo's", fixed=True)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        self.check_team(key)
        if self.use_states:
            raise ConfigError(
                f"{key}.use_states", True, "a critic that reads the state of the whole is mappo's; use agents=mappo"
            )
