"""`rltrain report`: a directory of pictures, pages and numbers on runs, whatever state they are in."""

import builtins
import csv
import fcntl
import json
import struct
import zlib

import pytest
from command_line import assert_one_error, call, train
from made_runs import EVALUATION, RETURN, make_run, make_sweep

pytest.importorskip("matplotlib")
ALWAYS = {f"{name}.{end}" for name in ("curves", "final") for end in ("png", "svg")}
ALWAYS |= {"report.md", "report.html", "report.json", "data.csv"}
COMPARED = {f"{name}.{end}" for name in ("profile", "improvement") for end in ("png", "svg")}


def report(*arguments, status=0):
    result = call("report", *arguments)
    assert result.status == status, result.err
    return result


def names(directory):
    return {path.name for path in directory.iterdir()}


def read_png(path) -> tuple[int, int, dict[str, str]]:
    """Return width, height and texts."""
    data, at, size, texts = path.read_bytes(), 8, (0, 0), {}
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"tEXt":
            key, _, text = body.partition(b"\0")
            texts[key.decode()] = text.decode("latin-1")
        at += 12 + length
    assert zlib.crc32(data[12:29]) == struct.unpack(">I", data[29:33])[0]
    return *size, texts


def test_a_sweep(here):
    """Two settings, five seeds, two tasks; the final score is 100 times the learning rate, plus the seed."""
    make_sweep(here / "a", env="CartPole-v1")
    make_sweep(here / "b", env="Nowhere-v0")
    out = report("a", "b", "out=r").out
    assert "20 runs, compared by evaluation/episode_return_mean" in out and "learning_rate=0.001" in out
    assert names(here / "r") == ALWAYS | COMPARED
    about = json.loads((here / "r/report.json").read_text())
    first = about["tasks"]["Nowhere-v0"][0]
    assert (first["name"], first["n"], first["iqm"]) == ("learning_rate=0.001", 5, pytest.approx(3.1))
    assert about["improvements"][0]["probability"] == pytest.approx(10 / 25)  # of the first: it wins where its seed is higher
    page = (here / "r/report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 4 and "http://" not in page and "<script" not in page
    text = (here / "r/report.md").read_text()
    assert "| learning_rate=0.01 | 5 | 4.000 | 4.000 | 4.000 |" in text and "rltrain report a b out=r" in text
    assert "No random and reference score is known for Nowhere-v0" in text
    wide, high, texts = read_png(here / "r/curves.png")
    assert wide == 990 and high > 900  # 3.3 inches at 300 per inch, a panel per task
    assert texts["Description"] == "rltrain report a b out=r" and "on runs of 1.0" in texts["Software"]
    assert "rltrain report a b out=r" in (here / "r/curves.svg").read_text()
    rows = list(csv.DictReader((here / "r/data.csv").open()))
    assert len(rows) == 20 * 3 * 2
    assert rows[0] == {
        "run": "a/0.001_1",
        "seed": "1",
        "agent": "ppo",
        "env": "CartPole-v1",
        "backend": "torch",
        "group": "learning_rate=0.001",
        "agents.ppo.learning_rate": "0.001",
        "env_steps": "100",
        "wall_time": "1.0",
        "metric": EVALUATION,
        "value": "0.0",
    }
    assert {row["metric"] for row in rows} == {EVALUATION, RETURN}


def test_runs_that_were_trained(here):
    """Two agents of equal settings in each of two runs that differ in a setting."""
    for rate in ("0.001", "0.002"):
        settings = (
            "agents.ppo.count=2",
            "env.num_envs=2",
            "total_env_steps=128",
            "evaluation.interval=32",
            "evaluation.episodes=1",
        )
        train(*settings, f"agents.ppo.learning_rate={rate}", f"run.dir=runs/{rate}")
    out = report("runs", "out=r", "by=[learning_rate]").out
    assert "2 runs with 4 curves, compared by evaluation/episode_return_mean" in out
    names = [one["name"] for one in json.loads((here / "r/report.json").read_text())["tasks"]["CartPole-v1"] if one["n"] == 2]
    assert names == ["learning_rate=0.001", "learning_rate=0.002"]
    values = {(row["agent"], row["seed"]) for row in csv.DictReader((here / "r/data.csv").open())}
    assert values == {("ppo_0", "1"), ("ppo_1", "1")}


def test_one_run_and_the_same_place_again(here):
    """n = 1 is said; another report in the same place takes away what it doesn't have, and nothing else."""
    make_sweep(here / "a", seeds=[1, 2])
    report("a", "compare=[0.01,0.001]", "out=r")
    assert names(here / "r") == ALWAYS | COMPARED
    (here / "r/mine.txt").write_text("kept")
    result = report("a/0.01_1", "out=r", "x=wall_time", "aggregate=mean")
    assert names(here / "r") == ALWAYS | {"mine.txt"}
    assert "Fewer than 5 runs (n = 1): each is drawn, and no interval is claimed." in result.out
    assert "seconds since the start" in (here / "r/curves.svg").read_text().replace("<!-- ", "").replace(" -->", "")


def test_runs_that_go_on_failed_or_were_resumed(here):
    make_run(here / "a/1", seed=1)
    make_run(here / "a/2", seed=2, reason="failed: ValueError: no")
    make_run(here / "a/3", seed=3, starts=[{"time": "2027-01-15T09:00:00+00:00"}])
    make_run(here / "a/4", seed=4, scores=[])
    (here / "a/6").mkdir()
    (here / "a/6/job.json").write_text('{"error": "ValueError: no such thing"}')
    going = make_run(here / "a/5", seed=5, reason=None, scores=[1.0])
    with (going / ".lock").open("w") as file:  # as the run itself holds it
        file.write("pid 1 on host here")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        result = report("a", "out=r")
    assert "Not finished: 1 running, 2 failed of 6 runs." in result.out
    for line in ("a/2: failed: ValueError: no", "a/3: resumed once", "a/4: has no evaluation", "a/5: running at 33 %"):
        assert line in result.out
    assert "Without a configuration that can be read, so in no group: 1 run, a/6." in result.out
    assert "| a/6 | - | - |" in (here / "r/report.md").read_text()
    assert json.loads((here / "r/report.json").read_text())["tasks"]["CartPole-v1"][0]["n"] == 2
    assert "running at 33 %" in (here / "r/report.md").read_text()


def test_what_by_leaves_out_is_said(here):
    make_sweep(here / "a", seeds=[1])
    out = report("a", "by=[seed]", "out=r").out
    assert "Runs of one group also differ in agents.ppo.learning_rate." in out and "seed=1" in out


def test_parquet(here):
    parquet = pytest.importorskip("pyarrow.parquet")
    make_sweep(here / "a", seeds=[1])
    report("a", "out=r", "data=parquet")
    table = parquet.read_table(here / "r/data.parquet")
    assert names(here / "r") == ALWAYS - {"data.csv"} | {"data.parquet"}
    assert table.num_rows == 12 and [str(table.schema.field(name).type) for name in ("run", "seed", "env_steps", "value")] == [
        "string",
        "int64",
        "int64",
        "double",
    ]
    assert table["agents.ppo.learning_rate"].to_pylist()[0] == 0.001


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["rltrain report: say what to report on"]),
        (("nowhere",), ["nowhere: no such directory"]),
        (("empty",), ["empty: holds no run"]),
        (("a", "metric=evaluation/episode_return"), ["metric=evaluation/episode_return: no run", "did you mean", EVALUATION]),
        (("a", "by=agents.ppo.gama"), ["by=agents.ppo.gama: no run has this setting"]),
        (("a", "compare=[0.01,b]"), ["compare=b: no such group; ", "learning_rate=0.01"]),
        (("a", "compare=[0.01]"), ["compare=[0.01]: must be two groups"]),
        (("a", "x=steps"), ["x=steps: unknown; did you mean 'env_steps'?"]),
        (("a", "otu=r"), ["otu=r: no such option; did you mean 'out'?"]),
        (("a", "scores=nowhere.yaml"), ["scores=nowhere.yaml: can't be read"]),
        (("a", "out=a"), ["out=a: ", "holds something that isn't a report"]),
        (("a", "out=a/0.01_1/report"), ["out=a/0.01_1/report: ", "holds a run"]),
        (("a", "out=file"), ["out=file: is a file"]),
    ],
)
def test_bad_input_writes_nothing(here, arguments, words):
    make_sweep(here / "a", seeds=[1])
    (here / "empty").mkdir()
    (here / "file").write_text("")
    before = sorted(here.rglob("*"))
    assert_one_error(call("report", *arguments), 2, *words)
    assert sorted(here.rglob("*")) == before


def test_without_matplotlib_the_command_that_brings_it_is_said(here, monkeypatch):
    make_sweep(here / "a", seeds=[1])
    there = builtins.__import__

    def missing(name, *rest, **how):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *rest, **how)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert_one_error(call("report", "a", "out=r"), 2, "matplotlib: is not installed", "pip install", "plot]")
    assert not (here / "r").exists()
