"""MAPPO's settings, the same for both backends."""

from dataclasses import dataclass
from typing import ClassVar

from rltrain.agents.multi_agent.config import TeamConfig
from rltrain.agents.ppo.config import PPOConfig
from rltrain.checks import option
from rltrain.errors import ConfigError


@dataclass
class MAPPOConfig(PPOConfig, TeamConfig):
    """Multi-agent proximal policy optimisation (Yu et al. 2022): every critic reads the state of the whole."""

    KIND: ClassVar[str] = "On-policy; for teams; acts in Box, Discrete, MultiDiscrete and MultiBinary spaces."

    use_states: bool = option(True, "stays true: a critic that reads its own member's observation is ippo's", fixed=True)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        self.check_team(key)
        if not self.use_states:
            raise ConfigError(f"{key}.use_states", False, "a critic that reads its own observation is ippo's; use agents=ippo")
