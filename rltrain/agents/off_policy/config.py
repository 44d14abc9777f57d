"""Settings that DQN, DDPG, SAC and what extends them share, the same for both backends."""

from collections.abc import Callable
from dataclasses import dataclass

from rltrain.checks import option
from rltrain.errors import ConfigError
from rltrain.ops.schedules import END, KINDS
from rltrain.rewards import DOC as REWARD_FUNCTION
from rltrain.structures import UpdateSchedule


@dataclass
class OffPolicyConfig:
    """When to learn and from what: memory, targets, n-step returns, priorities."""

    learning_starts: int = option(
        1000, "timesteps before the first update; until then actions are uniform random", low=0, high=1_000_000_000
    )
    update_interval: int = option(1, "timesteps between updates", low=1, high=10_000_000)
    gradient_steps: int | str = option(
        "auto", "of an update; auto: as many as env steps since the last one", low=1, high=10_000_000, choices=["auto"]
    )
    batch_size: int = option(256, "transitions of a gradient step, drawn uniformly with replacement", low=1, high=10_000_000)
    sequence_length: int = option(
        16, "of networks that remember: timesteps of a sequence to learn from", low=1, high=1_000_000, fixed=True
    )
    burn_in: int = option(
        8, "timesteps before a sequence that networks remember and don't learn from", low=0, high=1_000_000, fixed=True
    )
    sequences: int = option(32, "of a gradient step, instead of batch_size where networks remember", low=1, high=10_000_000)
    stored_state: bool = option(
        True, "the network that acts begins burn_in with what it remembered when it acted there; false: with nothing", fixed=True
    )
    memory_size: int = option(
        1_000_000, "transitions that are kept, over all copies; rounded down to whole timesteps", low=1, high=10**12, fixed=True
    )
    memory_of: str | None = option(
        None,
        "another agent, listed before, whose memory this one shares: both record there and draw from what all recorded; "
        "memory_size, memory_mapped and memory_directory are then that one's. null: a memory of its own",
        fixed=True,
    )
    memory_mapped: str = option(
        "auto",
        "keep them in a file instead of main memory; auto: if they would take more than half of what is free",
        choices=["auto", "true", "false"],
    )
    memory_directory: str | None = option(None, "where that file is; null: the system's folder for temporary files")
    learning_rate: float = option(3e-4, "Adam's step size", above=0, high=1)
    learning_rate_schedule: str = option("constant", "how it changes over the run", choices=KINDS)
    learning_rate_end: float = option(0.0, END, low=0, high=100)
    discount_factor: float = option(0.99, "gamma", low=0, high=1)
    n_steps: int = option(
        1, "rewards in a target before it bootstraps; fewer where an episode ends or is cut off", low=1, high=10_000
    )
    polyak: float = option(
        0.005,
        "share of the networks in their targets: target <- target + this (network - target) after each gradient step; 1: "
        "a copy, after an update's last one",
        above=0,
        high=1,
    )
    target_update_interval: int = option(
        1, "timesteps between moves of the targets; a move comes with the next update", low=1, high=1_000_000_000
    )
    loss: str = option(
        "squared", "of Q against its target: d^2, or huber: d^2 / 2 up to |d| = 1, |d| - 1/2 beyond", choices=["squared", "huber"]
    )
    grad_norm_clip: float = option(0.0, "largest norm of a network's gradient; 0: no limit", low=0)
    reward_function: str | Callable | None = option(None, REWARD_FUNCTION)
    reward_scale: float = option(1.0, "rewards are multiplied by this before learning; reported returns are not", above=0)
    reward_clip: float | None = option(None, "then clipped to +- this; null: not", above=0)
    normalize_observations: bool = option(
        False, "by running mean and variance, which change before each update; the memory holds them raw"
    )
    prioritized: bool = option(
        False, "draw transitions in proportion to (|error| + 1e-6)^priority_exponent (Schaul et al. 2016)", fixed=True
    )
    priority_exponent: float = option(0.6, "alpha: 0 draws uniformly", low=0, high=1)
    importance_exponent: float = option(
        0.4, "beta: weights (1 / (size x probability))^beta, divided by the batch's largest", low=0, high=1
    )
    importance_exponent_schedule: str = option("linear", "how it changes over the run", choices=KINDS)
    importance_exponent_end: float = option(2.5, END, low=0, high=100)

    def check(self, key: str) -> None:
        """Raise ConfigError for settings that contradict each other."""
        for name, kind in vars(self).items():
            if name.endswith("_schedule") and kind == "exponential" and not getattr(self, name.replace("schedule", "end")):
                end = f"{key}.{name.replace('schedule', 'end')}"
                raise ConfigError(f"{key}.{name}", kind, f"never reaches {end}=0; give a value above 0, such as 0.01")
        self._check_sequences(key)
        if not self.window and self.batch_size > self.memory_size:
            raise ConfigError(
                f"{key}.batch_size", self.batch_size, f"more than {key}.memory_size={self.memory_size}; give at most that many"
            )
        if self.memory_directory is not None and self.memory_mapped == "false":
            raise ConfigError(
                f"{key}.memory_directory", self.memory_directory, f"has no effect while {key}.memory_mapped=false; leave it out"
            )

    def _check_sequences(self, key: str) -> None:
        usual = type(self)()
        if not self.window:
            for name in ("sequence_length", "burn_in", "sequences", "stored_state"):
                if (value := getattr(self, name)) != getattr(usual, name):
                    reason = f"has no effect on networks that remember nothing; set {key}.network.cell=gru"
                    raise ConfigError(f"{key}.{name}", value, reason)
            return
        if self.batch_size != usual.batch_size:
            reason = f"has no effect on networks that remember; set {key}.sequences, of {key}.sequence_length timesteps each"
            raise ConfigError(f"{key}.batch_size", self.batch_size, reason)

    @property
    def window(self) -> int:
        """Timesteps that a sequence takes with what comes before and after it; 0: networks remember nothing."""
        network = getattr(self, "network", None)
        if getattr(network, "cell", "none") == "none":
            return 0
        return self.burn_in + self.sequence_length + self.n_steps - 1

    @property
    def drawn(self) -> int:
        """Sequences of a gradient step where networks remember, else transitions."""
        return self.sequences if self.window else self.batch_size

    def bytes_remembered(self, actions_read: int) -> int:
        """Return how many bytes of a row in memory say what networks remembered there."""
        network = getattr(self, "network", None)
        if network is None or not self.window:
            return 0
        states = network.cell_size * network.cell_layers * (2 if network.cell == "lstm" else 1)
        return 1 + 4 * (actions_read + (states if self.stored_state else 0))

    def least_timesteps(self, num_envs: int) -> int:
        """Return how many timesteps a gradient step needs."""
        return self.window or -(-self.batch_size // num_envs)

    def schedule(self) -> UpdateSchedule:
        """Return when to learn."""
        return UpdateSchedule(learning_starts=max(self.learning_starts, self.window - 1), every=self.update_interval)

    def check_copies(self, num_envs: int, key: str, owner: str | None = None) -> None:
        """Raise ConfigError if the memory can't hold what a gradient step needs of every copy; it is `owner`'s, where given."""
        timesteps, size_key = max(2, self.n_steps, self.window), f"{owner or key}.memory_size"
        if self.memory_size < (least := num_envs * timesteps):
            whole = f", as long as a sequence with {key}.burn_in and {key}.n_steps is" if self.window else ""
            reason = f"less than {timesteps} timesteps of {num_envs} copies{whole}; give at least {least}"
            raise ConfigError(size_key, self.memory_size, reason)
        if not self.window and self.memory_size // num_envs * num_envs < self.batch_size:
            raise ConfigError(
                size_key,
                self.memory_size,
                f"in whole timesteps of {num_envs} copies less than {key}.batch_size={self.batch_size}; give more",
            )
