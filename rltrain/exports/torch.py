"""PyTorch's policies as ONNX and as `torch.export` programs."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rltrain import spaces
from rltrain.agents.multi_agent.groups import MEMBER, OWN
from rltrain.exports.form import ACTIONS, LOGITS, MASKS, NEXT, OBSERVATIONS, STATE, ByMember, Form, joined
from rltrain.models.engines.torch import Remembering
from rltrain.models.networks.torch import FeedForward

Arrays = dict[str, torch.Tensor]
Policy = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Deployed(ByMember, nn.Module):
    """A policy as an evaluation asks it, by plain operations: arrays by name in, arrays by name out; see `form`."""

    def __init__(self, algorithm: Any) -> None:
        super().__init__()
        self.groups = getattr(algorithm, "groups", {})
        parts = getattr(algorithm, "parts", {"": algorithm})
        self.algorithms = {name: _plain(part) for name, part in parts.items()}
        self.networks = nn.ModuleList([part.acting for part in self.algorithms.values()])
        self.eval()

    def _act(self, name: str, number: int, member: str, arrays: Arrays) -> Arrays:
        algorithm, own = self.algorithms[name], dict(arrays)
        observations = spaces.unnamed(own, joined(OBSERVATIONS, member))
        if member and self.groups[name].shares:
            rows = next(iter(observations.values())) if isinstance(observations, dict) else observations
            label = torch.full((rows.shape[0],), number, dtype=torch.int32)
            observations = {**spaces.named(observations, OWN), MEMBER: label}
        masks = arrays.get(joined(MASKS, member))
        inputs, prefix, found = algorithm.inputs(observations), joined(STATE, member), dict[str, torch.Tensor]()
        if algorithm.remembers:
            count = len(algorithm.acting.init_carry(1))
            inputs = algorithm.inputs.join(inputs, arrays.get(f"{prefix}/actions"))
            logits, remembered = algorithm.acting.step(inputs, tuple(arrays[f"{prefix}/{i}"] for i in range(count)))
            found |= {f"{joined(NEXT, member)}/{i}": part for i, part in enumerate(remembered)}
        else:
            logits = algorithm.acting.logits(inputs)
        if masks is not None:
            logits = algorithm.distribution.mask(logits, masks)
        best = algorithm._best(logits)
        if algorithm.actions_read:
            found[f"{joined(NEXT, member)}/actions"] = algorithm.distribution.as_numbers(best)
        return found | {joined(ACTIONS, member): algorithm._to_environment(best), joined(LOGITS, member): logits}


class Plain:
    """What reads a network by its `forward`, whatever the number of rows."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def infer(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F)."""
        return self.network(inputs, actions)


def _plain(algorithm: Any) -> Any:
    """Return a copy that acts, and whose networks are read by plain operations."""
    acting = copy.copy(algorithm)
    acting.acting = copy.deepcopy(algorithm.acting).cpu()
    for network in acting.acting.modules():
        if isinstance(network, FeedForward):
            network.__dict__["engine"] = Plain(network) if network.cell is None else Remembering(network)
    return acting


def outputs_of(policy: Deployed, inputs: dict[str, np.ndarray]) -> list[str]:
    """Return the names of what a policy gives, in order."""
    with torch.no_grad():
        return list(policy(_tensors(inputs)))


def ask(policy: Deployed, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a policy gives."""
    with torch.no_grad():
        return {name: array.numpy() for name, array in policy(_tensors(inputs)).items()}


# -- files ---------------------------------------------------------------------------------------------------------------


def write_onnx(algorithm: Any, form: Form, path: Path) -> None:
    """Write an ONNX model with a batch of any size."""
    import onnx

    with _quiet(), torch.no_grad():
        taken, given = list(form.inputs), list(form.outputs)
        whole: Any = _program(algorithm, form)
        program = torch.onnx.export(whole, dynamo=True, verbose=False, input_names=taken, output_names=given)
    assert program is not None
    model = program.model_proto
    model.metadata_props.append(onnx.StringStringEntryProto(key="rltrain", value=form.text()))
    onnx.save(model, str(path))


def open_onnx(path: Path) -> Policy:
    """Return what an ONNX model computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {one.name for one in session.get_inputs()}
    return lambda arrays: dict(
        zip(names, session.run(names, {name: array for name, array in arrays.items() if name in taken}), strict=True)
    )


def write_program(algorithm: Any, form: Form, path: Path) -> None:
    """Write a `torch.export` program with a batch of any size."""
    with _quiet(), torch.no_grad():
        torch.export.save(_program(algorithm, form), str(path), extra_files={"rltrain.json": form.text()})


def open_program(path: Path) -> Policy:
    """Return what a `torch.export` program computes."""
    module = torch.export.load(str(path)).module()

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {name: array.numpy() for name, array in module(_tensors(arrays)).items()}

    return run


def _program(algorithm: Any, form: Form) -> Any:
    shapes = ({name: {0: torch.export.Dim.DYNAMIC} for name in form.inputs},)
    return torch.export.export(Deployed(algorithm), (_tensors(form.inputs),), dynamic_shapes=shapes)


def _tensors(arrays: dict[str, np.ndarray]) -> Arrays:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what exporters say about their own work."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
