"""Composes the configuration with Hydra and checks it against the dataclasses, each of which stands beside its owner.

Hydra composes plain values; types, bounds and unknown keys are checked by `rltrain.checks`, so `+agents.ppo.typo=1` is
refused like `agents.ppo.typo=1`. Nothing here imports torch, jax or a simulator.
"""

from rltrain.config.check import Checked, check, check_resumable, scopes, timesteps
from rltrain.config.compose import (
    compose,
    is_known_key,
    plain_number,
    plain_numbers,
    search_path,
    store_schemas,
    translate,
    translating_errors,
)
from rltrain.config.saved import apply_overrides, from_yaml, plugins_of, set_value, to_yaml
from rltrain.config.schema import CHOICES, Config, conf_directory, directories, load_plugins, options, register

__all__ = [
    "CHOICES",
    "Checked",
    "Config",
    "apply_overrides",
    "check",
    "check_resumable",
    "compose",
    "conf_directory",
    "directories",
    "from_yaml",
    "is_known_key",
    "load_plugins",
    "options",
    "plain_number",
    "plain_numbers",
    "plugins_of",
    "register",
    "scopes",
    "search_path",
    "set_value",
    "store_schemas",
    "timesteps",
    "to_yaml",
    "translate",
    "translating_errors",
]
