"""Which test files need a backend that isn't installed: read from their imports, those of the modules beside them included."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
BACKENDS = ("torch", "jax")
JAX_FILES = ("trainers.fused", "envs.gymnax", "envs.brax", "envs.jaxmarl")
MISSING = [name for name in BACKENDS if importlib.util.find_spec(name) is None]


@cache
def needs(file: Path) -> frozenset[str]:
    """Return the backends that importing `file` imports."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "rltrain":
                found |= {"jax" if part.startswith("jax_") else part for part in parts[1:]} & set(BACKENDS)
                found |= (
                    {"jax"}
                    if parts[1:] in (["trainers", "fused"], ["envs", "gymnax"], ["envs", "brax"], ["envs", "jaxmarl"])
                    else set()
                )
            elif parts[0] in BACKENDS:
                found.add(parts[0])
            elif (TESTS / f"{parts[0]}.py").exists():
                found |= needs(TESTS / f"{parts[0]}.py")
    return frozenset(found)


def left_out() -> dict[str, list[str]]:
    """Return the test files that can't run here, by the backend that they miss."""
    files = sorted(TESTS.rglob("test_*.py"))
    return {name: [str(file.relative_to(TESTS)) for file in files if name in needs(file)] for name in MISSING}
