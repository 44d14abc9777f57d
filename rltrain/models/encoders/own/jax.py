"""Encoders of one's own in JAX: any flax.linen module."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rltrain import modules
from rltrain.errors import ConfigError
from rltrain.models.config import EncoderConfig
from rltrain.models.encoders.own.checks import find_size
from rltrain.models.inputs.jax import Inputs
from rltrain.ops.trees.jax import Parameters
from rltrain.structures import Array


class Own:
    """A flax.linen module as an encoder; its parameters by their names in it, joined by dots."""

    size: int

    def __init__(self, module: nn.Module, inputs: Inputs) -> None:
        self.module, self.inputs = module, inputs

    def init(self, key: Array) -> Parameters:
        """Return fresh parameters by name."""
        fresh = self.variables(key, 1).get("params", {})
        return {".".join(str(step.key) for step in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fresh)}

    def variables(self, key: Array, rows: int) -> Any:
        """Return all that the module keeps, by collection."""
        return self.module.init(key, self.example(rows))

    def example(self, rows: int) -> Any:
        """Return what the module is called with, of observations of zeros."""
        return self.inputs(self.inputs.init(), jax.tree.map(jnp.asarray, self.inputs.zeros(rows)))

    def forward(self, parameters: Parameters, inputs: Any) -> Array:
        """Return features (B, F)."""
        tree: dict[str, Any] = {}
        for name, value in parameters.items():
            *path, last = name.split(".")
            node = tree
            for step in path:
                node = node.setdefault(step, {})
            node[last] = value
        return self.module.apply({"params": tree}, inputs)


def make_own(inputs: Inputs, cfg: EncoderConfig, key: str, module: nn.Module | None) -> Own:
    """Return a ready-made module, or the one that `cfg.encoder` names, made from the space; each network has its own parameters.

    Raises ConfigError if it can't be used.
    """
    name, made = cfg.encoder or type(module).__name__, module
    if module is None:
        made = modules.make_named(name, f"{key}.encoder", inputs.space, **cfg.encoder_kwargs)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{key}.encoder", name, f"makes {type(made).__name__}; make a flax.linen.Module")
    own = Own(made, inputs)

    def encode(count: int) -> Any:
        def run() -> tuple[Any, Array]:
            variables = own.variables(jax.random.key(0), count)
            return variables, made.apply(variables, own.example(count))

        variables, features = jax.eval_shape(run)
        others = sorted(set(variables) - {"params"})
        if others:
            raise ConfigError(f"{key}.encoder", name, f"keeps {others[0]} besides parameters, which don't learn; use LayerNorm")
        return features

    own.size = find_size(name, key, encode)
    return own
