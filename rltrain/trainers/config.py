"""A trainer's settings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rltrain.checks import build, option
from rltrain.errors import ConfigError, nearest


@dataclass
class TrainerConfig:
    """How long to train and what to show."""

    timesteps: int | None = option(None, "turns of the loop, each one step of all copies; null: by total_env_steps", low=1)
    headless: bool = option(True, "don't render")
    render_interval: int = option(1, "timesteps between renderings, when not headless", low=1)
    disable_progressbar: bool | None = option(None, "true: no bar; null: a bar on a terminal, plain lines elsewhere")
    close_environment_at_exit: bool = option(True, "close the environments when the program ends")
    environment_info: str = option("episode", "key of `infos` whose numbers are added to the metrics, if it is there")
    fused: str = option(
        "auto",
        "one compiled program for environment and agents, where both are written in JAX; auto: wherever that can be",
        choices=["auto", "true", "false"],
    )
    stochastic_evaluation: bool = option(False, "evaluate the policy as it explores, not its likeliest actions")


@dataclass
class ParallelConfig(TrainerConfig):
    """The same, and how the workers go along with one another."""

    placement: str = option(
        "auto",
        "partitioned: each worker steps a slice of the environment; shared: the parent steps all of it; auto: as can be",
        choices=["auto", "partitioned", "shared"],
    )
    max_drift: int = option(
        512,
        "timesteps that one worker may be ahead of the slowest, when partitioned; kill -9 loses up to as many more",
        low=1,
    )
    worker_timeout: float = option(300.0, "seconds that a worker may go without a sign of life", low=1, high=604_800)


@dataclass
class StepConfig(TrainerConfig):
    """The same, and what to call after each step."""

    callback: str | None = option(
        None, "package.module:function, called after each step with the trainer and what the step brought; null: none"
    )

    def check(self, key: str) -> None:
        """Raise ConfigError unless `callback` has the form of a function's name."""
        if self.callback is not None and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", self.callback):
            raise ConfigError(f"{key}.callback", self.callback, "write package.module:function, or null")


@dataclass
class Length:
    """How long to train, in steps of all copies together."""

    total_env_steps: int = option(1, "steps of all copies together, rounded up to whole timesteps", low=1)


def with_settings(cfg: Any, settings: Mapping[str, Any], kind: type[TrainerConfig], num_envs: int) -> Any:
    """Return `cfg` with settings that were given by keyword, `total_env_steps` turned into timesteps.

    Raises ConfigError for one that there isn't, and for both ways to say how long.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if not given:
        return cfg
    known = [field.name for field in fields(kind)]
    for key in given:
        if key not in (*known, "total_env_steps"):
            raise ConfigError(f"trainer.{key}", given[key], f"no such setting; {nearest(key, [*known, 'total_env_steps'])}")
    base: dict[str, Any] = {} if cfg is None else dict(cfg) if isinstance(cfg, Mapping) else asdict(cfg)
    if isinstance(cfg, TrainerConfig):  # perhaps of another kind of trainer
        base = {key: value for key, value in base.items() if key in known}
    total = given.pop("total_env_steps", None)
    if total is not None:
        timesteps = given.get("timesteps", base.get("timesteps"))
        if timesteps is not None:
            raise ConfigError("trainer.timesteps", timesteps, f"total_env_steps={total} is given too; give one of them")
        total = int(total) if isinstance(total, float) and total.is_integer() else total  # 1e6 is how people write a million
        given["timesteps"] = -(-build(Length, {"total_env_steps": total}).total_env_steps // num_envs)
    return {**base, **given}


class Cfg(Mapping[str, Any]):
    """A trainer's checked settings, by attribute and by key; a subclass's own keys stand beside them."""

    def __init__(self, config: TrainerConfig, extra: Mapping[str, Any]) -> None:
        self._values = {f.name: getattr(config, f.name) for f in fields(config)} | dict(extra)

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`."""
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        """Return the value of `name`."""
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._values)

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._values)
