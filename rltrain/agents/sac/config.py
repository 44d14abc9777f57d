"""SAC's settings, the same for both backends."""

from dataclasses import dataclass
from typing import ClassVar

from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.checks import option, section
from rltrain.models.config import ActorCriticsConfig


@dataclass
class SACConfig(OffPolicyConfig):
    """Soft actor-critic (Haarnoja et al. 2018b), for choices too (Christodoulou 2019)."""

    KIND: ClassVar[str] = "Off-policy; acts in Discrete and bounded Box spaces."

    policy_learning_rate: float | None = option(None, "of the policy's optimiser; null: learning_rate", above=0, high=1)
    entropy_coefficient: float | str = option(
        "auto",
        "alpha, the weight of the entropy; auto: learned, so that the entropy is about target_entropy",
        low=0,
        high=1e6,
        choices=["auto"],
    )
    initial_entropy_coefficient: float = option(1.0, "where auto begins", above=0, high=1e6)
    entropy_learning_rate: float | None = option(None, "of the coefficient's optimiser; null: learning_rate", above=0, high=1)
    target_entropy: float | str = option(
        "auto",
        "what auto aims at; auto: minus the number of action dimensions, of n allowed choices 0.89 log n",
        low=-1e6,
        high=1e6,
        choices=["auto"],
    )
    network: ActorCriticsConfig = section(ActorCriticsConfig, "the networks", fixed=True)
