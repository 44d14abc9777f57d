"""The screen: when it moves and what it shows."""

import sys

from rltrain.screen import EvaluationProgress, Screen


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
