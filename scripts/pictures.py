"""Draw the pictures of the README from the data that is kept beside them, in docs/pictures.

    python scripts/pictures.py                        # screen, curves and speed, each for light and dark pages
    python scripts/pictures.py --record               # first run what the screen shows, in tmux
    python scripts/pictures.py --collect SWEEP ...    # first read the curves from sweeps' directories

The curves' data come from sweeps such as

    rltrain train -m experiment=ppo_acrobot backend=jax 'seed=range(1,6)' hydra.sweep.dir=SWEEP

and the speeds' from the tables of docs/results.md. It needs the extra `docs`; --record needs tmux.
"""

import argparse
import csv
import io
import json
import re
import shlex
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

PICTURES = Path(__file__).parent.parent / "docs/pictures"
COMMANDS = ("rltrain train experiment=ppo_acrobot seed=1 evaluation.interval=5000 run.dir=acrobot", "rltrain eval acrobot")
WIDTH, HEIGHT = 96, 40  # of the screen, in characters
POINTS = 60  # of a curve
INK = {"light": "#1f2328", "dark": "#e6edf3"}
COLORS = {"torch": "#e8590c", "jax": "#1c7ed6", "ours": "#2f9e44", "peer": "#868e96"}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="run the commands that the screen shows")
    parser.add_argument("--collect", nargs="+", metavar="SWEEP", type=Path, default=[], help="directories of sweeps over seeds")
    parser.add_argument("--into", type=Path, default=PICTURES, metavar="DIR", help="where the pictures go")
    arguments = parser.parse_args()
    if arguments.record:
        (PICTURES / "data/screen.txt").write_text(record())
    if arguments.collect:
        write_curves(arguments.collect)
    for page, ink in INK.items():
        (arguments.into / f"screen-{page}.svg").write_text(draw_screen(page))
        draw_curves(ink, arguments.into / f"curves-{page}.svg")
        draw_speed(ink, arguments.into / f"speed-{page}.svg")


# -- the screen --------------------------------------------------------------------------------------------------------------


