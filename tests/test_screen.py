"""The screen: when it moves and what it shows; control characters of foreign text reach neither it nor a log."""

import shutil
import sys
import threading
import time
import unicodedata

import pytest
from command_line import Result, call, merged
from forgery import edit_config, edit_manifest

from rltrain.checkpoints import CheckpointStore
from rltrain.screen import EvaluationProgress, Screen, print_out, printable, table, write_error

RUDE = (
    "seed=1", "env=rude_envs:Rude-v0", "env.num_envs=2", "trainer.timesteps=20", "run.dir=run", "tracking.tensorboard=false",
)  # fmt: skip


def test_the_screen_moves_by_time_and_shows_the_rate_of_late(monkeypatch, capsys):
    """100 timesteps of 2 copies in the 8 s before the line: 25 env steps per second; the run's mean is another."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(total=1000, copies=2)
    for seconds, timestep in ((0.5, 100), (3.0, 300), (11.0, 400)):
        now[0] = seconds
        assert screen.is_due()
        screen.move(timestep) if timestep > 100 else screen.update(timestep, 999.0, 7.0)
        assert not screen.is_due()
    assert capsys.readouterr().err == "400/1,000 timesteps, 800 env steps, 25 env steps/s, return 7.0, 48 s left\n"


def test_plain_lines_leave_out_what_is_not_known_and_the_last_comes_once(monkeypatch, capsys):
    """No rate, no seconds left; movements at the end wait for the last row, which has the return."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(total=1000, copies=8)
    now[0] = 11.0
    screen.move(0)
    screen.move(1000)
    screen.update(1000, 500.0, 7.0)
    for _ in range(3):
        now[0] += 11
        screen.move(1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0/1,000 timesteps, 0 env steps, return -"
    assert len(lines) == 2 and lines[1].startswith("1,000/1,000 timesteps, 8,000 env steps, ") and "return 7.0" in lines[1]


@pytest.mark.parametrize("terminal", [True, False])
def test_compiling_is_told_while_nothing_moves(terminal, monkeypatch, capsys):
    """Not while something moves, not once it is over, not after the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(Screen, "STILL", 0.05)
    compiling = threading.Event()
    screen, shown = Screen(total=10, copies=1), ""
    screen.watch(compiling.is_set, timestep=3)
    time.sleep(0.15)
    assert "compiling" not in capsys.readouterr().err
    compiling.set()
    end = time.monotonic() + 10
    while "compiling, 0 s" not in shown and time.monotonic() < end:
        time.sleep(0.02)
        shown += capsys.readouterr().err
    assert "compiling, 0 s" in shown and ("3/10 timesteps" in shown) == terminal
    compiling.clear()
    screen.update(10, 100.0, 1.0)
    screen.close()
    compiling.set()
    capsys.readouterr()
    time.sleep(0.15)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_long_lines_break_between_words_on_a_terminal_only(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    sentence = "no such key; did you mean 'learning_rate'? top level has seed, env, agents and more"
    lines = (sentence, "  rltrain train resume=" + "x" * 50, "/a/" + "long-path/" * 8)
    write_error("\n".join(lines))
    Screen(total=1, copies=1).say(sentence)
    print_out(sentence)
    shown = capsys.readouterr()
    for text in (shown.err, shown.out):
        assert " ".join(text.split()).count(sentence) == text.count("no such key")
        assert all(len(line) <= 40 or line in lines[1:] for line in text.splitlines()) == terminal
    assert lines[1] in shown.err and lines[2] in shown.err


def test_a_screen_that_shows_nothing_is_never_due():
    screen = Screen(enabled=False, total=10, copies=1)
    screen.update(5, 1.0, None)
    assert not screen.is_due()


def test_an_evaluation_has_a_bar_of_its_own_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    screen = Screen(total=1000, copies=2)
    screen.update(100, 999.0, 7.0)
    screen.show_evaluation(EvaluationProgress(3, 10, 45_123, 100_000))
    shown = capsys.readouterr().err
    assert "evaluation: 3/10 episodes" in shown and "longest running 45,123 of at most 100,000 steps" in shown
    screen.show_evaluation(None)
    capsys.readouterr()
    screen.move(1000)
    screen.close()
    shown = capsys.readouterr().err
    assert "1,000/1,000 timesteps" in shown and "evaluation" not in shown


def assert_tame(*texts: str) -> None:
    """Newlines and tabs aside, nothing in the texts is for a terminal to obey."""
    for text in texts:
        assert not [char for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")], text


def test_control_characters_are_shown_as_python_writes_them():
    assert printable("\x1b[31mred\x1b]8;;http://x\x07 \x9b0m\x7f \u202eexe\u2069\u2028\udc80\U000e0041") == (
        r"\x1b[31mred\x1b]8;;http://x\x07 \x9b0m\x7f \u202eexe\u2069\u2028\udc80\U000e0041"
    )
    assert printable("10 %\rdone\r\n\tat\n") == "10 %\\rdone\n\tat\n"
    assert printable("größer 日本語 \N{ZERO WIDTH JOINER} 👍🏽") == "größer 日本語 \N{ZERO WIDTH JOINER} 👍🏽"


def test_text_and_tables_on_the_screen(capsys):
    rude = "a\x1b[2Jb [bold]c [/red]"
    print_out(rude, table([rude, "x"], [[rude, "1"]]))
    Screen(total=1, copies=1).say(rude)
    shown = capsys.readouterr()
    assert_tame(shown.out, shown.err)
    assert shown.out.count("a\\x1b[2Jb [bold]c [/red]") == 3 and shown.err == "a\\x1b[2Jb [bold]c [/red]\n"


@pytest.mark.parametrize(("phase", "how"), [("make", "sync"), ("step", "async")])
def test_an_environments_error(phase, how, here, zygote):
    result = zygote.run("train", *RUDE, f"env.kwargs.fail_in={phase}", f"env.vectorization={how}")
    assert result.status == 1 and r"\x1b[2J\x1b]0;title\x07" in result.err and "after\n" in result.err
    logs = [file.read_text() for file in (here / "run").glob("*.log")]
    assert phase == "make" or len(logs) == 2
    assert_tame(result.out, result.err, *logs)


def test_a_jobs_error(here, zygote):
    result = zygote.run("train", "-m", *merged(RUDE[:-2], ()), "env.kwargs.fail_in=step", "hydra.sweep.dir=sweep")
    assert result.status == 1 and r"\x1b[2J" in result.err
    assert_tame(result.out, result.err, *(file.read_text() for file in (here / "sweep").rglob("*.log")))


def test_names_of_members(here):
    team = (
        "seed=1",
        "env=pettingzoo",
        "env.id=rude_envs:team",
        "agents=ippo",
        "env.num_envs=2",
        "trainer.timesteps=20",
        "run.dir=run",
    )
    shown: list[Result] = [call("train", *team), call("eval", "run", "episodes=2")]
    assert [result.status for result in shown] == [0, 0], shown
    assert r"mean of \x1b[31mred" in shown[1].out and r"mean of [bold]b\u202e" in shown[1].out
    assert_tame(*(result.text for result in shown))


def test_text_in_a_checkpoint_and_a_configuration(here, trained):
    shutil.copytree(trained, here / "run")
    latest = CheckpointStore(here / "run/checkpoints").pointer("latest")
    edit_manifest(latest, lambda manifest: manifest.update(timestep="\x1b[2J\u202e", backend="\x1b[2J"))
    shown = [call("checkpoint", "verify", "run"), call("checkpoint", "show", "run")]
    assert [result.status for result in shown] == [0, 0]
    edit_manifest(latest, lambda manifest: manifest["files"].update({"../\x1b[2J": {}}))
    shown += [call("checkpoint", "verify", "run"), call("eval", "run")]
    edit_manifest(latest, lambda manifest: manifest["files"].pop("../\x1b[2J"))
    edit_config(latest, lambda cfg: cfg["env"].update(id="\x1b[2J\u202e-v0"))
    shown += [call("eval", "run"), call("train", "--cfg", "job", "env.kwargs.text='\u202e'"), call("train", "seed=\x1b[2J\u202e")]
    assert [result.status for result in shown[2:]] == [3, 3, 2, 0, 2], shown
    assert_tame(*(result.text for result in shown))
