"""JAX's policies as StableHLO, by `jax.export`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes, export

from rltrain import spaces
from rltrain.agents.multi_agent.groups import MEMBER, OWN
from rltrain.exports.form import ACTIONS, LOGITS, MASKS, NEXT, OBSERVATIONS, STATE, ByMember, Form, joined
from rltrain.structures import Array

Arrays = dict[str, Array]
Policy = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Deployed(ByMember):
    """A policy as an evaluation asks it, as a pure function: arrays by name in, arrays by name out; see `form`."""

    def __init__(self, algorithm: Any) -> None:
        self.groups = getattr(algorithm, "groups", {})
        parts = getattr(algorithm, "parts", {"": algorithm})
        self.algorithms = {name: part.pure for name, part in parts.items()}
        self.policies = {name: part.pure.policy(part.state) for name, part in parts.items()}
        self.compiled = jax.jit(self.forward)

    def _act(self, name: str, number: int, member: str, arrays: Arrays) -> Arrays:
        algorithm, (parameters, moments), own = self.algorithms[name], self.policies[name], dict(arrays)
        observations = spaces.unnamed(own, joined(OBSERVATIONS, member))
        if member and self.groups[name].shares:
            rows = next(iter(observations.values())) if isinstance(observations, dict) else observations
            label = jnp.full(rows.shape[:1], number, jnp.int32)
            observations = {**spaces.named(observations, OWN), MEMBER: label}
        masks = arrays.get(joined(MASKS, member))
        inputs, prefix, found = algorithm.inputs(moments, observations), joined(STATE, member), dict[str, Array]()
        if algorithm.remembers:
            count = len(algorithm.acting.init_carry(1))
            inputs = algorithm.inputs.join(inputs, arrays.get(f"{prefix}/actions"))
            remembered = tuple(arrays[f"{prefix}/{i}"] for i in range(count))
            outputs, remembered = algorithm.acting.step(parameters, inputs, remembered)
            found |= {f"{joined(NEXT, member)}/{i}": part for i, part in enumerate(remembered)}
        else:
            outputs = algorithm.acting.logits(parameters, inputs)
        logits = algorithm._masked(algorithm._complete(outputs, parameters), masks)
        best = algorithm._best(logits)
        if algorithm.actions_read:
            found[f"{joined(NEXT, member)}/actions"] = algorithm.distribution.as_numbers(best)
        return found | {joined(ACTIONS, member): algorithm._to_environment(best), joined(LOGITS, member): logits}


def outputs_of(policy: Deployed, inputs: dict[str, np.ndarray]) -> list[str]:
    """Return the names of what a policy gives, in order."""
    return list(jax.eval_shape(policy.forward, inputs))


def ask(policy: Deployed, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a policy gives."""
    return {name: np.asarray(array) for name, array in policy.compiled(inputs).items()}


# -- files ---------------------------------------------------------------------------------------------------------------


def write_stablehlo(algorithm: Any, form: Form, path: Path) -> None:
    """Write a serialised `jax.export.Exported` with a batch of any size, for CPUs and CUDA."""
    (rows,) = export.symbolic_shape("batch")
    shapes = {
        name: jax.ShapeDtypeStruct((rows, *array.shape[1:]), dtypes.canonicalize_dtype(array.dtype))
        for name, array in form.inputs.items()
    }
    program = export.export(Deployed(algorithm).compiled, platforms=("cpu", "cuda"))(shapes)
    path.write_bytes(program.serialize())


def open_stablehlo(path: Path) -> Policy:
    """Return what such a program computes."""
    program = export.deserialize(bytearray(path.read_bytes()))
    arguments, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    names, call = list(arguments[0]), jax.jit(program.call)

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.asarray(array) for name, array in call({name: arrays[name] for name in names}).items()}

    return run