def record() -> str:
    """Return what a terminal shows at the end of the commands, with its colors."""
    with tempfile.TemporaryDirectory() as directory:
        tmux = ["tmux", "-L", f"rltrain-{time.time_ns()}"]
        shell = ["env", "PS1=$ ", "TERM=xterm-256color", "bash", "--norc", "--noprofile"]
        subprocess.run(
            [*tmux, "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "-c", directory, shlex.join(shell)], check=True
        )
        time.sleep(1)  # for the prompt
        try:
            for number, command in enumerate(COMMANDS):
                done = Path(directory, f"done{number}")
                subprocess.run([*tmux, "send-keys", f"{command}; >{done.name}", "Enter"], check=True)
                while not done.exists():
                    time.sleep(0.2)
            time.sleep(0.5)
            text = subprocess.run(
                [*tmux, "capture-pane", "-epJ", "-S", "-200"], check=True, capture_output=True, text=True
            ).stdout
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
    for number, command in enumerate(COMMANDS):
        text = text.replace(f"{command}; >done{number}", command)
    return text.rstrip().removesuffix("$").rstrip() + "\n"


def draw_screen(page: str) -> str:
    """Return the screen as an SVG."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
    from rich.text import Text

    text = Text.from_ansi((PICTURES / "data/screen.txt").read_text())
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    theme = SVG_EXPORT_THEME if page == "dark" else DEFAULT_TERMINAL_THEME
    svg = console.export_svg(title="rltrain", theme=theme, unique_id=f"rltrain-{page}")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts that a viewer would fetch from elsewhere


# -- learning curves ---------------------------------------------------------------------------------------------------------


def write_curves(sweeps: list[Path]) -> None:
    """Write the mean return of training episodes over env steps, per preset, backend and seed."""
    rows = []
    for config in sorted(path for sweep in sweeps for path in sweep.glob("*/config.yaml")):
        cfg = yaml.safe_load(config.read_text())
        lines = [json.loads(line) for line in (config.parent / "metrics.jsonl").read_text().splitlines()]
        points = [
            (line["env_steps"], line["rollout/episode_return_mean"]) for line in lines if "rollout/episode_return_mean" in line
        ]
        chosen = np.unique(np.linspace(0, len(points) - 1, POINTS).round().astype(int))
        preset = f"{'_'.join(cfg['agents'])}_{cfg['env']['id'].split('-')[0].lower()}"
        rows += [(preset, cfg["backend"]["name"], cfg["seed"], *points[i]) for i in chosen]
    with (PICTURES / "data/curves.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("preset", "backend", "seed", "env_steps", "episode_return_mean"))
        writer.writerows((*row[:4], f"{row[4]:.2f}") for row in sorted(rows))


def draw_curves(ink: str, path: Path) -> None:
    """Draw a panel per preset: the mean over seeds, and from the least to the greatest of them."""
    curves: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    with (PICTURES / "data/curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            curves[row["preset"]][row["backend"]][row["seed"]].append(
                (float(row["env_steps"]), float(row["episode_return_mean"]))
            )
    figure, panels = new_figure(ink, len(curves), (3.1 * len(curves), 2.6))
    for panel, (preset, backends) in zip(panels, curves.items(), strict=True):
        for backend, seeds in sorted(backends.items(), reverse=True):
            grid = np.linspace(max(s[0][0] for s in seeds.values()), min(s[-1][0] for s in seeds.values()), 200)
            returns = np.array([np.interp(grid, *zip(*points, strict=True)) for points in seeds.values()])
            name = {"torch": "PyTorch", "jax": "JAX"}[backend]
            panel.plot(grid / 1000, returns.mean(0), color=COLORS[backend], label=f"{name}, {len(seeds)} seeds", linewidth=1.6)
            panel.fill_between(grid / 1000, returns.min(0), returns.max(0), color=COLORS[backend], alpha=0.2, linewidth=0)
        panel.set_title(preset, color=ink, fontsize=10, family="monospace")
        panel.set_xlabel("env steps / 1000", color=ink, fontsize=9)
    panels[0].set_ylabel("mean return of training episodes", color=ink, fontsize=9)
    panels[-1].legend(frameon=False, labelcolor=ink, fontsize=9, loc="lower right")
    save(figure, path)


# -- speed -------------------------------------------------------------------------------------------------------------------


def draw_speed(ink: str, path: Path) -> None:
    """Draw env steps per second of each contender, a panel per task."""
    with (PICTURES / "data/speed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, panels = new_figure(ink, len(tasks), (3.1 * len(tasks), 1.7))
    for panel, task in zip(panels, tasks, strict=True):
        own = [row for row in rows if row["task"] == task][::-1]
        rates = [float(row["env_steps_per_second"]) for row in own]
        bars = panel.barh(
            [row["contender"] for row in own], rates,
            color=[COLORS["ours" if row["contender"].startswith("rltrain") else "peer"] for row in own], height=0.65,
        )  # fmt: skip
        panel.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, color=ink, fontsize=8)
        panel.set_xlim(0, max(rates) * 1.3)
        panel.set_ylim(-0.6, 2.6 if len(own) == 3 else 1.95)
        panel.set_xticks([])
        panel.spines["bottom"].set_visible(False)
        panel.set_title(task, color=ink, fontsize=8.5)
    panels[0].set_xlabel("env steps per second, one core", color=ink, fontsize=8, loc="left")
    save(figure, path)


def new_figure(ink: str, panels: int, size: tuple[float, float]) -> tuple:
    """Return a figure without a background, and its panels."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"svg.hashsalt": "rltrain", "svg.fonttype": "path", "font.family": "DejaVu Sans"}
    figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
    for axis in axes[0]:
        axis.tick_params(colors=ink, labelsize=8)
        axis.patch.set_alpha(0)
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(ink)
    return figure, list(axes[0])


def save(figure: object, path: Path) -> None:
    """Write an SVG that is the same whenever it is drawn."""
    figure.savefig(path, transparent=True, metadata={"Date": None})  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
