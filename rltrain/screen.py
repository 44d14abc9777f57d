"""What a person sees: progress, tables; a terminal that is gone ends nothing.

Text of environments, checkpoints and configurations reaches a terminal or a log only as `printable` returns it.
"""

import ctypes
import math
import os
import re
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from typing import Any, NamedTuple

from rltrain.errors import StorageError

# what a terminal obeys instead of showing it, but for newline and tab: C0, C1, marks of direction and no width, surrogates
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

SHOWING = threading.RLock()  # one thread at a time shows something


def printable(text: str) -> str:
    """Return a text with control characters written as Python writes them in a repr; newlines and tabs stay."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def fitted(text: str, stream: Any) -> str:
    """Return a text with its lines broken between words where `stream` is a terminal that is too narrow for them.

    A line that begins with a blank, of a traceback or a command to copy, and a word that is too long stay whole.
    """
    try:
        width = int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns) if stream.isatty() else 0
    except (OSError, ValueError, AttributeError):
        return text
    how: dict[str, Any] = {"width": max(width, 20), "break_long_words": False, "break_on_hyphens": False}
    lines = text.split("\n")
    wrap = [width and len(line) > width and not line[:1].isspace() for line in lines]
    return "\n".join(textwrap.fill(line, **how) if wraps else line for line, wraps in zip(lines, wrap, strict=True))


def write_error(text: str) -> None:
    """Print text to stderr; a closed one is not an error."""
    try:
        print(fitted(printable(text), sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    """Return a table for `print_out`; what stands in it is shown as it is, no markup."""
    from rich.table import Table
    from rich.text import Text

    made = Table()
    for column in columns:
        made.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def print_out(*items: Any) -> None:
    """Print text and tables to stdout; a closed one is not an error."""
    try:
        console = _console(sys.stdout)
        for item in items:
            is_text = isinstance(item, str)
            item = fitted(printable(item), sys.stdout) if is_text else item
            console.print(item, markup=False, highlight=False, soft_wrap=is_text)
    except OSError:
        silence(sys.stdout)


def write_out(text: str) -> None:
    """Print what a command is asked for, to stdout.

    Raises StorageError where it has no room; a pipe that nobody reads, or none at all, is not an error.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        raise StorageError(f"stdout: can't be written: {error.strerror}") from None


def open_missing_streams() -> None:
    """Have what a program was started without, as by `>&-`, lead to nowhere.

    Otherwise a file that is opened later would get the number, and be written to by whatever writes to stdout or stderr, in
    this process or in those that it starts.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as the program runs)


def silence(stream: Any) -> None:
    """Send what is still written to a pipe that nobody reads to nowhere: neither now nor at the exit is that an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@cache
def _nowhere() -> Any:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is printed to stdout to stderr, also what C code and processes started now print."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    kept = None
    with suppress(OSError):  # one of them is closed
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError, ValueError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # what C code printed waits for this, or for the exit
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _console(stream: Any) -> Any:
    from rich.console import Console

    def raise_again() -> None:  # rich would end the program
        raise

    console = Console(file=_nowhere() if stream is None else stream)
    console.on_broken_pipe = raise_again  # type: ignore[method-assign]
    return console


class EvaluationProgress(NamedTuple):
    """How an evaluation stands."""

    done: int  # episodes, of those that count
    wanted: int
    longest: int  # steps of the longest that is running
    limit: int | None = None  # where one is cut, if that is known

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.ended()}, {self.running()}"

    def ended(self) -> str:
        """Say how many episodes have ended."""
        return f"evaluation: {self.done:,}/{self.wanted:,} episodes"

    def running(self) -> str:
        """Say how long the longest runs."""
        most = "" if self.limit is None else f" of at most {self.limit:,}"
        return f"longest running {self.longest:,}{most} steps"


