"""`rltrain list`: what can be chosen, a sentence for each."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from rltrain import config as configuration
from rltrain.commands import environments
from rltrain.commands.layout import pairs, width, wrap
from rltrain.commands.plans import load_plugins
from rltrain.config.schema import directories
from rltrain.errors import CommandError, ConfigError, nearest
from rltrain.screen import printable, write_out

LISTS = {"agents": "agents", "trainers": "trainer", "backends": "backend", "experiments": "experiment", "envs": "env"}


def list_choices(arguments: Sequence[str]) -> int:
    """Print the choices of a group; words after its name keep what holds them."""
    rest, _ = load_plugins(arguments)
    words = [argument for argument in rest if "=" not in argument]
    for key, _, value in (argument.partition("=") for argument in rest if "=" in argument):
        if key != "json" or value not in ("true", "false"):
            raise ConfigError(key, value, "rltrain list takes words, json=true and plugins=[PACKAGE]")
    if not words or words[0] not in LISTS:
        raise CommandError(["rltrain", "list", *arguments], f"say what to list; {nearest(words[0] if words else '', LISTS)}")
    as_json = "json=true" in rest
    if words[0] == "envs":
        write_out(printable(_environments(words[1:], as_json)))
        return 0
    rows = [(name, describe(LISTS[words[0]], name)) for name in configuration.options(LISTS[words[0]])]
    kept = [row for row in rows if all(word.lower() in " ".join(row).lower() for word in words[1:])]
    if not kept:
        raise CommandError(["rltrain", "list", *words], f"nothing holds these words; options: {', '.join(n for n, _ in rows)}")
    if as_json:
        write_out(json.dumps([{"name": name, "sentence": sentence} for name, sentence in kept], indent=1) + "\n")
    else:
        write_out(printable("\n".join([*pairs(kept, width(), indent=""), ""])))
    return 0


def describe(group: str, name: str) -> str:
    """Return the sentence of a choice: that of its YAML file, else of its settings' class; of an agent also what it acts in."""
    files = [path for folder in directories() if (path := folder / group / f"{name}.yaml").exists()]
    choice = configuration.CHOICES.get(group, {}).get(name)
    sentence = _comment(files[-1]) if files else ""
    if not sentence and choice is not None:
        text = inspect.getdoc(choice.cfg) or ""
        sentence = "" if text.startswith(f"{choice.cfg.__name__}(") else text.partition("\n")[0]
    kind = getattr(choice.cfg, "KIND", "") if choice is not None else ""
    return f"{sentence} {kind}".strip()


def _comment(path: Path) -> str:
    """Return what the comment at the beginning of a YAML file says."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def _environments(words: Sequence[str], as_json: bool) -> str:
    found = environments.families()
    names = {family.name.lower() for family in found}
    chosen = [word.lower() for word in words if word.lower() in names]
    rest = [word.lower() for word in words if word.lower() not in names]
    kept = [
        (family, ids)
        for family in found
        if (not chosen or family.name.lower() in chosen)
        and ((ids := [one for one in family.ids if all(word in one.lower() for word in rest)]) or (not rest and family.install))
    ]
    if not kept:
        every = sorted({one for family in found for one in family.ids} | names)
        raise CommandError(["rltrain", "list", "envs", *words], f"no such environment; {nearest(words[0], every, limit=6)}")
    if as_json:
        keys = ("name", "choose", "install")
        return json.dumps([{key: getattr(f, key) for key in keys} | {"ids": ids} for f, ids in kept], indent=1) + "\n"
    columns, lines = width(), []
    for family, ids in kept:
        what = (
            f"install it: {family.install}" if family.install else f"{family.choose}, as in {family.choose.replace('ID', ids[0])}"
        )
        lines += wrap(f"{family.name}: {what}", columns)
        lines += wrap("  ".join(ids), columns, "  ") if ids else []
    return "\n".join([*lines, ""])
