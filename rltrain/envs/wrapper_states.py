"""What the wrappers inside one copy of an environment have gathered and an agent acts by, as arrays and plain data.

Gymnasium's NormalizeObservation and NormalizeReward keep running statistics. A wrapper of one's own says what it keeps by
`policy_state() -> data` and takes it by `set_policy_state(data)`. Its `pool(states)` makes one of several copies' states; without
it the first copy's is taken. Where it has an attribute `update_running_mean`, that is false while the state is frozen.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rltrain.confidential import is_held
from rltrain.trees import encode

States = dict[str, Any]  # by the name of a wrapper's class, with a number behind it from the second one of that name on
RUNNING = ("discounted_reward", "accumulated_reward")  # of episodes under way, which NormalizeReward's statistics are made of


def layers(env: Any) -> list[Any]:
    """Return the wrappers and the environment, the outermost first."""
    found = [env]
    while "env" in vars(found[-1]):
        found.append(found[-1].env)
    return found


def read(env: Any) -> States:
    """Return what acting needs of every layer that keeps something."""
    states = {}
    for name, layer in _by_name(env).items():
        state = _read(name, layer)
        if not is_held(state):
            states[name] = state
    return states


def pool(env: Any, each: Sequence[States]) -> States:
    """Return one state of several copies', of the layers of `env`, which is made alike."""
    return {
        name: _pool(layer, [states[name] for states in each])
        for name, layer in _by_name(env).items()
        if all(name in states for states in each)
    }


def put(env: Any, states: Mapping[str, Any], *, copies: int, frozen: bool) -> None:
    """Put states there: frozen, or as the share that one of `copies` has in them."""
    for name, layer in _by_name(env).items():
        if name not in states:
            continue
        if _speaks(layer):
            layer.set_policy_state(copy.deepcopy(states[name]))
        else:
            statistics, state = _statistics(layer), states[name]
            shape = np.shape(statistics.mean)
            if np.shape(state["mean"]) != shape:
                raise ValueError(f"{name}: statistics of shape {np.shape(state['mean'])} don't fit {shape}")
            statistics.mean, statistics.var = np.array(state["mean"]), np.array(state["var"])
            statistics.count = state["count"] if frozen else state["count"] / copies
        if frozen and hasattr(layer, "update_running_mean"):
            layer.update_running_mean = False


def keep(env: Any) -> States:
    """Return everything that `put` and an evaluation change, for `give_back`."""
    return {
        name: {
            "state": _read(name, layer),
            "flag": getattr(layer, "update_running_mean", None),
            "running": {key: np.array(getattr(layer, key)) for key in RUNNING if hasattr(layer, key) and not _speaks(layer)},
        }
        for name, layer in _by_name(env).items()
    }


def give_back(env: Any, kept: Mapping[str, Any]) -> None:
    """Put back what `keep` returned."""
    put(env, {name: own["state"] for name, own in kept.items()}, copies=1, frozen=False)
    for name, layer in _by_name(env).items():
        if kept[name]["flag"] is not None:
            layer.update_running_mean = kept[name]["flag"]
        for key, value in kept[name]["running"].items():
            setattr(layer, key, value)


def pool_statistics(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, variance and count of all values together.

    n = sum n_i, mean = sum n_i mean_i / n, n var = sum n_i (var_i + (mean_i - mean)^2): Chan, Golub and LeVeque (1979).
    """
    if len(states) == 1:
        return dict(states[0])
    counts = [float(state["count"]) for state in states]
    total = sum(counts)
    means, variances = ([np.asarray(state[key], np.float64) for state in states] for key in ("mean", "var"))
    mean = sum(count * own for count, own in zip(counts, means, strict=True)) / total
    squares = sum(c * (v + np.square(m - mean)) for c, v, m in zip(counts, variances, means, strict=True))
    dtypes = np.asarray(states[0]["mean"]).dtype, np.asarray(states[0]["var"]).dtype
    return {"mean": np.asarray(mean, dtypes[0]), "var": np.asarray(squares / total, dtypes[1]), "count": total}


def shares(layer: Any) -> bool:
    """Tell whether a layer's state can be read and put."""
    return _speaks(layer) or _statistics(layer) is not None


def _by_name(env: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in layers(env):
        if shares(layer):
            name, number = type(layer).__name__, 2
            while name in found:
                name, number = f"{type(layer).__name__}{number}", number + 1
            found[name] = layer
    return found


def _speaks(layer: Any) -> bool:
    return all(callable(getattr(type(layer), name, None)) for name in ("policy_state", "set_policy_state"))


def _statistics(layer: Any) -> Any:
    """Return the running statistics of one of Gymnasium's normalizing wrappers, or None."""
    from gymnasium import wrappers
    from gymnasium.wrappers import vector

    if isinstance(layer, wrappers.NormalizeObservation | vector.NormalizeObservation):
        return layer.obs_rms
    if isinstance(layer, wrappers.NormalizeReward | vector.NormalizeReward):
        return layer.return_rms
    return None


def _read(name: str, layer: Any) -> Any:
    if not _speaks(layer):
        statistics = _statistics(layer)
        return {"mean": np.array(statistics.mean), "var": np.array(statistics.var), "count": float(statistics.count)}
    state = copy.deepcopy(layer.policy_state())
    encode(state, {}, f"{name}.policy_state()")  # raises TypeError for what can't be kept
    return state


def _pool(layer: Any, states: list[Any]) -> Any:
    if not _speaks(layer):
        return pool_statistics(states)
    own = getattr(layer, "pool", None) if hasattr(type(layer), "pool") else None
    state = states[0] if own is None else own(states)
    encode(state, {}, f"{type(layer).__name__}.pool()")
    return state
