"""Encoders of one's own in PyTorch: any module."""

import copy
from typing import Any

import torch
from torch import nn

from rltrain import modules
from rltrain.errors import ConfigError
from rltrain.models.config import EncoderConfig
from rltrain.models.encoders.own.checks import find_size
from rltrain.models.inputs.torch import Inputs


def make_own(inputs: Inputs, cfg: EncoderConfig, key: str, module: nn.Module | None) -> nn.Module:
    """Return a copy of a ready-made module, or the one that `cfg.encoder` names, made from the space; `size` says its features.

    Raises ConfigError if it can't be used.
    """
    name = cfg.encoder or type(module).__name__
    made: Any = copy.deepcopy(module)
    if module is None:
        made = modules.make_named(name, f"{key}.encoder", inputs.space, **cfg.encoder_kwargs)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{key}.encoder", name, f"makes {type(made).__name__}; make a torch.nn.Module")
    norms = [type(one).__name__ for one in made.modules() if getattr(one, "track_running_stats", False)]
    if norms:
        raise ConfigError(f"{key}.encoder", name, f"has {norms[0]}, whose running statistics don't learn; use LayerNorm")
    made.to(inputs.device)

    def encode(count: int) -> Any:
        with torch.no_grad():
            return made(inputs(inputs.zeros(count)))

    made.size = find_size(name, key, encode)  # type: ignore[assignment]
    return made
