"""The plan of the house, enforced: imports are read from the source, never executed."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rltrain"

# From the bottom up. A module imports from its own layer or from lower ones.
LAYERS = [
    r"errors|confidential|checks|modules|rewards|installing|structures|spaces|seeding|processes|signals|hangs|generators|files",
    r"ops(\..*)?",
    r"checkpoints|trees|tracking|screen|video|evaluation|backends\.base|models\.config|models\.images|envs\.functional",
    r"(backends|models|memories|optimizers)(\..*)?",
    r"runs|agents\.base|agents\.\w+\.config|envs\.base",
    r"(agents|envs)(\..*)?",
    r"trainers(\..*)?",
    r"config(\..*)?",
    r"assemble",
    r"(results|exports)(\..*)?",
    r"commands(\..*)?",
    r"library",
    r"cli|__main__|",
]
EXTENDS = {("ppo", "on_policy"), ("a2c", "on_policy"), ("ippo", "ppo"), ("mappo", "ppo"), ("ddqn", "dqn"), ("td3", "ddpg")}
EXTENDS |= {(agent, "off_policy") for agent in ("dqn", "ddqn", "ddpg", "td3", "sac")}
COMMON = ("base", "pure", "algorithm", "learners", "multi_agent")  # of agents, for all of them
TORCH_FILES = r"(.*\.)?torch"
JAX_FILES = r"(.*\.)?jax|trainers\.fused|envs\.(gymnax|brax|jaxmarl|jax_\w+)"
HYDRA_FILES = r"cli|config(\..*)?|commands(\..*)?"


@dataclass(frozen=True)
class Import:
    """Module `source` imports `target`, both dotted; ours without the leading `rltrain.`."""

    source: str
    target: str
    ours: bool
    at_module_level: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types(node: ast.AST) -> bool:
    """Tell whether `node` is `if TYPE_CHECKING:`, which is never executed."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def read_imports(name: str, text: str, modules: set[str]) -> list[Import]:
    """Return what the source text of module `name` imports."""
    found = []

    def visit(node: ast.AST, at_module_level: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_for_types(child)
            targets: list[str] = []
            if isinstance(child, ast.Import):
                targets = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}: relative import"
                base = child.module or ""
                for one in (f"{base}.{alias.name}" for alias in child.names):
                    is_module = one.startswith("rltrain.") and one.removeprefix("rltrain.") in modules
                    targets.append(one if is_module else base)
            for target in dict.fromkeys(targets):
                ours = target.split(".")[0] == "rltrain"
                target = target.removeprefix("rltrain").removeprefix(".") if ours else target
                found.append(Import(name, target, ours, at_module_level))
            visit(child, at_module_level and not inside)

    visit(ast.parse(text), True)
    return found


def read_package() -> tuple[set[str], list[Import]]:
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    return set(texts), [edge for name, text in texts.items() for edge in read_imports(name, text, set(texts))]


MODULES, IMPORTS = read_package()


def is_in(pattern: str, module: str) -> bool:
    return re.fullmatch(pattern, module) is not None


def layer(module: str) -> int:
    return next(i for i, pattern in enumerate(LAYERS) if is_in(pattern, module))


# -- the rules: each returns the imports that break it -----------------------------------------------------------------------


def imports_up(edges: list[Import]) -> list[Import]:
    return [edge for edge in edges if edge.ours and edge.target and layer(edge.target) > layer(edge.source)]


def imports_sideways(edges: list[Import]) -> list[Import]:
    """Agents, envs and trainers: a trainer knows `agents.base` and `envs.base` only, an agent only those that it extends."""
    wrong = []
    for edge in edges:
        source, target = edge.source.split("."), edge.target.split(".")
        if not edge.ours or source[0] not in ("agents", "envs", "trainers") or target[0] not in ("agents", "envs", "trainers"):
            continue
        if source[0] == target[0] == "agents" and len(source) > 1 and len(target) > 1:
            allowed = target[1] in (*COMMON, source[1]) or (source[1], target[1]) in EXTENDS
        else:
            allowed = source[0] == target[0] or (source[0] == "trainers" and edge.target in ("agents.base", "envs.base"))
        if not allowed:
            wrong.append(edge)
    return wrong


def imports_of(edges: list[Import], packages: str, *, allowed: str) -> list[Import]:
    foreign = [edge for edge in edges if not edge.ours and is_in(packages, edge.target.split(".")[0])]
    return [edge for edge in foreign if not is_in(allowed, edge.source)]


def imports_a_backend(edges: list[Import]) -> list[Import]:
    """A file that belongs to no backend imports neither backend's files; `trainers` may take `fused` inside a function."""
    wrong = []
    for edge in edges:
        backend_file = is_in(TORCH_FILES, edge.target) or is_in(JAX_FILES, edge.target)
        neutral = not is_in(TORCH_FILES, edge.source) and not is_in(JAX_FILES, edge.source)
        lazily_fused = edge.target == "trainers.fused" and edge.source == "trainers.base" and not edge.at_module_level
        if edge.ours and backend_file and neutral and not lazily_fused:
            wrong.append(edge)
    return wrong


