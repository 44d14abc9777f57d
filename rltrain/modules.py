"""The one gate for modules that somebody named: plugins, `module:name`, the dotted path of a class.

Nothing is imported from the current directory but what was typed on this command line; the directory then comes last on the
import path, so it shadows nothing. A name that stands in a saved configuration or a preset is imported from the installed path
alone (PYTHONPATH included), unless `trust=true` is typed. In a script and in the processes of workers and copies there is no
gate: a script's path is its own, and what they get has passed the gate of the process that started them. But what a script
loads somebody may have saved: `gated` is its gate meanwhile.
"""

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rltrain.errors import ConfigError, masked_argument, nearest, said
from rltrain.signals import comes_from_signal

TRUST = re.compile(r"[+~]*trust(=.*)?")
NAMING = re.compile(
    r"env|env\.id|env\.wrappers|trainer\.callback|.*\.encoder|.*\.reward_function"
)  # keys whose value may name a module before a colon


class Refused(ConfigError):
    """A module that only the current directory has, and that nobody typed."""


@dataclass(frozen=True)
class Gate:
    """What this command line lets in from the current directory."""

    directory: str | None  # the current one; None where it was deleted
    typed: frozenset[str]  # top-level packages
    trusted: bool
    again: str  # the command, trusting

    def admit(self, name: str, key: str, value: Any) -> None:
        """Put the current directory last on the import path if `name` may come from there.

        Raises Refused if it would have to, and may not.
        """
        top = name.partition(".")[0]
        installed = [entry for entry in sys.path if entry not in _opened]
        if self.directory is None or self.directory in installed or top == "rltrain":
            return
        here = [*installed, self.directory]
        if _place(top, here) == _place(top, installed):
            return  # found first elsewhere, or nowhere
        if not self.trusted and top not in self.typed:
            raise Refused(
                key,
                value,
                f"a configuration names {top}, which only the current directory has, and nothing there is imported "
                f"unless this command line says so; if you trust it:\n{self.again}",
            )
        _opened.add(self.directory)
        sys.path[:] = here


_gate: Gate | None = None
_opened: set[str] = set()  # current directories that a gate put on the path


def import_named(name: str, key: str, value: Any) -> ModuleType:
    """Import a module that `key=value` names, from where its name may come from.

    Raises Refused where that is nowhere; what the module's own code raises passes.
    """
    if _gate is not None:
        _gate.admit(name, key, value)
    return importlib.import_module(name)


