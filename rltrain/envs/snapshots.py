"""The exact state of one host environment as arrays and plain data, without pickle.

Wrappers and environment are *places*: they stay, and their attributes are read into a tree and put back into an environment
that was made alike. A value held in two places stays one value. What isn't data (functions, classes, spaces) must be what it was
when the environment was made; whatever else might keep state has no snapshot: better none than one that is nearly right.

What an environment keeps outside its attributes, in a module's variables, in files or inside a C library, isn't seen.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from rltrain.confidential import LEFT_OUT, is_held
from rltrain.envs import snapshot_ale, snapshot_arrays, snapshot_mujoco, snapshot_reading, snapshot_writing
from rltrain.envs.snapshot_reading import MISSING, attributes, generator_of, parts, set_attribute


def remember(env: Any) -> dict[str, Any]:
    """Return what a freshly made environment is made of, for `take_snapshot` and `put_snapshot` to compare with."""
    recorder = Recorder()
    with suppress(Exception):  # of an attribute's own code: there is no snapshot then
        recorder.place(env, "")
    return recorder.made


def take_snapshot(env: Any, made: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of one environment, or None if it holds something that isn't data.

    `made` is what `remember` found. A layer with `snapshot()` and `restore(snapshot)` of its own speaks for itself.
    """
    try:
        writer = Writer(made)
        text = json.dumps(writer.place(env, ""))
    except Exception:  # Unknown, or of an attribute's own code
        return None
    if writer.watched & set(writer.numbers) or is_held(text) or is_held(writer.data, keys=False):
        return None
    left_out = {LEFT_OUT: writer.left_out} if writer.left_out else {}
    return {"tree": np.frombuffer(text.encode(), np.uint8), "data": writer.data, **left_out}


