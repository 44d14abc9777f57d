"""Figures as wide as a column of a paper: their style, and the files that they become."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rltrain import installing
from rltrain.errors import CommandError
from rltrain.results import statistics

COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")  # Okabe and Ito, without the yellow
LIKE = (0, 0, 0, 1, 1, 2, 2)  # which of DASHES each has: those of one kind differ in grey, too
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (6, 1.2, 1, 1.2)))
COLUMN, HEIGHT, TEXT = 3.3, 1.9, 7.0  # inches, points
PER_ROW = 3  # panels side by side where there are more than these
STYLE: dict[str, Any] = {
    "font.size": TEXT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": TEXT + 0.5,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT - 0.5,
    "ytick.labelsize": TEXT - 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "svg.hashsalt": "rltrain",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
}


@dataclass(frozen=True)
class Drawn:
    """How pictures are drawn: what stands over what, and what their files say of themselves."""

    metric: str  # in words
    x: str  # env_steps or wall_time
    aggregate: str  # iqm or mean
    heading: str = ""  # the setting that the names are values of
    names: Mapping[str, str] = field(default_factory=dict)  # of groups, in short
    about: Mapping[str, str] = field(default_factory=dict)  # Software, Description, Date

    @property
    def estimate(self) -> Callable[[statistics.Scores], Any]:
        """The estimate that a line shows."""
        return {"iqm": statistics.iqm, "mean": statistics.mean}[self.aggregate]

    def named(self, name: str, n: int | None = None) -> str:
        """Return a group's short name, with the number of its runs."""
        short = self.names.get(name, name)
        return short if n is None else f"{short}, n\u00a0=\u00a0{n}"

    def key(self, groups: Sequence[tuple[int, str, Sequence[int]]]) -> "Key":
        """Return what a key says of groups: (place, name, runs on each task)."""
        found = []
        for place, name, counts in groups:
            n = f"{min(counts)}" if len({*counts}) == 1 else f"{min(counts)}\u00a0to\u00a0{max(counts)}"
            found.append((f"{self.named(name)}, n\u00a0=\u00a0{n}", *style_of(place)))
        return found


def style_of(index: int) -> tuple[str, Any]:
    """Return the color and the dashes of a group."""
    place = index % len(COLORS)
    return COLORS[place], DASHES[(LIKE[place] + index // len(COLORS)) % len(DASHES)]


def check_installed() -> None:
    """Raise CommandError with the command that installs matplotlib where there is none."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise CommandError(
            ["matplotlib"], f"is not installed, and draws the pictures; {installing.command_for('plot')}"
        ) from None


@contextmanager
def figure(panels: int, height: float, below: float = 0.0) -> Iterator[tuple[Any, list[Any]]]:
    """Make a figure of panels, each `height` inches high, one below the other or in rows of three; `below` is room for a key."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = PER_ROW if is_wide(panels) else 1
    rows = -(-panels // columns)
    defaults: Any = matplotlib.rcParamsDefault
    style: Any = {**defaults, **STYLE}
    with matplotlib.rc_context(style):
        made = Figure(figsize=(width_of(panels), rows * (height + 0.2) + below), layout="constrained")
        layout: Any = made.get_layout_engine()
        layout.set(w_pad=0.02, h_pad=0.03)
        axes = list(made.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[panels:]:
            spare.set_visible(False)
        yield made, axes[:panels]


def is_wide(panels: int) -> bool:
    """Tell whether panels stand in rows, over two columns of a paper."""
    return panels > PER_ROW


def width_of(panels: int) -> float:
    """Return a figure's width in inches."""
    return 2.1 * COLUMN if is_wide(panels) else COLUMN


Key = Sequence[tuple[str, str, Any]]  # name, color, dashes


def key_size(key: Key, panels: int) -> tuple[int, float]:
    """Return how many columns a key below the panels has, and its height in inches."""
    longest = max(len(name) for name, *_ in key)
    columns = max(1, min(len(key), int(width_of(panels) / (0.055 * longest + 0.42))))
    return columns, 0.14 * -(-len(key) // columns) + 0.25


def write_key(made: Any, key: Key, panels: int, heading: str) -> None:
    """Write below the panels which line is whose."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, ls=dashes, lw=1.4) for _, color, dashes in key]
    how: dict[str, Any] = {"loc": "outside lower left", "frameon": False, "fontsize": TEXT - 0.5, "title_fontsize": TEXT - 0.5}
    how |= {"ncols": key_size(key, panels)[0], "alignment": "left", "title": heading or None, "borderpad": 0}
    made.legend(handles, [name for name, *_ in key], **how)


def unit_of(x: str, last: float) -> tuple[float, str]:
    """Return by how much to divide what stands on the x axis, and its name."""
    if x == "env_steps":
        unit, name = next(((u, n) for u, n in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")) if last >= u), (1.0, ""))
        return unit, f"{name} env steps".strip()
    unit, name = next(((u, n) for u, n in ((7200.0, "hours"), (120.0, "minutes")) if last >= u), (1.0, "seconds"))
    return {"hours": 3600.0, "minutes": 60.0}.get(name, unit), f"{name} since the start"


def saved(figure: Any, name: str, drawn: Drawn) -> dict[str, bytes]:
    """Return a figure as .png and .svg, with what their metadata say."""
    about = dict(drawn.about)
    date = about.pop("Date", None)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all has found its place
    figure.savefig(png, format="png", dpi=300, metadata={**about, "Title": name, **({"Creation Time": date} if date else {})})
    software = {"Creator": about["Software"]} if "Software" in about else {}
    words = {"Description": about["Description"]} if "Description" in about else {}
    figure.savefig(svg, format="svg", metadata={"Title": name, "Date": date, **software, **words})
    return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue()}
