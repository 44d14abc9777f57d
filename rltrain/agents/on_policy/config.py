"""Settings that PPO and A2C share, the same for both backends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rltrain.checks import option, section
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.ops.schedules import END, KINDS
from rltrain.rewards import DOC as REWARD_FUNCTION
from rltrain.structures import UpdateSchedule


@dataclass
class OnPolicyConfig:
    """Rollouts, advantages, normalisers and networks."""

    KIND: ClassVar[str] = "On-policy; acts in Box, Discrete, MultiDiscrete and MultiBinary spaces."

    rollout_length: int = option(128, "timesteps between updates", low=1, high=10_000_000, fixed=True)
    learning_rate: float = option(2.5e-4, "the optimiser's step size", above=0, high=1)
    learning_rate_schedule: str = option("constant", "how it changes over the run", choices=KINDS)
    learning_rate_end: float = option(0.0, END, low=0, high=100)
    discount_factor: float = option(0.99, "gamma", low=0, high=1)
    gae_lambda: float = option(0.95, "lambda of the generalised advantages", low=0, high=1)
    standardize_advantages: bool = option(True, "to mean 0 and standard deviation 1 over the rollout")
    entropy_scale: float = option(0.01, "weight of the entropy bonus", low=0, high=100)
    entropy_scale_schedule: str = option("constant", "how it changes over the run", choices=KINDS)
    entropy_scale_end: float = option(0.0, END, low=0, high=100)
    value_scale: float = option(0.5, "weight of the value loss, the mean squared error", low=0, high=100)
    grad_norm_clip: float = option(0.5, "largest norm of the gradient; 0: no limit", low=0)
    reward_function: str | Callable | None = option(None, REWARD_FUNCTION)
    reward_scale: float = option(1.0, "rewards are multiplied by this before learning; reported returns are not", above=0)
    reward_clip: float | None = option(None, "then clipped to +- this; null: not", above=0)
    normalize_rewards: bool = option(False, "first divided by the running standard deviation of the discounted return")
    normalize_observations: bool = option(
        False, "by running mean and variance, frozen within an iteration; the first rollout only feeds them: no update follows it"
    )
    normalize_values: bool = option(False, "the value network predicts returns normalised by their running mean and variance")
    use_states: bool = option(True, "the value network reads the environment's privileged states, where it has them", fixed=True)
    sequence_length: int | None = option(
        None,
        "of networks that remember: timesteps that stay together, in minibatches too; rollout_length is a multiple of it. null: "
        "a whole rollout",
        low=1,
        high=10_000_000,
    )
    network: NetworkConfig = section(NetworkConfig, "the networks", fixed=True)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        for name, kind in vars(self).items():
            if name.endswith("_schedule") and kind == "exponential" and not getattr(self, name.replace("schedule", "end")):
                end = f"{key}.{name.replace('schedule', 'end')}"
                raise ConfigError(f"{key}.{name}", kind, f"never reaches {end}=0; give a part above 0, such as 0.01")
        if self.sequence_length is None:
            return
        if self.network.cell == "none":
            raise ConfigError(
                f"{key}.sequence_length",
                self.sequence_length,
                f"has no effect on networks that remember nothing; set {key}.network.cell=gru",
            )
        if self.rollout_length % self.sequence_length:
            raise ConfigError(
                f"{key}.sequence_length",
                self.sequence_length,
                f"{key}.rollout_length={self.rollout_length} is no multiple of it; give a number that divides it",
            )

    def schedule(self) -> UpdateSchedule:
        """Return when to learn."""
        return UpdateSchedule(every=self.rollout_length)

    def check_copies(self, num_envs: int, key: str) -> None:
        """Raise ConfigError if an update would lack rows."""
