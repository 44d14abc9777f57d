"""The exact state of one host environment as arrays and plain data, without pickle.

Every layer (wrappers, then the environment) is read attribute by attribute. A layer that holds an object of an unknown kind
might keep state in it, so it has no snapshot: better none than one that is nearly right.
"""

import copy
import inspect
import sys
from typing import Any

import numpy as np

from rltrain.confidential import LEFT_OUT, is_held


def take_snapshot(env: Any) -> dict[str, Any] | None:
    """Return the state of every layer of one environment, or None if a layer holds something that isn't plain data.

    An environment with `snapshot()` and `restore(snapshot)` of its own speaks for itself.
    """
    layers: dict[str, Any] = {}
    seen: set[int] = set()
    for depth, layer in enumerate(_layers(env)):
        own = getattr(type(layer), "snapshot", None)
        state = layer.snapshot() if own and hasattr(type(layer), "restore") else _attributes(layer, seen)
        if state is None or (LEFT_OUT not in state and is_held(state, keys=False)):
            return None
        layers[str(depth)] = state
    return layers


def put_snapshot(env: Any, snapshot: dict[str, Any]) -> None:
    """Put the state of `take_snapshot` back into an environment that was made alike."""
    for depth, layer in enumerate(_layers(env)):
        state = snapshot[str(depth)]
        if hasattr(type(layer), "snapshot") and hasattr(type(layer), "restore"):
            layer.restore(state)
            continue
        for name, value in state.items():
            if name == LEFT_OUT:
                continue
            if name == "__mujoco__":
                _put_mujoco(layer, value)
            elif isinstance(value, dict) and value.get("__generator__"):
                generator = np.random.Generator(getattr(np.random, value["__generator__"])())
                generator.bit_generator.state = value["state"]
                setattr(layer, name, generator)
            else:
                setattr(layer, name, copy.deepcopy(value))


def _layers(env: Any) -> list[Any]:
    layers = [env]
    while "env" in vars(layers[-1]):
        layers.append(layers[-1].env)
    return layers


def _attributes(layer: Any, seen: set[int]) -> dict[str, Any] | None:
    """Return the attributes of one layer that can change, or None if one of an unknown kind might."""
    from gymnasium import Space
    from gymnasium.envs.registration import EnvSpec

    state: dict[str, Any] = {}
    simulator = _mujoco_simulator(layer)
    for name, value in vars(layer).items():
        if name == "env" or isinstance(value, Space | EnvSpec) or inspect.isroutine(value) or inspect.isclass(value):
            continue
        if simulator and name in ("model", "data", "mujoco_renderer"):
            continue
        if is_held(value):
            state.setdefault(LEFT_OUT, []).append(name)
        elif isinstance(value, np.random.Generator):
            state[name] = {"__generator__": type(value.bit_generator).__name__, "state": value.bit_generator.state}
        elif _is_plain(value, seen):
            state[name] = copy.deepcopy(value)
        else:
            return None
    if simulator:
        state["__mujoco__"] = _take_mujoco(layer)
    return state


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Tell whether `value` is arrays and plain data all through, and no container is held in two places."""
    if value is None or type(value) in (bool, int, float, str):
        return True
    if isinstance(value, np.generic):
        return value.dtype.kind in "biuf"
    if isinstance(value, tuple) and type(value) is tuple:
        return all(_is_plain(item, seen) for item in value)
    owner = value
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base  # two views of one array change together
    if id(owner) in seen:
        return False
    seen.add(id(owner))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if type(value) is list:
        return all(_is_plain(item, seen) for item in value)
    if type(value) is dict:
        return all(isinstance(key, str | int) and _is_plain(item, seen) for key, item in value.items())
    return False


def _mujoco_simulator(layer: Any) -> bool:
    module = sys.modules.get("mujoco")
    return module is not None and isinstance(vars(layer).get("data"), module.MjData)


def _take_mujoco(layer: Any) -> np.ndarray:
    """Return MuJoCo's integration state: everything that determines the next step."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(layer.model, kind))
    mujoco.mj_getState(layer.model, layer.data, state, kind)
    return state


def _put_mujoco(layer: Any, state: np.ndarray) -> None:
    import mujoco

    mujoco.mj_setState(layer.model, layer.data, np.asarray(state, np.float64), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(layer.model, layer.data)
    mujoco.mj_setState(layer.model, layer.data, np.asarray(state, np.float64), mujoco.mjtState.mjSTATE_INTEGRATION)
