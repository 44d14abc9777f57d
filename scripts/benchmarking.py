"""What the benchmark scripts share: environments of their own, one process per run, order, tables."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Result = dict[str, Any]


class BenchmarkError(Exception):
    """A sentence for the user: what went wrong with which contender."""


def call(contender: str, command: Sequence[str], cwd: Path) -> str:
    """Run a command on one thread, without a GPU, compiling anew; return its standard output.

    One thread is everyone's quickest setting for networks this small, XLA's included.

    Raises:
        BenchmarkError: It failed. The message ends with the last lines that it wrote.
    """
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    fixed = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, cwd=cwd, env=os.environ | one_thread | fixed, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BenchmarkError(f"{contender}: exit status {done.returncode} from {' '.join(command)}\n{tail}")
    return done.stdout


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that this interpreter has."""
    installed = {package.metadata["Name"].lower().replace("_", "-"): package for package in metadata.distributions()}
    return {"python": platform.python_version()} | {name: installed[name].version for name in names if name in installed}


def make_environment(folder: Path, packages: Sequence[Sequence[str]]) -> Path:
    """Create a virtual environment unless it is there with these packages; return its interpreter.

    `packages` are installed one line after the other. It ignores itself in git.
    """
    python, complete = folder / "bin" / "python", folder / ".complete"
    wanted = "\n".join(" ".join(line) for line in packages)
    if not complete.exists() or complete.read_text() != wanted:
        print(f"installing {folder} (once)", flush=True)
        call(folder.name, [sys.executable, "-m", "venv", "--clear", str(folder)], cwd=ROOT)
        (folder / ".gitignore").write_text("*\n")
        for line in packages:
            call(folder.name, [str(python), "-m", "pip", "install", *line], cwd=ROOT)
        complete.write_text(wanted)
    return python


def alternate(contenders: Sequence[str], repeats: int) -> Iterator[tuple[int, str]]:
    """Yield repeat and contender; the order rotates from repeat to repeat."""
    for i in range(repeats):
        first = i % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            yield i + 1, contender


def print_rows(title: str, rows: dict[str, list[float]], decimals: int = 0) -> None:
    """Print a line per row: its numbers of all repeats with their median."""
    repeats = max(len(row) for row in rows.values())
    print(f"\n{title:32}" + "".join(f"{f'repeat {i + 1}':>11}" for i in range(repeats)) + f"{'median':>11}")
    for name, row in rows.items():
        print(f"{name:32}" + "".join(f"{number:11.{decimals}f}" for number in [*row, statistics.median(row)]))


def add_arguments(parser: argparse.ArgumentParser, contenders: Sequence[str]) -> None:
    """Add what every benchmark script takes; `--worker` is for the script's own use."""
    parser.add_argument("--repeats", type=int, default=3, help="runs per contender (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first repeat; the next ones count up")
    parser.add_argument("--contenders", default=",".join(contenders), help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the raw figures and versions to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace, known: Sequence[str], python: str) -> None:
    """Split `--contenders` and end with a sentence if an argument is wrong; `python` names the interpreter's option."""
    arguments.contenders = arguments.contenders.split(",")
    if unknown := set(arguments.contenders) - set(known):
        parser.error(f"--contenders={','.join(unknown)}: unknown; choose from {','.join(known)}")
    given = getattr(arguments, python)
    if given and not given.exists():
        option = "--" + python.replace("_", "-")
        parser.error(f"{option}={given}: no such file; give the path of an interpreter")
    if given:  # absolute(), as resolve() would follow the link out of the virtual environment
        setattr(arguments, python, given.absolute())
    if arguments.repeats < 1:
        parser.error(f"--repeats={arguments.repeats}: give at least 1")


def write_json(path: Path | None, report: Result) -> None:
    """Write the report with what is known of the machine, if a path was given."""
    if path:
        machine = {"machine": platform.platform(), "cores": os.cpu_count()}
        path.write_text(json.dumps(report | machine, indent=2) + "\n")
