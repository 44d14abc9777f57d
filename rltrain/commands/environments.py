"""Which environments there are, by family: ids that can be made here, and what brings the others.

No simulator is imported but ALE, which registers its games when it is asked to.
"""

import ast
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rltrain import installing
from rltrain.envs.pettingzoo_copies import FAMILIES

EXTRAS = {"box2d": ("Box2D", "box2d"), "mujoco": ("mujoco", "mujoco"), "phys2d": ("jax", "jax"), "tabular": ("jax", "jax")}
REGISTRIES = {  # package: the file and the name of what holds its ids
    "gymnax": ("registration.py", "_builtins"),
    "brax": ("envs/__init__.py", "_envs"),
    "jaxmarl": ("registration.py", "registered_envs"),
}


@dataclass
class Family:
    """Environments that come from one place."""

    name: str
    choose: str  # what to write on the command line
    ids: list[str] = field(default_factory=list)
    install: str | None = None  # the command that brings it, where it isn't here


def families() -> list[Family]:
    """Return all of them: Gymnasium's, those in JAX, PettingZoo's."""
    return [*_gymnasium(), *(_in_jax(package) for package in REGISTRIES), *_pettingzoo()]


def _gymnasium() -> Iterator[Family]:
    from gymnasium.envs.registration import registry

    grouped: dict[str, list[str]] = {}
    for name, spec in sorted(registry.items()):
        module = spec.entry_point.partition(":")[0] if isinstance(spec.entry_point, str) else ""
        if module.startswith("gymnasium.envs."):
            grouped.setdefault(module.split(".")[2], []).append(name)
        elif module and not module.startswith("ale_py."):  # else a function that says where the environment has gone
            grouped.setdefault(module.partition(".")[0], []).append(name)
    grouped["mujoco"] = [name for name in grouped.get("mujoco", []) if name != "Pusher-v4"]  # for a MuJoCo below 3
    first = ("classic_control", "box2d", "toy_text", "mujoco")
    for group in sorted(grouped, key=lambda group: (first.index(group) if group in first else len(first), group)):
        package, extra = EXTRAS.get(group, ("", ""))
        install = installing.command_for(extra) if package and find_spec(package) is None else None
        yield Family(group.replace("_", "-"), "env=ID", [] if install else grouped[group], install)
    yield _atari()


def _atari() -> Family:
    """Return ALE's games."""
    choose = "env=atari env.id=ID"
    if find_spec("ale_py") is None:
        return Family("atari", choose, install=installing.command_for("atari"))
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    return Family("atari", choose, sorted(name for name in gymnasium.registry if name.startswith("ALE/")))


def _in_jax(package: str) -> Family:
    choose = f"backend=jax env={package} env.id=ID"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return Family(package, choose, install=installing.command_for(package))
    file, name = REGISTRIES[package]
    ids = _read_ids(Path(spec.origin).parent / file, name)
    return Family(package, choose, [one for one in ids if package != "jaxmarl" or one.startswith("MPE_")])


def _read_ids(path: Path, name: str) -> list[str]:
    """Return the texts in a list, or the keys of a dict, that a Python file assigns to a name; nothing is executed."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value  # type: ignore[attr-defined]
            items = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
            return sorted(str(item.value) for item in items if isinstance(item, ast.Constant))
    return []


def _pettingzoo() -> Iterator[Family]:
    for name in ("mpe", "butterfly", "sisl"):
        package, choose = FAMILIES[name], "env=pettingzoo env.id=ID agents=mappo"
        spec = find_spec(package.partition(".")[0])
        if spec is None or spec.origin is None:
            yield Family(f"pettingzoo-{name}", choose, install=installing.command_for("pettingzoo"))
            continue
        folder = Path(spec.origin).parent.joinpath(*package.split(".")[1:])
        modules = sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if "_v" in module.name)
        yield Family(f"pettingzoo-{name}", choose, [f"{name}/{module}" for module in modules])
