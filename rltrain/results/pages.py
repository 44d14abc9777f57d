"""A text with tables and pictures as Markdown, or as one HTML file that needs nothing else."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rltrain.screen import printable


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; columns named in `left` begin on the left, numbers end on the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A picture, by the stem of its files."""

    name: str
    caption: str


Block = Heading | Text | Items | Code | Table | Picture

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --page: #ffffff; --line: #d1d9e0; --soft: #59636e; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --page: #0d1117; --line: #3d444d; --soft: #9198a1; --band: #151b23; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 3rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
p, ul, pre { max-width: 60rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; }
pre { padding: 0.7rem; background: var(--band); border-radius: 6px; white-space: pre-wrap; font-size: 0.85rem; }
.wide { overflow-x: auto; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th.left, td.left { text-align: left; } td.long { white-space: normal; min-width: 14rem; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: 0.85rem; max-width: 34rem; }
img { display: block; width: 34rem; max-width: 100%; background: #fff; padding: 0.5rem; border-radius: 6px; }
"""
LONG = 28  # characters of a cell that may have several lines


def as_markdown(blocks: Sequence[Block]) -> str:
    """Return blocks as Markdown; pictures are links to the .png beside it."""
    return printable("\n\n".join(_markdown(block) for block in blocks) + "\n")


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_escaped(text)}"
        case Text(text):
            return _escaped(text)
        case Items(items):
            return "\n".join(f"- {_escaped(item)}" for item in items)
        case Code(text):
            return f"```\n{text.replace('```', '` ` `')}\n```"
        case Picture(name, caption):
            return f"![{_escaped(caption)}]({name}.png)"
        case Table(head, rows, left):
            rule = f"|{'|'.join('---' if name in left else '---:' for name in head)}|"
            lines = [f"| {' | '.join(map(_escaped, row))} |" for row in (head, *rows)]
            return "\n".join([lines[0], rule, *lines[1:]])


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def as_html(blocks: Sequence[Block], pictures: Mapping[str, bytes], title: str) -> str:
    """Return blocks as a page; `pictures` are .svg files by name, which become part of it."""
    body = "\n".join(_html(block, pictures) for block in blocks)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{_text(title)}</title>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'


def _html(block: Block, pictures: Mapping[str, bytes]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Text(text):
            return f"<p>{_text(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"
        case Code(text):
            return f"<pre>{_text(text)}</pre>"
        case Picture(name, caption):
            data = base64.b64encode(pictures[f"{name}.svg"]).decode()
            image = f'<img alt="{_text(caption)}" src="data:image/svg+xml;base64,{data}">'
            return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"
        case Table(head, rows, left):
            sides = ["left" if name in left else "" for name in head]
            titles = "".join(_cell("th", name, side) for name, side in zip(head, sides, strict=True))
            lines = ["".join(_cell("td", text, side) for text, side in zip(row, sides, strict=True)) for row in rows]
            inside = "".join(f"<tr>{line}</tr>\n" for line in lines)
            return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>\n{inside}</tbody></table></div>'


def _cell(tag: str, text: str, side: str) -> str:
    kind = f"{side} long" if side and len(text) > LONG else side
    return f"<{tag}{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    return html.escape(printable(text))
