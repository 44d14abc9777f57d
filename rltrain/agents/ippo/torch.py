"""IPPO in PyTorch (de Witt et al. 2020, "Is independent learning all you need in the StarCraft multi-agent challenge?")."""

from rltrain.agents.ippo.config import IPPOConfig
from rltrain.agents.multi_agent.base import MultiAgent
from rltrain.agents.ppo.torch import PPO


class IPPO(MultiAgent):
    """PPO for every member of a team, each critic reading what its own member observes."""

    config = IPPOConfig
    part = PPO
