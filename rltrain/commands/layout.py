"""Text for a terminal of any width: two columns, or a sentence under its name; words are never broken in the middle."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Container, Iterable, Sequence

NARROWEST, WIDEST, UNKNOWN = 40, 120, 100


def width(widest: int = WIDEST) -> int:
    """Return the columns to write in: the terminal's, also where the output goes on into a pager; COLUMNS says otherwise."""
    columns = shutil.get_terminal_size((0, 0)).columns
    if not columns and sys.stderr is not None:
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):
            columns = UNKNOWN
    return max(NARROWEST, min(columns or UNKNOWN, widest))


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


def table_that_fits(
    cells: Callable[[str], list[str]], names: Sequence[str], left_out: Sequence[str], columns: int, *, right: Container[str] = ()
) -> list[str]:
    """Return a table, without those of the columns `left_out` that don't fit, the first ones first.

    `cells` gives a column by its name, and is asked for those alone that may fit. The first column stays whole: where even the
    fewest others don't fit beside it, they stand below it.
    """
    first, *rest = names
    firsts = [first, *cells(first)]
    beside = max(map(len, firsts)) + 2
    made = {name: cells(name) for name in rest if name not in left_out}

    def total() -> int:
        return sum(max(map(len, [name, *column])) + 2 for name, column in made.items()) - 2

    indent = beside if beside + total() <= columns else 4
    for name in reversed(left_out):
        if indent + total() + 2 + len(name) <= columns:
            made[name] = cells(name)
            if indent + total() > columns:
                del made[name]
    kept = [[name, *made[name]] for name in rest if name in made]
    sizes = [max(map(len, column)) for column in kept]
    lines = []
    for i, text in enumerate(firsts):
        row = (
            column[i].rjust(size) if column[0] in right else column[i].ljust(size)
            for column, size in zip(kept, sizes, strict=True)
        )
        after = "  ".join(row).rstrip()
        lines += [text.ljust(indent) + after] if indent == beside else [text, " " * indent + after]
    return lines
