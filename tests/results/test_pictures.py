"""What lines show, how groups are told apart, where their names stand."""

import re

import numpy as np
import pytest
from made_runs import EVALUATION, make_run, make_sweep

from rltrain.results import statistics
from rltrain.results.curves import read_curves
from rltrain.results.figures import COLORS, DASHES, Drawn, key_size, style_of
from rltrain.results.groups import make_groups, short_names
from rltrain.results.pictures import summarize
from rltrain.results.records import read_runs


def test_every_group_has_a_style_of_its_own():
    count = len(COLORS) * len(DASHES)
    assert len({(color, str(dashes)) for color, dashes in map(style_of, range(count))}) == count

    def grey(color: str) -> float:
        red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    for i in range(len(COLORS)):  # in grey: another tone, or other dashes
        for j in range(i):
            (one, dashes), (other, others) = style_of(i), style_of(j)
            assert abs(grey(one) - grey(other)) > 0.15 or dashes != others, (one, other)


def test_a_line_is_of_the_runs_that_have_come_to():
    """Of six runs one ends before the last point, where five are left; at the first there are four, and no interval."""
    values = np.array([[1.0, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4], [np.nan, 5, 5], [np.nan, 90, np.nan]])
    middle, low, high = summarize(values, Drawn("", "env_steps", "iqm"))
    # int(0.25 * 4) = int(0.25 * 5) = int(0.25 * 6) = 1 falls away at each end
    assert middle.tolist() == [(2 + 3) / 2, (2 + 3 + 4 + 5) / 4, (2 + 3 + 4) / 3]
    assert np.isnan(low[0]) and np.isfinite(low[1:]).all() and (low[1:] < middle[1:]).all() and (middle[1:] < high[1:]).all()
    assert summarize(values, Drawn("", "env_steps", "mean"))[0].tolist() == [10 / 4, 105 / 6, 15 / 5]
    last = statistics.interval(statistics.iqm, [np.arange(1.0, 6)], resamples=1000)
    assert (low[2], high[2]) == pytest.approx(last)


def test_a_key_says_how_many_runs_and_fits():
    drawn = Drawn("", "env_steps", "iqm", names={"rate=1": "1"})
    key = drawn.key([(0, "rate=1", [5, 5]), (1, "b", [3, 6])])
    assert [name.replace("\u00a0", " ") for name, *_ in key] == ["1, n = 5", "b, n = 3 to 6"]
    assert key_size(key, 1)[0] == 2 and key_size([("x" * 60, "", "")] * 4, 1)[0] == 1
    assert key_size([("x" * 60, "", "")] * 4, 1)[1] > key_size(key, 1)[1]


def draw(*places):
    pytest.importorskip("matplotlib")
    from rltrain.results.pictures import draw_curves

    groups = make_groups(read_curves(read_runs(places), EVALUATION))
    tasks = sorted({curve.task for group in groups for curve in group.curves})
    heading, names = short_names([group.name for group in groups])
    drawn = Drawn("return", "env_steps", "iqm", heading, dict(zip((group.name for group in groups), names, strict=True)))
    return draw_curves(groups, tasks, drawn)["curves.svg"].decode()


def texts(svg: str) -> list[str]:
    """Return the texts of a picture, which stand in comments before their outlines."""
    return [text.strip().replace("\u00a0", " ") for text in re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)]


def test_names_stand_at_the_lines_and_unfinished_runs_have_marks(tmp_path):
    make_sweep(tmp_path, rates=[0.001, 0.01], seeds=[1, 2])
    make_run(tmp_path / "x", seed=3, scores=[1.0], agents={"ppo": {"learning_rate": 0.01}}, reason="failed: no")
    svg = draw(tmp_path)
    assert {"learning_rate", "0.001, n = 2", "0.01, n = 3", "return"} <= set(texts(svg))
    assert svg.count("<use ") > draw(tmp_path / "0.001_1", tmp_path / "0.01_1").count("<use ")  # ticks and marks


def test_names_are_no_formulas(tmp_path):
    for name in ("$a_1$", "$b"):
        make_run(tmp_path / name, agents={"ppo": {"path": name}})
    assert {"path", "$a_1$, n = 1", "$b, n = 1"} <= set(texts(draw(tmp_path)))


def test_many_names_stand_in_a_key_below(tmp_path):
    for env in "ABCD":
        make_run(tmp_path / env, env=f"{env}-v0", agents={"ppo": {"learning_rate": 0.1}})
        make_run(tmp_path / f"{env}2", env=f"{env}-v0", agents={"ppo": {"learning_rate": 0.2}})
    found = texts(draw(tmp_path))
    assert [found.count(text) for text in ("learning_rate", "0.1, n = 1", "A-v0", "D-v0", "return")] == [1, 1, 1, 1, 2]
