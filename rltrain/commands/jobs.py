"""The jobs of a sweep: counted first, then each composed and checked before any is started."""

import math
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rltrain import assemble
from rltrain import config as configuration
from rltrain.config.compose import plain_number
from rltrain.errors import ConfigError

MOST_JOBS = 10_000
MANY = 20  # jobs whose checking may take a while
SAY_EVERY = 2.0  # seconds
COUPLED = ("total_env_steps", "trainer.timesteps")  # each displaces the other when it is composed


def check_jobs(overrides: Sequence[str]) -> None:
    """Compose and check every job that `overrides` make, saying on stderr how far that is where it takes a while.

    Raises ConfigError for the first job that can't be, for none, and for more than `MOST_JOBS`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    pairs = [override.partition("=") for override in overrides]
    overrides = [key + equals + configuration.plain_numbers(value) for key, equals, value in pairs]
    parsed = configuration.translating_errors(lambda: parser.parse_overrides(list(overrides)), overrides)
    hydras = [override for override in parsed if override.key_or_group.startswith(("hydra.", "hydra/"))]
    of_hydra = [str(override.input_line) for override in hydras if not override.is_sweep_override()]
    if any(override.key_or_group == "hydra/sweeper" for override in hydras):  # which chooses as it goes
        configuration.compose(of_hydra)
        return
    ours = [override for override in parsed if override not in hydras]
    _count(parsed)
    jobs = configuration.translating_errors(lambda: _expand(ours), overrides)
    numbers = {key: values for override in ours for key, values in [_numbers(override)] if values}
    compose = lru_cache(maxsize=64)(lambda base: configuration.compose([*base, *of_hydra]))
    said = begun = time.monotonic()
    for done, job in enumerate(jobs):
        if len(jobs) >= MANY and time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            print(f"checked {done:,} of {len(jobs):,} jobs", file=sys.stderr, flush=True)
        _check(job, numbers, compose, of_hydra)
    if said > begun:
        print(f"{len(jobs):,} jobs are checked; the sweeper composes them once more", file=sys.stderr, flush=True)


def _count(overrides: Sequence[Any]) -> None:
    """Raise ConfigError if there are no jobs or too many, before any is spelt out."""
    total, longest = 1, (0, "", "")
    for override in overrides:
        key, _, value = str(override.input_line).partition("=")
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(key, value, "an interval has no list of jobs; give a list or range, or a hydra/sweeper that draws")
        if override.is_sweep_override():
            if getattr(override.value(), "step", 1) == 0:
                raise ConfigError(key, value, "has a step of 0; give another")
            count = _length(override.value())
            if not count:
                raise ConfigError(key, value, "is empty: the sweep has no job; give at least one value")
            total, longest = total * count, max(longest, (count, key, value))
    if total > MOST_JOBS:
        count, key, value = longest
        jobs = f"{total:,}" if total <= 10**9 else "over 1,000,000,000"
        remedy = "give several sweeps a part of its values each" if count > 1 else "give fewer"
        raise ConfigError(key, value, f"makes {jobs} jobs of at most {MOST_JOBS:,} in a sweep; {remedy}")


def _length(values: Any) -> int:
    """Return how many values a sweep over one key has."""
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    if isinstance(values, RangeSweep):
        spread = (values.stop - values.start) / values.step  # type: ignore[operator]
        return max(0, math.ceil(spread)) if math.isfinite(spread) else MOST_JOBS + 1
    return len(values.list) if isinstance(values, ChoiceSweep) else 1  # of names that match: few


def _expand(overrides: list[Any]) -> list[list[str]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper.split_arguments(overrides, None)[0]


def _numbers(override: Any) -> tuple[str, dict[str, Any]]:
    """Return the key of a sweep over numbers, and each by its text; nothing for any other."""
    key = override.get_key_element()
    if not override.is_sweep_override() or key in COUPLED or getattr(override.value(), "shuffle", False):
        return key, {}
    if not (override.is_choice_sweep() or override.is_range_sweep()):
        return key, {}
    values = dict(zip(override.sweep_string_iterator(), override.sweep_iterator(), strict=True))
    plain = all(type(value) in (int, float) and plain_number(text) == text for text, value in values.items())
    return key, values if plain else {}


def _check(job: list[str], numbers: dict[str, dict[str, Any]], compose: Any, of_hydra: list[str]) -> None:
    """Check one job; jobs that differ in numbers only are composed once."""
    from omegaconf import OmegaConf

    pairs = {override.partition("=")[0]: override.partition("=")[2] for override in job}
    own = {key: numbers[key][text] for key, text in pairs.items() if key in numbers}
    base = tuple(override for override in job if override.partition("=")[0] not in own)
    cfg = compose(base) if own else None
    if cfg is not None and all(_is_plain(OmegaConf.select(cfg, key, default="")) for key in own):
        cfg = cfg.copy()
        for key, value in own.items():
            OmegaConf.update(cfg, key, value)
    else:
        cfg = configuration.compose([*job, *of_hydra])
    config = configuration.check(cfg)
    assemble.find_callback(config)
    if config.init_from:
        assemble.find_checkpoint(config.init_from, key="init_from")


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (int, float)