def find_named(name: str, key: str) -> Any:
    """Return what `key=module:name` names.

    Raises ConfigError if it isn't there or isn't callable.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute.isidentifier()):
        raise ConfigError(key, name, "must be module:name, such as my_package.nets:Encoder")
    try:
        package = import_named(module, key, name)
    except BaseException as error:  # whatever the package's own code raises
        if isinstance(error, Refused) or comes_from_signal(error):
            raise
        raise ConfigError(key, name, f"{module} can't be imported ({said(error)})") from error
    found = getattr(package, attribute, None)
    if callable(found):
        return found
    there = [
        one for one, value in vars(package).items() if callable(value) and getattr(value, "__module__", "") == package.__name__
    ]
    what = "is not a function" if hasattr(package, attribute) else f"{module} has no {attribute}"
    raise ConfigError(key, name, f"{what}; {nearest(attribute, there)}" if there else what)


def make_named(name: str, key: str, *arguments: Any, **settings: Any) -> Any:
    """Return what `key=module:name` makes of arguments.

    Raises ConfigError if it isn't there or fails.
    """
    make = find_named(name, key)
    try:
        return make(*arguments, **settings)
    except BaseException as error:
        if comes_from_signal(error):
            raise
        raise ConfigError(key, name, f"fails when it is made: {said(error)}") from error


def is_here_needed() -> bool:
    """Tell whether something was imported from the current directory, so that whoever reads the configuration has to trust it."""
    return bool(_opened)


def begin(arguments: Sequence[str], *, program: bool) -> list[str]:
    """Set up the gate of one command line; return the arguments without `trust=true`, which nobody else reads.

    A `program` of its own also takes the current directory off its import path, unless PYTHONPATH or an installation names it.
    """
    rest = [argument for argument in arguments if not TRUST.fullmatch(argument)]
    given = [argument for argument in arguments if TRUST.fullmatch(argument)]
    trusted = _read_trust(given, rest)
    if program:
        _leave_current_directory()
    _open(_typed(rest), trusted, [*rest, "trust=true"])
    return rest


def begin_job(overrides: Sequence[str]) -> None:
    """Set up the gate in a job of a sweep, in whichever process: its overrides were typed where the sweep was started."""
    if _gate is None:  # a process of the launcher's
        _leave_current_directory()
    _open(_typed(overrides), False, ["train", *overrides])


@contextmanager
def gated(overrides: Sequence[str], *, trusted: bool, again: str) -> Iterator[None]:
    """Have a gate also in a script while it reads what somebody saved; what it has imported or names in `overrides` is let in.

    `again` says how to trust. Afterwards the import path is the script's own again, behind it what the gate has opened.
    """
    global _gate
    before, path = _gate, list(sys.path)
    _leave_current_directory()
    imported = frozenset(name for name in sys.modules if "." not in name)
    _gate = Gate(_current_directory(), imported | _typed(overrides), trusted, again)
    try:
        yield
    finally:
        _gate = before
        sys.path[:] = [*path, *(entry for entry in _opened if entry not in path)]


def _open(typed: frozenset[str], trusted: bool, again: Sequence[str]) -> None:
    global _gate
    told = map(masked_argument, again)
    sys.path[:] = [entry for entry in sys.path if entry not in _opened]
    _opened.clear()
    _gate = Gate(_current_directory(), typed, trusted, shlex.join(["rltrain", *told]))


def _read_trust(given: Sequence[str], rest: Sequence[str]) -> bool:
    for argument in given:
        key, _, value = argument.partition("=")
        if key != "trust" or value.lower() not in ("true", "false"):
            raise ConfigError(key, value, "write trust=true or trust=false")
        if "-m" in rest or "--multirun" in rest:
            raise ConfigError(key, value, "a sweep reads no saved configuration; name your modules, as in plugins=[my_package]")
        if rest[:1] not in (["train"], ["eval"]) and rest[:2] != ["checkpoint", "export"]:
            raise ConfigError(key, value, "is for train, eval and checkpoint export, which import what a configuration names")
    return bool(given) and given[-1].lower() == "trust=true"


def _typed(arguments: Sequence[str]) -> frozenset[str]:
    """Return the top-level packages that a command line names, of sweeps all of them."""
    names: list[str] = []
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "plugins":
            names += re.findall(r"(?<![\w.$])[A-Za-z_][\w.]*", value)
        elif NAMING.fullmatch(key):
            names += re.findall(r"(?<![\w.${])([A-Za-z_][\w.]*)\\?:", value)
    return frozenset(name.partition(".")[0] for name in names)


# -- the import path -------------------------------------------------------------------------------------------------------


def _current_directory() -> str | None:
    with suppress(OSError):
        return os.getcwd()
    return None


def _leave_current_directory() -> None:
    """Take the current directory off the import path where only Python's own habit, or an empty PYTHONPATH entry, put it."""
    directory = _current_directory()
    sys.path[:] = [entry for entry in sys.path if entry]
    if directory is None or directory not in sys.path or _is_named(directory):
        return
    sys.path[:] = [entry for entry in sys.path if entry != directory]
    if _place("rltrain", sys.path) is None:  # run from its own checkout, not installed
        sys.path.append(directory)


def _is_named(directory: str) -> bool:
    """Tell whether PYTHONPATH, the program that runs or a .pth file of the installation names a directory."""
    import site

    named = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    program = getattr(sys.modules["__main__"], "__file__", None)
    if directory in named or (program and os.path.dirname(os.path.abspath(program)) == directory):
        return True
    for folder in (*site.getsitepackages(), site.getusersitepackages()):
        for file in Path(folder).glob("*.pth"):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            if directory in (os.path.abspath(os.path.join(folder, line.strip())) for line in lines if line.strip()):
                return True
    return False


def _place(name: str, path: Sequence[str]) -> tuple[str | None, ...] | None:
    """Return where a top-level module would come from with this import path, or None; imports nothing."""
    with _path(path):
        for finder in sys.meta_path:
            spec = finder.find_spec(name, None)
            if spec is not None:
                return spec.origin, *(spec.submodule_search_locations or ())
    return None


@contextmanager
def _path(path: Sequence[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:] = path
    try:
        yield
    finally:
        sys.path[:] = before
