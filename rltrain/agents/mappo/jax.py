"""MAPPO in JAX (Yu et al. 2022, "The surprising effectiveness of PPO in cooperative multi-agent games")."""

from rltrain.agents.mappo.config import MAPPOConfig
from rltrain.agents.multi_agent.base import MultiAgent
from rltrain.agents.ppo.jax import PPO


class MAPPO(MultiAgent):
    """PPO for every member of a team, with critics that read the state of the whole."""

    config = MAPPOConfig
    part = PPO
