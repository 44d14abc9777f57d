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
    return lines(found)


def section_of(entry: Entry) -> str:
    """Return the first part of a key, or `-` of one that has no parts."""
    first, dot, _ = entry.key.partition(".")
    return first if dot else "-"


def lines(found: Sequence[Entry]) -> str:
    """Return entries as a table in Markdown."""
    rows = ["| key | default | takes | what it is |", "|---|---|---|---|"]
    for entry in found:
        cells = (f"`{entry.key}`", f"`{shown(entry.default)}`", entry.allowed, entry.sentence + (" †" if entry.fixed else ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(rows)


def shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
