"""Signals that end a program: they wait until what is under way is saved, then act as if they came only then.

An exception that a signal raises is told apart from one that an environment's or agent's code raises.
"""

import inspect
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from rltrain.errors import Quit, RunError, said

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 138, signal.SIGUSR2: 140}
PRESSING = (signal.SIGINT, signal.SIGTERM)  # one of them after one of them quits at once
ONE = 0.25  # seconds in which two are one: `timeout` and schedulers send it to the process and to its group


class Stoppable(Protocol):
    """What a signal stops: a Run."""

    stop_signal: signal.Signals | None
    at_rest: Callable[[], None] | None  # brings it to its end while it waits between two steps; None: it comes there by itself


_waiting: list[Any] = []  # what is to be stopped, the innermost last; one may be there twice
_previous: dict[signal.Signals, Any] = {}  # the handlers to put back
_unanswered: signal.Signals | None = None  # received, and what would have acted on it hasn't yet
_pressed = math.inf  # when a first INT or TERM came
_quits = False


@contextmanager
def waiting(run: Stoppable) -> Iterator[None]:
    """Turn INT, TERM, HUP, USR1, USR2 into `run.stop_signal`; a second INT or TERM quits at once.

    All that waits is told. In other threads than the main one signals are the caller's to handle.
    """
    global _unanswered, _pressed, _quits
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_first = not _waiting
    if is_first:
        _unanswered, _pressed, _quits = None, math.inf, False
    if not waits(run):
        run.stop_signal = _unanswered  # a run that is begun while another is to stop has nothing to do
    _waiting.append(run)
    try:
        if is_first:
            _install()
        yield
    finally:
        del _waiting[max(place for place, other in enumerate(_waiting) if other is run)]
        if not _waiting:
            _put_back()


def waits(run: Stoppable) -> bool:
    """Tell whether a signal would become this run's `stop_signal`."""
    return any(other is run for other in _waiting)


def answer() -> None:
    """Let a received signal act, once: everything is saved. What waits between two steps is brought to its end first.

    While something is still under way further out, it is that one's to answer.
    """
    if _unanswered is None or any(run.at_rest is None for run in _waiting):
        return
    while _waiting:
        _waiting[-1].at_rest()
    number = _unanswered
    if not call_handler():
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(EXIT_STATUS[number])


def call_handler() -> bool:
    """Call the handler that somebody set for a received signal, once; tell whether there was one."""
    global _unanswered
    number, _unanswered = _unanswered, None
    handler = None if number is None else signal.getsignal(number)
    if number is None or not callable(handler) or not is_foreign(handler):
        return False
    handler(number, inspect.currentframe())
    return True


def _stop(number: int, frame: FrameType | None) -> None:
    global _unanswered, _pressed, _quits
    received = signal.Signals(number)
    if received in PRESSING:
        now = time.monotonic()
        if now > _pressed + ONE:
            _quits = True
            raise Quit if received == signal.SIGINT else SystemExit(EXIT_STATUS[received])
        _pressed = min(now, _pressed)
    _unanswered = received
    for run in _waiting:
        run.stop_signal = received
    if not _waiting:  # another thread ended the last one, and only this one may put handlers back
        _put_back()
        answer()


def _install() -> None:
    for number in EXIT_STATUS:
        handler = signal.getsignal(number)
        if handler is _stop or handler is signal.SIG_IGN or handler is None:  # nohup; a shell's background job; not Python's
            continue
        _previous[number] = handler
        signal.signal(number, _stop)


def _put_back() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # a step trainer that was handed to a thread
    for number, handler in _previous.items():
        if signal.getsignal(number) is _stop:  # else somebody has set another one meanwhile
            signal.signal(number, handler)
    _previous.clear()


# -- signals and errors ----------------------------------------------------------------------------------------------------


def is_foreign(handler: Any) -> bool:
    """Tell whether a signal's handler is somebody's own: neither rltrain's nor the one that comes with Python."""
    ours = str(getattr(handler, "__module__", "")).startswith("rltrain.")
    return callable(handler) and handler is not signal.default_int_handler and not ours


def comes_from_signal(error: BaseException) -> bool:
    """Tell whether an exception may be a signal's, rather than one that the code it was raised in means.

    That code may raise SystemExit and KeyboardInterrupt itself: then they are errors like any other. Handlers of rltrain say so
    when they raise, so while they stand the two can be told apart.
    """
    if isinstance(error, Exception | GeneratorExit) or threading.current_thread() is not threading.main_thread():
        return False
    if _quits or isinstance(error, Quit):
        return True
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    return any(is_foreign(signal.getsignal(number)) for number in EXIT_STATUS)


@contextmanager
def exits_as_errors(where: str = "", kind: type[RunError] = RunError) -> Iterator[None]:
    """Turn SystemExit, KeyboardInterrupt and the like into an error of `kind`, unless they come from a signal."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if comes_from_signal(error):
            raise
        raise kind(f"{where}: {said(error)}" if where else said(error)) from error


@contextmanager
def interrupts_told_apart() -> Iterator[None]:
    """Have INT raise Quit where it would raise Python's KeyboardInterrupt, which an environment might raise too."""

    def quit_at_once(number: int, frame: FrameType | None) -> None:
        raise Quit

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, quit_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