class Screen:
    """Progress for a person: a bar on a terminal, plain lines elsewhere, nothing if `enabled` is false."""

    PLAIN_SECONDS = 10.0
    LOOK = 0.2  # seconds
    STILL = 3.0  # seconds without a move after which compiling is told
    RECENT = 5.0  # seconds that the rate shown is a mean of: the warm-up's says nothing of the rest

    def __init__(self, *, enabled: bool | None = None, total: int, copies: int) -> None:
        """`enabled` None: a bar on a terminal, plain lines elsewhere. `total` is in timesteps."""
        self.total, self.copies = total, copies
        self._bar: Any = None
        self._task: Any = None  # of the bar: training
        self._evaluation: Any = None  # another of it
        self._last_print = time.monotonic()
        self._last_bar = 0.0
        self._next_look = 0.0
        self._rate = 0.0  # as last told
        self._return: float | None = None
        self._ended = False  # the last plain line is said
        self._closed: threading.Event | None = None  # where a thread watches
        self._moved = time.monotonic()
        self._timestep = 0
        self._told_compiling = False  # since the last move
        self._marks: deque[tuple[float, int]] = deque()  # (time, timestep) of late
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.plain = enabled is None and not terminal
        self._enabled = enabled if enabled is not None else terminal

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        line = fitted(printable(line), sys.stderr)
        try:
            with SHOWING:
                console = _console(sys.stderr) if self._bar is None else self._bar.console
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        except OSError:
            self._lose()

    def watch(self, is_compiling: Callable[[], bool], timestep: int = 0) -> None:
        """From a thread, say that a program is compiled, and for how long, as long as nothing else moves."""
        if not self._enabled and not self.plain:
            return
        closed = self._closed = threading.Event()
        self._moved, self._timestep = time.monotonic(), timestep

        def look() -> None:
            while not closed.wait(min(1.0, self.STILL)):
                with SHOWING:
                    seconds = time.monotonic() - self._moved
                    if seconds >= self.STILL and not closed.is_set() and is_compiling():
                        self._show_compiling(seconds)

        threading.Thread(target=look, name="rltrain-screen", daemon=True).start()

    def _show_compiling(self, seconds: float) -> None:
        line = f"compiling, {seconds:.0f} s"
        try:
            if self._enabled:
                self._open_task()
                self._bar.update(self._task, rate=line)
                self._bar.refresh()
            elif self.plain and (not self._told_compiling or time.monotonic() - self._last_print > self.PLAIN_SECONDS):
                self._last_print = time.monotonic()
                self.say(line)
        except OSError:
            self._lose()
        self._told_compiling = True

    def is_due(self) -> bool:
        """Tell whether what stands there is old; takes a tenth of a microsecond."""
        return time.monotonic() > self._next_look

    def update(self, timestep: int, env_steps_per_second: float, episode_return: float | None) -> None:
        """Show where the run stands; cheap enough to be called for every row of metrics."""
        self._rate, self._return = env_steps_per_second, episode_return
        self.move(timestep, is_row=True)

    def move(self, timestep: int, *, is_row: bool = False) -> None:
        """Show where the run stands, also between rows of metrics; the last plain line comes with the last row, once."""
        with SHOWING:
            self._timestep = timestep
            self._move(timestep, is_row)

    def _move(self, timestep: int, is_row: bool) -> None:
        now = self._moved = time.monotonic()
        self._told_compiling = False
        self._next_look = now + self.LOOK if self._enabled or self.plain else math.inf
        env_steps_per_second, episode_return = self._recent_rate(now, timestep), self._return
        try:
            if self._enabled:
                self._open_task()
                if now - self._last_bar > 0.1 or timestep >= self.total:
                    self._last_bar = now
                    self._bar.update(
                        self._task, completed=timestep, **self._fields(timestep, env_steps_per_second, episode_return)
                    )
                    self._bar.refresh()
            elif self.plain and not self._ended:
                self._ended = timestep >= self.total and is_row
                if self._ended or (now - self._last_print > self.PLAIN_SECONDS and timestep < self.total):
                    self._last_print = now
                    self._say_plainly(timestep, env_steps_per_second, episode_return)
        except OSError:
            self._lose()

    def _say_plainly(self, timestep: int, rate: float, episode_return: float | None) -> None:
        fields = self._fields(timestep, rate, episode_return)
        parts = [fields["at"], fields["steps"], fields["rate"], fields["score"]]
        parts += [f"{(self.total - timestep) * self.copies / rate:.0f} s left"] if rate > 0 else []
        self.say(", ".join(part for part in parts if part))

    def show_evaluation(self, progress: EvaluationProgress | None) -> None:
        """Show how an evaluation stands; None: it is over."""
        with SHOWING:
            self._moved = time.monotonic()
            self._show_evaluation(progress)

    def _show_evaluation(self, progress: EvaluationProgress | None) -> None:
        try:
            if progress is None:
                if self._evaluation is not None:
                    self._bar.remove_task(self._evaluation)
                    self._bar.refresh()
                self._evaluation = None
                return
            if self._enabled:
                self._open_bar()
                fields = {"completed": progress.done, "at": progress.ended(), "rate": progress.running(), "score": ""}
                if self._evaluation is None:
                    self._evaluation = self._bar.add_task("", total=progress.wanted, **fields)
                self._bar.update(self._evaluation, **fields)
                self._bar.refresh()
            elif self.plain and time.monotonic() - self._last_print > self.PLAIN_SECONDS:
                self._last_print = time.monotonic()
                self.say(str(progress))
        except OSError:
            self._lose()

    def _recent_rate(self, now: float, timestep: int) -> float:
        """Return env steps per second of late; in the first second, those that were told."""
        self._marks.append((now, timestep))
        while len(self._marks) > 2 and self._marks[1][0] < now - self.RECENT:
            self._marks.popleft()
        since, first = self._marks[0]
        return (timestep - first) * self.copies / (now - since) if now - since > 1 else self._rate

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        if self._closed is not None:
            self._closed.set()
            self._closed = None
        with SHOWING:
            if self._bar is not None:
                try:
                    self._bar.stop()
                except OSError:
                    self._lose()
                self._bar = self._task = self._evaluation = None

    def _lose(self) -> None:
        """The terminal is gone: the run goes on."""
        self._enabled = self.plain = False
        silence(sys.stderr)

    def _fields(self, timestep: int, rate: float, episode_return: float | None) -> dict[str, str]:
        score = "return -" if episode_return is None else f"return {episode_return:.1f}"
        return {
            "at": f"{timestep:,}/{self.total:,} timesteps",
            "steps": f"{timestep * self.copies:,} env steps",
            "rate": f"{rate:,.0f} env steps/s" if rate > 0 else "",
            "score": score,
        }

    def _open_task(self) -> None:
        if self._task is None:
            self._open_bar()
            fields = self._fields(self._timestep, 0.0, None)
            self._task = self._bar.add_task("", total=self.total, completed=self._timestep, **fields)

    def _open_bar(self) -> None:
        if self._bar is not None:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns: Iterable[Any] = (
            BarColumn(bar_width=None),
            TextColumn("{task.fields[at]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[score]}"),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Progress(
            *columns, console=_console(sys.stderr), auto_refresh=False, expand=True, speed_estimate_period=self.RECENT
        )
        self._bar.start()
