"""PettingZoo's copies and what is played in them."""

import numpy as np
from team_envs import Relay

from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.spaces import named


def relay(copies=2, kind=Relay, **cfg):
    return PettingZooEnv({"id": "relay", "num_envs": copies, **cfg}, seed=1, make=kind)


def idle(env):
    return {name: np.zeros((env.num_envs, *(space.shape or ())), space.dtype) for name, space in env.action_space.spaces.items()}


def drawn(env, generator):
    rows = {}
    for name, space in env.action_space.spaces.items():
        kind = (
            generator.integers(0, space.n, env.num_envs) if hasattr(space, "n") else generator.uniform(-1, 1, (env.num_envs, 2))
        )
        rows[name] = np.asarray(kind, space.dtype)
    return rows


def same(a, b):
    return all(np.array_equal(array, named(b, "")[key]) for key, array in named(a, "").items())