def put_snapshot(env: Any, snapshot: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Put the state of `take_snapshot` back into an environment that was made alike."""
    if "tree" in snapshot:
        Reader(snapshot["data"], made).place(json.loads(snapshot["tree"].tobytes()), env, "")
        return
    layers = [env]  # as it was written by 0.1
    while "env" in vars(layers[-1]):
        layers.append(layers[-1].env)
    for depth, layer in enumerate(layers):
        _put_old(layer, snapshot[str(depth)])


class Writer(snapshot_writing.Writer):
    """Writes places, and values as they were made."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        super().__init__()
        self.made = made
        self.left_out: list[str] = []  # attributes that hold what must not be written

    def place(self, env: Any, path: str) -> Any:
        """Return the node of a wrapper or environment."""
        if id(env) in self.numbers:
            return ["again", self.numbers[id(env)]]
        self.check(env, path, ())
        node: dict[str, Any] = {"place": self.number(env)}
        self.places.add(id(env))
        if _speaks_for_itself(env):
            node["own"] = self.keep(self.own(env))
            if "env" in vars(env):
                node["env"] = self.place(env.env, f"{path}/env")
            return node
        apart: tuple[str, ...] = ()  # attributes that a simulator's state stands for
        if snapshot_mujoco.has_simulator(env):
            apart = snapshot_mujoco.ATTRIBUTES
            self.check(env.model, f"{path}/model", snapshot_mujoco.fingerprint(env.model))
            node["mujoco"] = self.keep(snapshot_mujoco.take(env.model, env.data))
        elif snapshot_ale.has_emulator(env):
            apart = snapshot_ale.ATTRIBUTES
            self.check(env.ale, f"{path}/ale", ())
            node["ale"] = self.keep(snapshot_ale.take(env.ale))
        self.look_at_class(env, path)
        held = attributes(env)
        held = {name: held[name] for name in sorted(held, key="env".__ne__)}  # methods of what is inside may be held outside
        node["attributes"] = [
            [name, self.attribute(env, name, value, f"{path}/{name}")] for name, value in held.items() if name not in apart
        ]
        return node

    def own(self, env: Any) -> Any:
        """Return what an environment says of itself."""
        state = env.snapshot()
        return self.unknown(env, "") if state is None else state

    def attribute(self, env: Any, name: str, value: Any, path: str) -> Any:
        """Return the node of an attribute."""
        if _is_place(value) or (name == "env" and hasattr(value, "__dict__") and not callable(value)):
            return self.place(value, path)
        if type(env).__module__.startswith("gymnasium.envs.") and snapshot_writing.is_drawing(value):
            return ["drawing"]  # these draw anew from their numbers
        if is_held(value):
            self.left_out.append(name)
            return ["left"]
        return self.write(value, path)

    def look_at_class(self, env: Any, path: str) -> None:
        """Refuse what the class itself keeps for all its instances, where that has changed since the instance was made."""
        from gymnasium import Space

        for cls in type(env).__mro__:
            for name, value in vars(cls).items():
                if name != "metadata" and not name.startswith("__") and snapshot_writing.may_change(value):
                    held = (
                        [generator_of(part).bit_generator.state for part in parts(value)] if isinstance(value, Space) else value
                    )
                    self.check(cls, f"{path}/{cls.__qualname__}.{name}", self.fingerprint(held))

    def constant(self, value: Any, path: str) -> Any:
        """Return the node of something that isn't data: it stays, if it is what it was when it was made."""
        self.check(value, path, self.fingerprint(value))
        return ["kept"]

    def space_generator(self, space: Any, path: str) -> Any:
        """Return the node of what a space draws from, or None if it never did: then it is seeded by chance."""
        state = snapshot_arrays.comparable(generator_of(space).bit_generator.state)
        return None if self.made.get(path) == state else super().space_generator(space, path)

    def check(self, value: Any, path: str, fingerprint: Any) -> None:
        """Raise Unknown if `value` isn't what was made there."""
        made = self.made.get(path)
        if made is None or made[1] is None or not snapshot_writing.is_same(made[0], value) or made[1] != fingerprint:
            self.unknown(value, path)


class Recorder(Writer):
    """Notes what is there when an environment has been made; nothing is unknown to it."""

    def __init__(self) -> None:
        super().__init__({})
        self.made: dict[str, Any] = {}

    def place(self, env: Any, path: str) -> Any:
        """Note a place and which attributes it has."""
        node = super().place(env, path)
        if not _speaks_for_itself(env):
            self.made[f"{path}//"] = set(attributes(env))
        return node

    def own(self, env: Any) -> Any:
        """Ask nothing of it."""
        return None

    def space_generator(self, space: Any, path: str) -> Any:
        """Note that it has not drawn."""
        self.made[path] = snapshot_arrays.comparable(generator_of(space).bit_generator.state)

    def _array(self, value: Any, path: str) -> Any:
        return None

    def check(self, value: Any, path: str, fingerprint: Any) -> None:
        """Note what is there, and how to tell if it changes; `fingerprint` None: that can't be told."""
        self.made[path] = (value, fingerprint)

    def unknown(self, value: Any, path: str) -> Any:
        """Leave it to the snapshot."""
        return None


class Reader(snapshot_reading.Reader):
    """Puts places back."""

    def __init__(self, data: Sequence[Any], made: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.made = made

    def place(self, node: Any, env: Any, path: str) -> Any:
        """Put the attributes of a wrapper or environment back."""
        if isinstance(node, list):
            return self.read(node, env)
        self.objects[node["place"]] = env
        if "own" in node:
            env.restore(self.data[node["own"]])
            if "env" in node:
                self.place(node["env"], env.env, f"{path}/env")
            return env
        if "mujoco" in node:
            snapshot_mujoco.put(env.model, env.data, self.data[node["mujoco"]])
        if "ale" in node:
            snapshot_ale.put(env.ale, self.data[node["ale"]])
        there = attributes(env)
        for name, child in node["attributes"]:
            current = there.pop(name, MISSING)
            if isinstance(child, dict):
                self.place(child, current, f"{path}/{name}")
                continue
            value = self.read(child, current)
            if value is not current:
                set_attribute(env, name, value)
        for name in set(there) - self.made[f"{path}//"]:
            object.__delattr__(env, name)  # an attribute that came up later than when it was made
        return env


def _is_place(value: Any) -> bool:
    from gymnasium import Env
    from gymnasium.vector import VectorEnv

    return isinstance(value, Env | VectorEnv)


def _speaks_for_itself(env: Any) -> bool:
    return callable(getattr(type(env), "snapshot", None)) and callable(getattr(type(env), "restore", None))


def _put_old(layer: Any, state: Mapping[str, Any]) -> None:
    if _speaks_for_itself(layer):
        layer.restore(state)
        return
    for name, value in state.items():
        if name == LEFT_OUT:
            continue
        if name == "__mujoco__":
            snapshot_mujoco.put(layer.model, layer.data, value)
        elif isinstance(value, dict) and value.get("__generator__"):
            bits = ["BitGenerator", 1, value["__generator__"], 0, None]
            generator = Reader([value["state"]], {}).read(["Generator", 0, bits])
            setattr(layer, name, generator)
        else:
            setattr(layer, name, copy.deepcopy(value))
