"""PPO's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.checks import option, section
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig


@dataclass
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017) with generalised advantages."""

    rollout_length: int = option(128, "timesteps between updates", low=1, high=10_000_000, fixed=True)
    epochs: int = option(4, "passes over each rollout", low=1, high=10_000)
    minibatches: int = option(
        4, "parts of a pass; at most rollout_length x copies; remainders are spread", low=1, high=10_000_000
    )
    learning_rate: float = option(2.5e-4, "Adam's step size", above=0, high=1)
    discount_factor: float = option(0.99, "gamma", low=0, high=1)
    gae_lambda: float = option(0.95, "lambda of the generalised advantages", low=0, high=1)
    ratio_clip: float = option(0.2, "the probability ratio is clipped to 1 - this ... 1 + this", above=0, high=10)
    value_clip: float | None = option(None, "clip a value's change to +- this; null: don't", above=0)
    entropy_scale: float = option(0.01, "weight of the entropy bonus", low=0, high=100)
    value_scale: float = option(0.5, "weight of the value loss, the mean squared error", low=0, high=100)
    grad_norm_clip: float = option(0.5, "largest norm of the gradient; 0: no limit", low=0)
    normalize_observations: bool = option(
        False, "by running mean and variance, frozen within an iteration; the first rollout only feeds them: no update follows it"
    )
    normalize_values: bool = option(False, "the value network predicts returns normalised by their running mean and variance")
    network: NetworkConfig = section(NetworkConfig, "the networks", fixed=True)

    def check_copies(self, num_envs: int, key: str) -> None:
        """Raise ConfigError if a minibatch would be empty."""
        rows = self.rollout_length * num_envs
        if self.minibatches > rows:
            raise ConfigError(
                f"{key}.minibatches", self.minibatches,
                f"more than rollout_length={self.rollout_length} x {num_envs} copies = {rows} rows; give at most {rows}",
            )  # fmt: skip