def imports_its_twin(edges: list[Import]) -> list[Import]:
    return [
        edge
        for edge in edges
        if edge.ours
        and (
            (is_in(TORCH_FILES, edge.source) and is_in(JAX_FILES, edge.target))
            or (is_in(JAX_FILES, edge.source) and is_in(TORCH_FILES, edge.target))
        )
    ]


def cycles(edges: list[Import]) -> list[list[str]]:
    """Return circles of imports at module level."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        if edge.ours and edge.at_module_level and edge.target != edge.source:
            graph.setdefault(edge.source, set()).add(edge.target)
    found, done = [], set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                walk(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def imports_torch(edges: list[Import]) -> list[Import]:
    return imports_of(edges, "torch", allowed=TORCH_FILES)


def imports_jax(edges: list[Import]) -> list[Import]:
    return imports_of(edges, "jax|jaxlib|flax|optax|chex|distrax", allowed=JAX_FILES)


def imports_hydra(edges: list[Import]) -> list[Import]:
    return imports_of(edges, "hydra|omegaconf", allowed=HYDRA_FILES)


def imports_a_simulator_beforehand(edges: list[Import]) -> list[Import]:
    """A simulator is imported when it is used; a JAX-native one is the backend's own."""
    return [edge for edge in imports_of(edges, "gymnasium|mujoco|envpool|pettingzoo", allowed="") if edge.at_module_level]


RULES = [
    imports_up, imports_sideways, imports_torch, imports_jax, imports_hydra, imports_a_backend, imports_its_twin,
    imports_a_simulator_beforehand, cycles,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    assert len(IMPORTS) > 100  # they were found
    assert rule(IMPORTS) == []


@pytest.mark.parametrize(
    ("rule", "module", "text"),
    [
        (imports_up, "ops.losses", "from rltrain.structures import Array\nfrom rltrain.models.config import NetworkConfig"),
        (imports_up, "structures", "def f():\n    from rltrain.screen import Screen"),
        (imports_up, "agents.base", "from rltrain import trainers"),
        (imports_up, "errors", "from rltrain.cli import main"),
        (imports_sideways, "trainers.base", "from rltrain.envs import gymnasium"),
        (imports_sideways, "agents.sac.torch", "import rltrain.agents.ppo.torch"),
        (imports_sideways, "agents.ppo.torch", "from rltrain.envs.base import EnvWrapper"),
        (imports_torch, "ops.losses", "import torch.nn"),
        (imports_torch, "agents.base", "def f():\n    from torch import nn"),
        (imports_jax, "trainers.base", "import jax.numpy as jnp"),
        (imports_a_backend, "assemble", "from rltrain.backends.torch import TorchBackend"),
        (imports_a_backend, "commands.train", "def f():\n    import rltrain.agents.ppo.torch"),
        (imports_its_twin, "agents.ppo.jax", "from rltrain.agents.ppo.torch import PPO"),
        (imports_hydra, "trainers.base", "from omegaconf import OmegaConf"),
        (imports_a_simulator_beforehand, "envs.gymnasium", "import gymnasium"),
    ],
)
def test_a_rule_finds_what_breaks_it(rule, module, text):
    edges = read_imports(module, text, MODULES)
    assert edges and rule(edges)


def test_a_circle_is_found():
    first = read_imports("tracking", "from rltrain.checkpoints import write", MODULES)
    second = read_imports("checkpoints", "from rltrain.tracking import replace_text", MODULES)
    lazy = read_imports("checkpoints", "def f():\n    from rltrain.tracking import replace_text", MODULES)
    assert cycles(first + second) == [["checkpoints", "tracking", "checkpoints"]]
    assert cycles(first + lazy) == []


def test_an_agent_may_extend_another():
    assert not imports_sideways(read_imports("agents.ippo.torch", "from rltrain.agents.ppo.torch import PPO", MODULES))
    assert imports_sideways(read_imports("agents.ppo.torch", "from rltrain.agents.ippo.torch import IPPO", MODULES))


def test_every_module_has_a_layer():
    for module in MODULES:
        assert layer(module) >= 0


def test_no_module_is_called_utils():
    assert not [module for module in MODULES if re.search(r"(^|\.)(utils?|helpers?|misc|common)(\.|$)", module)]


def test_no_package_shadows_a_backend():
    for folder in (PACKAGE, Path(__file__).parents[1]):
        assert not [path for path in folder.rglob("*") if path.is_dir() and path.name in ("torch", "jax")]


def test_commands_are_read_without_importing_a_backend_or_a_simulator():
    code = (
        "import sys, rltrain.cli, rltrain.config, rltrain.assemble, rltrain.commands.train, rltrain.trainers\n"
        "print(*sorted({'torch', 'jax', 'gymnasium', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_modules_that_somebody_named_come_through_one_gate():
    importing = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"import_module\(|__import__\(", path.read_text())]
    assert importing == ["modules.py"]
