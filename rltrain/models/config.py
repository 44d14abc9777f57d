"""Networks as settings, the same for both backends."""

from dataclasses import dataclass
from typing import Any

from rltrain.checks import option
from rltrain.errors import ConfigError
from rltrain.models.images import check_layers

ACTIVATIONS = ["tanh", "relu", "elu", "silu", "gelu"]
INITIALIZATION = (
    "orthogonal: gain sqrt(2), 0.01 for the policy's outputs, biases 0; default: uniform within 1 / sqrt(inputs), as PyTorch's "
    "layers"
)


CNNS = ["auto", "none", "nature", "impala", "minatar"]


@dataclass
class EncoderConfig:
    """What makes features of observations, before the hidden layers."""

    cnn: str | list[Any] = option(
        "auto",
        "what reads images: nature (Mnih et al. 2015), impala (Espeholt et al. 2018), minatar (Young and Tian 2019), "
        "[channels, kernel, stride] of each convolution and units of a linear layer as in [[16,3,1],128]; auto: nature from "
        "36 x 36 on, else minatar; none: pixels are numbers like any other",
        choices=CNNS,
    )
    encoder: str | None = option(
        None, "a class of your own instead, `my_package.nets:Encoder`: made from the observation space, called with observations"
    )
    encoder_kwargs: dict[str, Any] = option({}, "its keyword arguments")
    frozen: list[str] = option([], "parameters that don't learn, by parts of their names: encoder, or policy.weights.0")

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        if isinstance(self.cnn, list):
            check_layers(self.cnn, f"{key}.cnn")
        if self.encoder is not None and self.cnn != "auto":
            raise ConfigError(f"{key}.cnn", self.cnn, f"has no effect beside {key}.encoder; leave it out")
        if self.encoder is None and self.encoder_kwargs:
            raise ConfigError(f"{key}.encoder_kwargs", self.encoder_kwargs, f"has no effect without {key}.encoder")


CELLS = ["none", "rnn", "gru", "lstm"]
REMEMBERS_ACTIONS = "a cell reads the action before, too: zeros at first, a choice one-hot"


@dataclass
class CellConfig(EncoderConfig):
    """What remembers, between features and hidden layers."""

    cell: str = option(
        "none",
        "what remembers, between features and hidden layers: rnn (Elman 1990), gru (Cho et al. 2014), lstm (Hochreiter and "
        "Schmidhuber 1997)",
        choices=CELLS,
    )
    cell_size: int = option(64, "numbers that a layer of it remembers", low=1, high=65536)
    cell_layers: int = option(1, "layers of it, one on the other", low=1, high=64)
    remembers_actions: bool = option(False, REMEMBERS_ACTIONS)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        for name in ("cell_size", "cell_layers", "remembers_actions"):
            if self.cell == "none" and getattr(self, name) != getattr(type(self)(), name):
                raise ConfigError(f"{key}.{name}", getattr(self, name), f"has no effect without a cell; set {key}.cell=gru")


@dataclass
class NetworkConfig(CellConfig):
    """Networks for policy and value, and the form of a continuous policy."""

    policy_sizes: list[int] = option([64, 64], "hidden units of the policy network, layer by layer", low=1, high=65536)
    value_sizes: list[int] = option([64, 64], "hidden units of the value network, layer by layer", low=1, high=65536)
    shared: bool = option(False, "one network of policy_sizes with two outputs instead; value_sizes then stays as it is")
    activation: str = option("tanh", "between layers", choices=ACTIVATIONS)
    layer_norm: bool = option(False, "normalise each hidden layer before its activation")
    initialization: str = option("orthogonal", INITIALIZATION, choices=["orthogonal", "default"])
    initial_log_std: float = option(
        0.0,
        "logarithm of the standard deviation that a Gaussian policy starts with, in units of half the action range",
        low=-20,
        high=2,
    )
    state_dependent_std: bool = option(False, "the policy network gives the standard deviation too, from initial_log_std on")
    squashed: bool = option(False, "a continuous policy ends in tanh, inside the bounds, instead of being clipped to them")

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        if self.shared and self.value_sizes != NetworkConfig().value_sizes:
            raise ConfigError(
                f"{key}.value_sizes", self.value_sizes, "shared=true has one network, of policy_sizes; leave value_sizes out"
            )


@dataclass
class QNetworkConfig(CellConfig):
    """A network for the values of every choice."""

    sizes: list[int] = option([64, 64], "hidden units, layer by layer", low=1, high=65536)
    dueling: bool = option(False, "its outputs are V(s) and A(s, a): Q = V + A - the mean of A over all choices")
    activation: str = option("relu", "between layers", choices=ACTIVATIONS)
    layer_norm: bool = option(False, "normalise each hidden layer before its activation")
    initialization: str = option("default", INITIALIZATION, choices=["orthogonal", "default"])


@dataclass
class ActorCriticsConfig(CellConfig):
    """A policy's network, and networks for the value of an action."""

    remembers_actions: bool = option(True, REMEMBERS_ACTIONS)
    policy_sizes: list[int] = option([256, 256], "hidden units of the policy network, layer by layer", low=1, high=65536)
    critic_sizes: list[int] = option([256, 256], "hidden units of each critic, layer by layer", low=1, high=65536)
    activation: str = option("relu", "between layers", choices=ACTIVATIONS)
    layer_norm: bool = option(False, "normalise each hidden layer before its activation")
    initialization: str = option("default", INITIALIZATION, choices=["orthogonal", "default"])


AnyNetworkConfig = NetworkConfig | QNetworkConfig | ActorCriticsConfig
