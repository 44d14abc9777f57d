"""PPO's settings, the same for both backends."""

from dataclasses import dataclass

from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.checks import option
from rltrain.errors import ConfigError
from rltrain.ops.schedules import END, KINDS


@dataclass
class PPOConfig(OnPolicyConfig):
    """Proximal policy optimisation (Schulman et al. 2017) with generalised advantages."""

    epochs: int = option(4, "passes over each rollout", low=1, high=10_000)
    minibatches: int = option(
        4, "parts of a pass; at most rollout_length x copies; remainders are spread", low=1, high=10_000_000
    )
    ratio_clip: float = option(0.2, "the probability ratio is clipped to 1 - this ... 1 + this", above=0, high=10)
    ratio_clip_schedule: str = option("constant", "how it changes over the run", choices=KINDS)
    ratio_clip_end: float = option(0.0, END, low=0, high=100)
    value_clip: float | None = option(None, "clip a value's change to +- this; null: don't", above=0)
    kl_stop: float | None = option(
        None, "end the update before the step of a minibatch whose approximate KL is above this; null: don't", above=0
    )
    adapt_learning_rate: str = option(
        "never",
        "by the KL, within 1e-6 ... 1e-2: after each epoch by its mean approximate KL, or before each minibatch's step "
        "by its exact KL",
        choices=["never", "epoch", "minibatch"],
    )
    kl_target: float | None = option(
        None,
        "of adapt_learning_rate: above 2 x this the rate is divided by 1.5, below this / 2 multiplied; null: 0.008 per "
        "epoch, 0.01 per minibatch",
        above=0,
    )

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        super().check(key)
        if self.adapt_learning_rate != "never" and self.learning_rate_schedule != "constant":
            raise ConfigError(
                f"{key}.adapt_learning_rate",
                self.adapt_learning_rate,
                f"the learning rate can't also follow {key}.learning_rate_schedule={self.learning_rate_schedule}; choose one",
            )
        if self.adapt_learning_rate == "never" and self.kl_target is not None:
            raise ConfigError(
                f"{key}.kl_target",
                self.kl_target,
                f"has no effect while {key}.adapt_learning_rate=never; choose epoch or minibatch, or set kl_stop",
            )

    def check_copies(self, num_envs: int, key: str) -> None:
        """Raise ConfigError if a minibatch would be empty."""
        rows = self.rollout_length * num_envs
        if self.network.cell != "none":
            length = self.sequence_length or self.rollout_length
            if self.minibatches > rows // length:
                raise ConfigError(
                    f"{key}.minibatches",
                    self.minibatches,
                    f"more than the {rows // length} sequences of {length} timesteps of {num_envs} copies: whole ones stay "
                    f"together where networks remember; give at most that many, a smaller {key}.sequence_length, or more copies",
                )
        if self.minibatches > rows:
            raise ConfigError(
                f"{key}.minibatches",
                self.minibatches,
                f"more than rollout_length={self.rollout_length} x {num_envs} copies = {rows} rows; give at most {rows}",
            )
