"""Measure the house: what a reader needs to know an algorithm, how alike twins are, how much is said twice.

    python scripts/house.py                  # this checkout
    python scripts/house.py --root FOLDER    # another one

Reading: the files of rltrain that an algorithm's file imports, and those that they import, and so on, with their lines.
Outlines: classes, functions and methods of the PyTorch and the JAX twin in order, compared by difflib's ratio.
Repeated: windows of six lines of code that stand in more than one place; twins are alike on purpose and don't count.
"""

import argparse
import ast
import difflib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

WINDOW = 6


def imported(path: Path, root: Path) -> set[Path]:
    """Return the files of rltrain that one imports when it is imported."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rltrain":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "rltrain"]
        else:
            continue
        found |= {file for name in names if (file := (root / name.replace(".", "/")).with_suffix(".py")).exists()}
    return found


def closure(path: Path, root: Path) -> set[Path]:
    """Return a file and all that it imports, directly or not."""
    found, left = {path}, [path]
    while left:
        new = imported(left.pop(), root) - found
        found |= new
        left += new
    return found


def outline(path: Path) -> list[str]:
    """Return the names of classes, functions and methods in order."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        if isinstance(node, ast.ClassDef):
            names += [f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)]
    return names


def twins(root: Path) -> Iterator[tuple[str, float]]:
    """Yield each pair of twins with how alike their outlines are, 0 to 1."""
    for one in sorted((root / "rltrain").rglob("torch.py")):
        other = one.with_name("jax.py")
        if other.exists():
            ratio = difflib.SequenceMatcher(a=outline(one), b=outline(other), autojunk=False).ratio()
            yield str(one.parent.relative_to(root)), ratio


def lines_of_code(path: Path) -> list[str]:
    """Return a file's lines without blanks, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            skipped |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = ((i, line.strip()) for i, line in enumerate(text.splitlines(), 1))
    return [line for i, line in lines if line and i not in skipped and not line.startswith(("#", "import ", "from "))]


def repeated(root: Path) -> tuple[int, int]:
    """Return lines of code, and how many of them stand in a window that another file or place has too, twins aside."""
    places: dict[tuple[str, ...], set[tuple[Path, int]]] = defaultdict(set)
    total = 0
    for path in sorted((root / "rltrain").rglob("*.py")):
        lines = lines_of_code(path)
        total += len(lines)
        for i in range(len(lines) - WINDOW + 1):
            places[tuple(lines[i : i + WINDOW])].add((path, i))
    found: set[tuple[Path, int]] = set()
    for where in places.values():
        if len({path.parent if path.name in ("torch.py", "jax.py") else path for path, _ in where}) > 1:
            found |= {(path, i + k) for path, i in where for k in range(WINDOW)}
    return total, len(found)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="What a reader needs, how alike twins are, how much is said twice.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--files", action="store_true", help="list the files of each reading")
    arguments = parser.parse_args()
    root = arguments.root
    print("to read")
    for backend in ("torch", "jax"):
        for agent in ("ppo", "dqn", "sac"):
            files = closure(root / f"rltrain/agents/{agent}/{backend}.py", root)
            count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
            print(f"  {agent} {backend:6}{len(files):4} files {count:6,} lines")
            if arguments.files:
                print(*(f"    {path.relative_to(root)}" for path in sorted(files)), sep="\n")
    print("outlines of twins")
    for name, ratio in twins(root):
        print(f"  {ratio:4.2f}  {name}")
    total, twice = repeated(root)
    print(f"repeated: {twice:,} of {total:,} lines of code, {twice / total:.1%} (windows of {WINDOW} lines, twins aside)")
    package = sorted((root / "rltrain").rglob("*.py"))
    print(f"package: {len(package)} files, {sum(len(path.read_text(encoding='utf-8').splitlines()) for path in package):,} lines")


if __name__ == "__main__":
    main()
