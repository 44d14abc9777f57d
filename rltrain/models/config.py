"""Networks as settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.checks import option

ACTIVATIONS = ["tanh", "relu", "elu", "silu", "gelu"]


@dataclass
class NetworkConfig:
    """Separate networks for policy and value."""

    policy_sizes: list[int] = option([64, 64], "hidden units of the policy network, layer by layer", low=1, high=65536)
    value_sizes: list[int] = option([64, 64], "hidden units of the value network, layer by layer", low=1, high=65536)
    activation: str = option("tanh", "between layers", choices=ACTIVATIONS)
    initial_log_std: float = option(
        0.0, "logarithm of the standard deviation that a Gaussian policy starts with, in units of half the action range",
        low=-20, high=2,
    )  # fmt: skip
