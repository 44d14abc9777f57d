"""Text for a terminal of any width: two columns, or a sentence under its name; words are never broken in the middle."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

NARROWEST, WIDEST, UNKNOWN = 40, 120, 100


def width() -> int:
    """Return the columns to write in: the terminal's, also where the output goes on into a pager; COLUMNS says otherwise."""
    columns = shutil.get_terminal_size((0, 0)).columns
    if not columns and sys.stderr is not None:
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):
            columns = UNKNOWN
    return max(NARROWEST, min(columns or UNKNOWN, WIDEST))


def wrap(text: str, columns: int, indent: str = "") -> list[str]:
    """Return lines of at most `columns`, each after `indent`; a word that is longer stands alone."""
    lines = textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return lines or [indent.rstrip()]


def pairs(rows: Iterable[tuple[str, str]], columns: int, *, indent: str = "  ", widest: int = 30) -> list[str]:
    """Return names with their sentences beside them; a name longer than `widest` has its sentence below."""
    rows = list(rows)
    gap = len(indent) + 2 + max((len(name) for name, _ in rows if len(name) <= widest), default=0)
    lines = []
    for name, text in rows:
        body = wrap(text, columns, " " * gap) if text else [""]
        if len(indent) + len(name) + 2 <= gap:
            body[0] = f"{indent}{name}".ljust(gap) + body[0][gap:]
            lines += [line.rstrip() for line in body]
        else:
            lines += [f"{indent}{name}", *([] if not text else body)]
    return lines


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int, *, smallest: int = 40) -> list[str]:
    """Return a table whose last column is a sentence: beside the others if `smallest` columns are left for it, else below."""
    sizes = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads) - 1)]
    left = sum(sizes) + 2 * len(sizes)
    beside = columns - left >= smallest
    indent = " " * (left if beside else 4)
    lines = []
    for row in [heads, *rows]:
        first = "".join(cell.ljust(size + 2) for cell, size in zip(row, sizes, strict=False))
        sentence = wrap(row[-1], columns, indent)
        if beside:
            sentence[0] = first + sentence[0][left:]
            lines += [line.rstrip() for line in sentence]
        else:
            lines += [first.rstrip()] + ([] if row is heads else sentence)
    return lines
