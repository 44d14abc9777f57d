"""A2C's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.checks import option


@dataclass
class A2CConfig(OnPolicyConfig):
    """Advantage actor-critic (Mnih et al. 2016), synchronous: one gradient step per rollout."""

    rollout_length: int = option(8, "timesteps between updates", low=1, high=10_000_000, fixed=True)
    learning_rate: float = option(7e-4, "the optimiser's step size", above=0, high=1)
    gae_lambda: float = option(1.0, "lambda of the generalised advantages; 1: n-step returns", low=0, high=1)
    standardize_advantages: bool = option(False, "to mean 0 and standard deviation 1 over the rollout")
    optimizer: str = option("rmsprop", "rmsprop (decay 0.99) or adam", choices=["rmsprop", "adam"], fixed=True)
