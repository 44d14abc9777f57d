"""Figures as wide as a column of a paper: their style, and the files that they become."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rltrain import installing
from rltrain.errors import CommandError
from rltrain.results import statistics

COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")  # Okabe and Ito, without the yellow
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


def style_of(index: int) -> tuple[str, Any]:
    """Return the color and the dashes of a group."""
    return COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]


def check_installed() -> None:
    """Raise CommandError with the command that installs matplotlib where there is none."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise CommandError(
            ["matplotlib"], f"is not installed, and draws the pictures; {installing.command_for('plot')}"
        ) from None


@contextmanager
def figure(panels: int, height: float, *, shared: bool = False) -> Iterator[tuple[Any, list[Any]]]:
    """Make a figure with this many panels, each `height` inches high, one below the other or in rows of three."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = 1 if panels <= PER_ROW else PER_ROW
    rows = -(-panels // columns)
    defaults: Any = matplotlib.rcParamsDefault
    style: Any = {**defaults, **STYLE}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(COLUMN if columns == 1 else 2.1 * COLUMN, rows * (height + 0.2)), layout="constrained")
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.02, h_pad=0.03)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[panels:]:
            spare.set_visible(False)
        yield figure, axes[:panels]


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
