"""Names at the ends of lines, beside a panel: as near to their line as they can be, and never one on the other."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

GAP = 0.06  # from a line's end to its name, as a share of the panel's width


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> np.ndarray:
    """Return places as near to the wanted ones as they can be, so that things of these heights don't overlap.

    Least squares: without the heights of those below it, a thing's place may not be lower than theirs, which is an isotonic
    regression; then all are brought within low and high, as far as there is room.
    """
    order = np.argsort(wanted, kind="stable")
    sizes = np.asarray(heights, float)[order]
    below = np.cumsum(sizes) - sizes / 2
    blocks: list[list[float]] = []  # mean, count
    for place in np.asarray(wanted, float)[order] - below:
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count), blocks[-1][1] + count]
    free = np.concatenate([np.full(int(count), mean) for mean, count in blocks]) if blocks else np.empty(0)
    top = high - sizes.sum()
    placed = np.clip(free, low, top) if top >= low else np.full(len(free), (low + top) / 2)
    found = np.empty(len(order))
    found[order] = placed + below
    return found


def write_labels(panel: Any, ends: Sequence[tuple[float, float, str, Any]], size: float, heading: str = "") -> None:
    """Write a name beside the panel for each line's end: (x, y, name, color), with a line of its color that leads there."""
    if not ends:
        return
    texts = [
        panel.text(1 + GAP + 0.015, 0.5, name, transform=panel.transAxes, fontsize=size, va="center") for *_, name, _ in ends
    ]
    panel.figure.draw_without_rendering()
    into = panel.transAxes.inverted().transform
    heights = [box.height / panel.bbox.height * 1.08 for box in (text.get_window_extent() for text in texts)]
    points = [into(panel.transData.transform((x, y))) for x, y, _, _ in ends]
    places = spread([y for _, y in points], heights, -0.12, 1.05)
    top = max(place + height / 2 for place, height in zip(places, heights, strict=True))
    if heading:
        where = {"transform": panel.transAxes, "fontsize": size, "color": "0.35", "va": "bottom"}
        panel.text(1 + GAP + 0.015, top + 0.02, wrapped(heading), **where)
    for text, (x, y), place, (*_, color) in zip(texts, points, places, ends, strict=True):
        text.set_y(place)
        how = {"transform": panel.transAxes, "color": color, "lw": 0.8, "clip_on": False}
        panel.plot([max(x, 1), 1 + GAP * 0.7, 1 + GAP], [y, place, place], **how)
        if x < 0.97:  # the line ends before the others
            panel.plot([x, 1], [y, y], ls=(0, (1, 2)), **how)


def wrapped(name: str, columns: int = 20) -> str:
    """Return a name in lines, broken behind blanks, commas, equals signs and underscores where one would be too long."""
    lines, line = [], ""
    for word in re.split(r"(?<=[ ,=_])(?!\u00a0)", name):
        if line and len(line + word.rstrip()) > columns:
            lines.append(line.rstrip())
            line = ""
        line += word
    return "\n".join([*lines, line.rstrip()])
