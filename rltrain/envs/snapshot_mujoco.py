"""MuJoCo's state in a snapshot: what determines the next step, and what the last one left to be read."""

import hashlib
import sys
from typing import Any

import numpy as np

ATTRIBUTES = ("model", "data", "mujoco_renderer")  # of an environment that simulates with MuJoCo


def has_simulator(env: Any) -> bool:
    """Tell whether an environment simulates with MuJoCo as Gymnasium's do."""
    module = sys.modules.get("mujoco")
    return module is not None and isinstance(vars(env).get("data"), module.MjData)


def fingerprint(model: Any) -> str:
    """Return a hash of everything in a model: a snapshot doesn't hold what an environment changes there."""
    import mujoco

    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.tobytes()).hexdigest()


def take(model: Any, data: Any) -> dict[str, np.ndarray]:
    """Return the integration state, and all arrays of fixed size: positions in space lag a step behind it."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, state, kind)
    floats, others = _fields(model, data)
    return {
        "state": state,
        "floats": np.concatenate([field.ravel() for field in floats]),
        "others": np.concatenate([field.ravel().astype(np.int64) for field in others]),
    }


def put(model: Any, data: Any, taken: Any) -> None:
    """Put that back; what has no fixed size (contacts, constraints) is computed anew."""
    import mujoco

    state = taken["state"] if isinstance(taken, dict) else taken
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, np.asarray(state, np.float64), kind)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, np.asarray(state, np.float64), kind)
    if not isinstance(taken, dict):  # as it was written by 0.1
        return
    for fields, values in zip(_fields(model, data), (taken["floats"], taken["others"]), strict=True):
        if sum(field.size for field in fields) != values.size:
            return  # another version of MuJoCo: its own figures are as good
        for field, part in zip(fields, np.split(values, np.cumsum([field.size for field in fields])[:-1]), strict=True):
            field[...] = part.reshape(field.shape)


def _fields(model: Any, data: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the arrays of `data` whose size depends on the model alone: of floats, and of whole numbers and flags."""
    import mujoco

    empty = mujoco.MjData(model)
    named = {name: getattr(empty, name) for name in sorted(dir(empty)) if not name.startswith("_")}
    if "dof_islandind" in named:  # before 3.4, when these were room that nobody had written to
        named = {name: value for name, value in named.items() if "island" not in name}
    fixed = [getattr(data, name) for name, value in named.items() if isinstance(value, np.ndarray) and value.size]
    return [field for field in fixed if field.dtype.kind == "f"], [field for field in fixed if field.dtype.kind in "biu"]
