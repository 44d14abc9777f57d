"""`rltrain config`: every setting with its value, what it takes and its sentence."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from rltrain import config as configuration
from rltrain.commands.layout import grid, pairs, width, wrap
from rltrain.config.compose import unknown_key
from rltrain.config.reference import Entry, entries
from rltrain.errors import CommandError, masked, shown
from rltrain.screen import printable, write_out

LONGEST = 34  # characters of what a setting takes in a table; one key alone shows all
HEADS = ("key", "value", "takes", "what it is")


def settings(arguments: Sequence[str]) -> int:
    """Explain what is asked for; with overrides the values are those that a run would have."""
    rest, plugins = list(arguments), list[str]()
    if any(argument.startswith("plugins=") for argument in arguments):
        from rltrain.commands.plans import load_plugins

        rest, plugins = load_plugins(arguments)
    words = [argument for argument in rest if "=" not in argument]
    overrides = [argument for argument in rest if "=" in argument and not argument.startswith("json=")]
    entries = _with_values(overrides, plugins) if overrides else _defaults()
    if not words and not overrides:
        return _write(_sections(entries), _plain(entries) if "json=true" in rest else None)
    found: list[Entry] = []
    for word in words or [""]:
        found += [entry for entry in _find(word, entries) if entry not in found]
    return _write(_explain(found, words), _plain(found) if "json=true" in rest else None)


def _defaults() -> list[Entry]:
    """Return every entry; those of the backends are the same."""
    found = [entry for entry in entries() if (entry.group, entry.choice) != ("backend", "jax")]
    return [dataclasses.replace(entry, group=None, choice=None) if entry.group == "backend" else entry for entry in found]


def _with_values(overrides: Sequence[str], plugins: Sequence[str]) -> list[Entry]:
    """Return the entries of what overrides choose, with the values that they give."""
    from omegaconf import OmegaConf

    from rltrain.commands.plans import make_plan

    plan = make_plan([*overrides, *([f"plugins=[{','.join(plugins)}]"] if plugins else [])])
    cfg: Any = masked(OmegaConf.to_container(plan.cfg, resolve=False))
    choices = {group: configuration.CHOICES[group] for group in ("trainer", "env", "agents")}
    targets = {(group, choice.target): name for group, named in choices.items() for name, choice in named.items()}
    chosen = {group: targets.get((group, cfg[group].get("_target_"))) for group in ("trainer", "env")}
    found = []
    for entry in _defaults():
        if entry.group in chosen and entry.choice != chosen[entry.group]:
            continue
        keys = {entry.key}
        if entry.group == "agents":
            names = [
                name for name, node in cfg["agents"].items() if targets.get(("agents", node.get("_target_"))) == entry.choice
            ]
            keys = {entry.key.replace(f"agents.{entry.choice}", f"agents.{name}", 1) for name in names}
        found += [dataclasses.replace(entry, key=key, default=_value(cfg, key, entry, chosen)) for key in sorted(keys)]
    order = {entry.key: i for i, entry in enumerate(found)}
    agents = list(cfg["agents"])
    rank = {f"agents.{name}": i for i, name in enumerate(agents)}
    return sorted(found, key=lambda entry: (rank.get(".".join(entry.key.split(".")[:2]), -1), order[entry.key]))


def _value(cfg: Any, key: str, entry: Entry, chosen: dict[str, str | None]) -> Any:
    """Return what a composed configuration has under a key; of a group what is chosen."""
    if key in chosen:
        return chosen[key]
    if key in ("agents", "backend"):
        return list(cfg[key]) if key == "agents" else cfg[key]["name"]
    for part in key.split("."):
        if not isinstance(cfg, dict) or part not in cfg:
            return entry.default
        cfg = cfg[part]
    return entry.default if isinstance(cfg, dict) and key == "agents_scope" else cfg


def _find(word: str, known: list[Entry]) -> list[Entry]:
    """Return the entry of a key, those of a section, or those whose key or sentence hold a word."""
    exact = [entry for entry in known if entry.key == word]
    within = [entry for entry in known if not word or entry.key.startswith(f"{word}.")]
    if within or exact:
        return within or exact
    lower = word.lower()
    found = [entry for entry in known if lower in entry.key.lower() or lower in entry.sentence.lower()]
    if not found or "." in word:
        raise CommandError([word], unknown_key(word))
    return found


def _explain(found: list[Entry], words: Sequence[str]) -> list[str]:
    if len(words) == 1 and {entry.key for entry in found} == {words[0]}:
        return [line for entry in found for line in _in_full(entry)]
    columns, lines = width(), []
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        title = f"{entry.group}={entry.choice}" if entry.group in ("trainer", "env") else ""
        groups.setdefault(title, []).append(entry)
    prefix = f"{words[0]}." if len(words) == 1 and all(entry.key.startswith(f"{words[0]}.") for entry in found) else ""
    for title, part in groups.items():
        head = " ".join([*([f"{prefix}*"] if prefix else []), *([f"({title})"] if title and len(groups) > 1 else [])])
        rows = [(e.key.removeprefix(prefix), shown(e.default), _short(e), e.sentence) for e in part]
        lines += [*([head] if head else []), *grid(HEADS, rows, columns), ""]
    return lines[:-1]


def _in_full(entry: Entry) -> list[str]:
    example = f"rltrain train {entry.key}={shown(entry.default)}"
    where = f" ({entry.group}={entry.choice})" if entry.group else ""
    rows = [("value", shown(entry.default)), ("takes", entry.allowed), ("example", example)]
    if entry.fixed:
        rows.append(("resume", "can't change it: it belongs to a run from start to end"))
    return [f"{entry.key}{where}", *wrap(entry.sentence, width(), "  "), *pairs(rows, width())]


def _short(entry: Entry) -> str:
    """Return what a setting takes in few words."""
    text = entry.allowed.removeprefix("one of ")
    for long, short in {
        "a whole number": "integer",
        "a finite number": "number",
        "text, not empty": "text",
        "a mapping with text keys": "mapping",
        "a list, each item": "list of",
        "true or false": "true, false",
    }.items():
        text = text.replace(long, short)
    text = re.sub(r">= (\S+) and <= ", r"\1 to ", text.replace("a number", "number"))
    return text if len(text) <= LONGEST else text[: LONGEST - 3].rsplit(" ", 1)[0].rstrip(", ") + " ..."


def _sections(known: list[Entry]) -> list[str]:
    """Return the sections, and how to see what is in one."""
    counts: dict[str, int] = {}
    sentences: dict[str, str] = {}
    for entry in known:
        section = ".".join(entry.key.split(".")[:2]) if entry.group == "agents" else entry.key.split(".")[0]
        if "." not in entry.key:
            sentences[section] = entry.sentence
            continue
        counts[section] = counts.get(section, 0) + 1
    for section in counts:
        kind = configuration.CHOICES["agents"].get(section.removeprefix("agents.")) if section.startswith("agents.") else None
        field = configuration.Config.__dataclass_fields__.get(section)
        doc = (kind.cfg.__doc__ or "").partition("\n")[0] if kind else (field.metadata.get("doc", "") if field else "")
        sentences.setdefault(section, doc)
    single = [(name, text) for name, text in sentences.items() if name not in counts]
    sections = [(f"{name} ({counts[name]})", sentences[name]) for name in sorted(counts)]
    columns = width()
    lines = ["sections, with how many settings each has:", *pairs(sections, columns), "", "settings of their own:"]
    lines += [*pairs(single, columns), ""]
    return [
        *lines,
        *wrap(
            "rltrain config agents.ppo shows a section, rltrain config learning searches, rltrain help config says more", columns
        ),
    ]


def _plain(found: list[Entry]) -> list[dict[str, Any]]:
    return [
        {"key": e.key, "value": e.default, "takes": e.allowed, "sentence": e.sentence, "group": e.group, "choice": e.choice}
        for e in found
    ]


def _write(lines: list[str], plain: Any = None) -> int:
    write_out(json.dumps(plain, indent=1) + "\n" if plain is not None else printable("\n".join([*lines, ""])))
    return 0
