"""Tables of settings for the pages: `<!-- settings: trainer parallel -->` in a page becomes the table of that choice."""

import re
from collections.abc import Sequence
from typing import Any

from rltrain.config.reference import Entry, entries

ASK = re.compile(r"^<!-- settings: (.+) -->$", re.MULTILINE)


def fill(page: str) -> str:
    """Return a page in which every comment that asks for settings is their table.

    It may ask for a group and a choice (`agents ppo`), for a section (`evaluation`), or for the keys without one (`-`); after
    `without` it names classes whose settings stand in another table.
    """
    return ASK.sub(lambda found: table(found[1]), page)


def table(request: str) -> str:
    """Return the table that a page asks for; raises ValueError for one without rows."""
    what, _, without = request.partition(" without ")
    group, _, choice = what.partition(" ")
    found = [entry for entry in (entries(group, choice) if choice else entries()) if entry.section not in without.split()]
    if not choice:
        found = [entry for entry in found if entry.group is None and section_of(entry) == group]
    if not found:
        raise ValueError(f"no settings for {request!r}")
    under = f"agents.{choice}." if group == "agents" and choice else ""
    return lines(found, under)


def section_of(entry: Entry) -> str:
    """Return the first part of a key, or `-` of one that has no parts."""
    first, dot, _ = entry.key.partition(".")
    return first if dot else "-"


def lines(found: Sequence[Entry], under: str = "") -> str:
    """Return entries as a table in Markdown, keys without `under`."""
    rows = [f"| key{f', after `{under}`' if under else ''} | default | takes | what it is |", "|---|---|---|---|"]
    for entry in found:
        key, default = entry.key.removeprefix(under), shown(entry.default)
        cells = (f"`{key}`", f"`{default}`", in_signs(entry.allowed), entry.sentence + (" †" if entry.fixed else ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join([":::{table}", ":class: settings", "", *rows, ":::"])


def in_signs(allowed: str) -> str:
    """Return what a setting takes with signs for words, and large numbers in groups of three."""
    text = re.sub(r"\d{5,}", lambda digits: f"{int(digits[0]):,}", allowed.replace("000.0", "000"))
    return text.replace(">= ", "≥ ").replace("<= ", "≤ ").replace("a whole number", "integer").replace("a number", "number")


def shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
