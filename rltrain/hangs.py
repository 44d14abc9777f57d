"""An end for calls that hang in this process: timers of the kernel, as no Python runs while C code holds the interpreter.

A call that takes too long has all stacks written to the run's error.log, or to stderr where there is none, and HangError raised
in it, where Python still runs. If that doesn't end it, the process ends with status 1. faulthandler's one timer stays others'.
"""

import atexit
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from rltrain.errors import ConfigError

LONGEST = 604_800.0  # seconds that a limit may have, a week
GRACE = 1.0  # seconds that a call has to end after HangError
CLOCK_MONOTONIC, SIGEV_THREAD = 1, 2
TELL = getattr(signal, "SIGRTMAX", 64) - 7  # a signal that nobody else uses
DEBUGGERS = {"bdb", "pdb", "ipdb", "pudb", "pydevd", "_pydevd_bundle", "debugpy"}


class HangError(Exception):
    """A call took longer than it may."""


class Limit:
    """`with limit:` around what may take so long, in seconds; not under a debugger. One at a time."""

    def __init__(self, seconds: float, key: str) -> None:
        """`key` names the setting, for messages; raises ConfigError where there are no such timers."""
        self.text = f"no answer in {seconds:g} s ({key})"
        self._soon, self._end = _span(seconds, GRACE * 0.8), _span(seconds + GRACE)
        self._is_over = False
        if not hasattr(_library(), "timer_create"):
            raise ConfigError(key, seconds, "calls in this process can be timed on Linux only; use env.vectorization=async")

    def __enter__(self) -> None:
        """Start counting."""
        global _inside
        if sys.gettrace() is None:
            if not _timers:
                _make_timers()
            _inside = self
            _settime(_timers[0], 0, self._soon, None)
            _settime(_timers[1], 0, self._end, None)

    def __exit__(self, *_: object) -> None:
        """Stop counting."""
        global _inside
        if _inside is not None:
            _stop_counting()
            _inside = None

    def expire(self) -> None:
        """Raise HangError; say on stderr what happens now, if that was done before and ended nothing."""
        if self._is_over:
            with suppress(Exception):
                print(f"error: {self.text}; the call ends in nothing else, its stack is", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(sys.stderr)
        self._is_over = True
        raise HangError(self.text)


_inside: Limit | None = None
_thread = 0  # that made the timers
_timers: list[Any] = []  # one tells and raises, one ends the process
_settime: Any = None
_target: Any = None  # where stacks go: a path, an open file, or None
_file: Any = None  # the same, opened


def write_stacks_to(target: Path | Any | None) -> None:
    """Let the stacks of a call that hangs be written to this file; one that nothing was written to is removed again."""
    global _target, _file
    if _timers:
        faulthandler.unregister(TELL)
    if isinstance(_target, Path) and _file is not None:
        with suppress(OSError):
            if not os.fstat(_file.fileno()).st_size:
                _target.unlink(missing_ok=True)
            _file.close()
    _target, _file = target, None
    if _timers:
        _register()


def name_in_dumps(function: Any, name: str) -> None:
    """Give a function a name that a dump of stacks shows: C code can't ask Python for more."""
    function.__code__ = function.__code__.replace(co_name=name)


def caller(name: str) -> Callable[..., Any]:
    """Return a function of such a name that calls the one it is given."""

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    name_in_dumps(call, name)
    return call


def _expired(number: int, frame: FrameType | None) -> None:
    limit = _inside
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in DEBUGGERS:
            _stop_counting()  # somebody looks at it
            return
        frame = frame.f_back
    if limit is not None and _thread == threading.main_thread().ident:
        limit.expire()


def _make_timers() -> None:
    global _settime, _thread
    library = _library()
    _settime, _thread = library.timer_settime, threading.get_ident()
    if threading.current_thread() is threading.main_thread():
        signal.signal(TELL, _expired)
    end = ctypes.cast(library._exit, ctypes.c_void_p).value
    for what in (_Event(signo=TELL), _Event(value=1, notify=SIGEV_THREAD, function=end)):
        timer = ctypes.c_void_p()
        if library.timer_create(CLOCK_MONOTONIC, ctypes.byref(what), ctypes.byref(timer)):
            raise OSError(ctypes.get_errno(), "timer_create failed")
        _timers.append(timer)
    _register()


def _register() -> None:
    global _file
    with suppress(OSError, AttributeError, ValueError):  # nothing can be written there
        _file = open(_target, "a") if isinstance(_target, Path) else _target or sys.stderr  # noqa: SIM115
        faulthandler.register(TELL, _file, all_threads=True, chain=True)


def _stop_counting() -> None:
    _settime(_timers[0], 0, _NEVER, None)
    _settime(_timers[1], 0, _NEVER, None)


def _library() -> Any:
    return ctypes.PyDLL(None, use_errno=True)  # which keeps the interpreter: a call takes less than to let it go


class _Event(ctypes.Structure):
    """struct sigevent of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("rest", ctypes.c_char * 32),
    )


def _span(seconds: float, again: float = 0.0) -> Any:
    """Return a pointer to struct itimerspec: after so many seconds, 0: never, and again each time so many have passed."""
    return ctypes.byref((ctypes.c_long * 4)(int(again), int(again % 1 * 1e9), int(seconds), int(seconds % 1 * 1e9)))


_NEVER = _span(0.0)


def _forget_timers() -> None:
    """A forked process has none of its parent's timers."""
    global _inside
    _timers.clear()
    _inside = None


os.register_at_fork(after_in_child=_forget_timers)
atexit.register(write_stacks_to, None)
