"""`rltrain runs`: a table of runs that fits, filters, orders, JSON."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from command_line import assert_one_error, call, summary, train

from rltrain.results.listing import short, shown_bytes, shown_seconds
from rltrain.runs import locked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with two runs."""
    folder = tmp_path_factory.mktemp("runs")
    before = os.getcwd()
    os.chdir(folder)
    try:
        train("trainer.timesteps=40", "evaluation.interval=40", "evaluation.episodes=2")
        call("train", "env=Acrobot-v1", "agents=[fast:ppo,slow:a2c]", "env.num_envs=2", "trainer.timesteps=20", "seed=7",
             "run.dir=outputs/two")  # fmt: skip
        told = summary(Path("outputs/two"))
        told["history"][0]["time"] = "2100-01-01T00:00:00+00:00"  # younger, also where both began in one second
        Path("outputs/two/summary.json").write_text(json.dumps(told))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def runs(trained, here):
    """A copy of it, the current directory."""
    shutil.copytree(trained, here, dirs_exist_ok=True, symlinks=True)
    return here


def listed(*arguments: str) -> list[str]:
    return [run["run"] for run in json.loads(call("runs", *arguments, "json=true").out)]


def test_a_wide_table_has_everything(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    [one] = [path for path in Path("outputs/CartPole-v1/ppo").iterdir()]
    lines = call("runs").out.splitlines()
    heads = ["run", "env", "agents", "backend", "seed", "env steps", "state", "return", "best", "steps/s", "size", "age"]
    assert re.split("  +", lines[0]) == heads
    told, row = summary(one), next(re.split("  +", line) for line in lines if line.startswith(str(one)))
    assert row[:7] == [str(one), "CartPole-v1", "ppo", "torch", "1", "160/160", "finished"]
    agent = told["agents"]["ppo"]
    assert row[7:9] == [f"{agent['episode_return_mean']:.1f}", f"{agent['best']['score']:.1f}"]
    assert row[9] == short(told["env_steps_per_second"])
    assert re.fullmatch(r"\d+ KiB", row[10]) and re.fullmatch(r"\d+ (s|min)", row[11])
    two = next(re.split("  +", line) for line in lines if line.startswith("outputs/two"))
    assert two[1:9] == ["Acrobot-v1", "fast:ppo+slow:a2c", "torch", "7", "40/40", "finished", "-", "-"]
    assert lines[-1] == "2 runs: 2 finished"


@pytest.mark.parametrize("columns", [40, 80, 100, 120, 160])
def test_it_fits(columns, runs, monkeypatch):
    """What the paths tell already is left out first; an id stays whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shutil.rmtree("outputs/two")
    [one] = [path for path in Path("outputs/CartPole-v1/ppo").iterdir()]
    lines = call("runs").out.splitlines()
    assert max(map(len, lines)) <= max(columns, len(str(one)))
    assert sum(line.startswith(str(one)) for line in lines) == 1
    heads = {40: ["env steps", "state", "return"], 80: ["state", "return"], 100: ["env steps", "best", "age", "steps/s"],
             120: ["backend", "size"], 160: ["env", "agents", "seed"]}  # fmt: skip
    assert set(heads[columns]) <= set(re.split("  +", " ".join(lines[:2]) if columns == 40 else lines[0]))
    if columns == 40:  # below the id
        assert lines[2] == str(one) and lines[3].startswith("    ") and "finished" in lines[3]
    assert ("env" in re.split("  +", lines[0])) == (columns == 160)


def test_filters_and_order(runs):
    [one] = map(str, Path("outputs/CartPole-v1/ppo").iterdir())
    assert set(listed()) == {one, "outputs/two"}
    for filters, found in {
        ("env=Cart*",): [one], ("env=CartPole",): [], ("agents=a2c",): ["outputs/two"], ("agents=slow",): ["outputs/two"],
        ("agents=ppo", "seed=7"): ["outputs/two"], ("seed=[1,7]", "sort=seed"): [one, "outputs/two"],
        ("seed=1,7", "sort=-seed"): ["outputs/two", one], ("state=failed,running",): [],
        ("state=fin*", "sort=best"): [one, "outputs/two"],
        ("sort=-best",): [one, "outputs/two"], ("backend=jax",): [],
        ("outputs/two",): ["outputs/two"], ("latest",): ["outputs/two"],
        ("sort=age",): ["outputs/two", one], ("sort=-age",): [one, "outputs/two"],
    }.items():  # fmt: skip
        assert listed(*filters) == found, filters
    with locked(Path(one)):
        assert listed("state=running") == [one]
    for wrong, words in {
        "state=done": ("state=done: no such state; ", "finished"),
        "sort=bset": ("sort=bset: no such order; did you mean 'best'?",),
        "sed=1": ("sed=1: no such option; did you mean 'seed'?",), "json=1": ("json=1: must be true or false",),
        "nowhere": ("nowhere: no such directory",),
    }.items():  # fmt: skip
        assert_one_error(call("runs", wrong), 2, *words)


def test_nothing_to_list(here):
    result = call("runs")
    assert (result.status, result.err) == (0, "") and result.out.startswith("no such run in outputs/; ")
    assert json.loads(call("runs", "json=true").out) == []
    assert not list(here.iterdir())


def test_json_says_more(runs):
    Path("outputs/two/summary.json").write_text(
        '{"exit_reason": "failed: OSError: gone", "agents": {"a": {"episode_return_mean": NaN}}}'
    )
    Path("outputs/two/config.yaml").write_text(":")
    text = call("runs", "outputs/two", "json=true").out
    [run] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (run["state"], run["reason"], run["return"], run["problems"]) == (
        "failed",
        "OSError: gone",
        None,
        ["config.yaml can't be read"],
    )
    assert run["bytes"] > 10_000 and run["started"] <= run["updated"]
    assert "outputs/two: config.yaml can't be read" in call("runs").out


def test_names_that_a_terminal_would_obey(runs):
    os.rename("outputs/two", "outputs/a\x1b[31m\nb")
    lines = call("runs").out.splitlines()
    assert any(line.startswith("outputs/a\\x1b[31m\\nb  ") for line in lines)


def test_a_thousand_runs_take_less_than_two_seconds(runs):
    [one] = Path("outputs/CartPole-v1/ppo").iterdir()
    shutil.rmtree(one / "checkpoints")
    text = (one / "config.yaml").read_text()
    for i in range(1000):
        folder = Path("many", f"{i}_seed-{i}")
        folder.mkdir(parents=True)
        for name in ("summary.json", "metrics.jsonl"):
            os.link(one / name, folder / name)
        (folder / "config.yaml").write_text(text.replace("seed: 1\n", f"seed: {i}\n").replace("0.00025", f"{i + 1}.0e-06"))
    started = time.process_time()
    result = call("runs", "many", "sort=seed")
    assert time.process_time() - started < 2  # of this process's own, whatever else the machine does
    assert len(result.out.splitlines()) == 1003 and result.out.splitlines()[1000].startswith("many/999_seed-999")


def test_numbers_in_few_characters():
    assert [short(n) for n in (0, 950, 999.6, 1000, 82_944, 400_000, 1_250_000, 2.5e9, None)] == [
        "0", "950", "1k", "1k", "82.9k", "400k", "1.25M", "2.5G", "-"
    ]  # fmt: skip
    assert [shown_bytes(n) for n in (0, 4096, 1024**2, 12 * 1024**2, 1.5 * 1024**3)] == [
        "0 KiB",
        "4 KiB",
        "1.0 MiB",
        "12 MiB",
        "1.5 GiB",
    ]
    assert [shown_seconds(s) for s in (-1, 0.4, 59, 60, 3600, 90_000)] == ["0 s", "0 s", "59 s", "1 min", "1 h", "1 d"]
