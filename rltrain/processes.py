"""What a process does so that it never outlives the one that started it, and how it tells signals from errors."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from types import FrameType
from typing import Any

from rltrain.errors import Quit, RunError, said

PR_SET_PDEATHSIG = 1
SAFE_PATH, OURS = "PYTHONSAFEPATH", "rltrain"  # a variable of Python's, and our value of it
LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # sent to the group, they are its to answer
ENDING = (*LEFT_TO_THE_PARENT, signal.SIGUSR2)  # those that programs are ended by


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it ends, where the kernel can (Linux).

    `parent` is the pid that should be the parent's: it may have ended already.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def watch_parent() -> None:
    """End this process, which multiprocessing started, when the one that asked for it ends, whatever it does meanwhile."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextmanager
def known_start_method() -> Iterator[None]:
    """Start processes from within a job of joblib's too, where the default way of starting them is one that only it knows.

    The current directory isn't on their import path, where `-c` and `-m` would put it first, before the parent's comes.
    """
    with without_current_directory(), _own_start_method():
        yield


@contextmanager
def without_current_directory() -> Iterator[None]:
    """Start Python without the current directory first on its import path; the processes call `start_as_usual`."""
    if os.environ.get(SAFE_PATH):
        yield
        return
    os.environ[SAFE_PATH] = OURS
    try:
        yield
    finally:
        start_as_usual()


def start_as_usual() -> None:
    """Start Python as it was from here on: an environment's own programs are its affair."""
    if os.environ.get(SAFE_PATH) == OURS:
        del os.environ[SAFE_PATH]


@contextmanager
def _own_start_method() -> Iterator[None]:
    method = multiprocessing.get_start_method(allow_none=True)
    if method is None or method in multiprocessing.get_all_start_methods():
        yield
        return
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)


def leave_signals_to_parent() -> None:
    """Ignore what a terminal or a cluster sends to the whole group."""
    for number in LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)


def is_foreign(handler: Any) -> bool:
    """Tell whether a signal's handler is somebody's own: neither rltrain's nor the one that comes with Python."""
    ours = str(getattr(handler, "__module__", "")).startswith("rltrain.")
    return callable(handler) and handler is not signal.default_int_handler and not ours


def comes_from_signal(error: BaseException) -> bool:
    """Tell whether an exception may be a signal's, rather than one that the code it was raised in means.

    That code may raise SystemExit and KeyboardInterrupt itself: then they are errors like any other. Handlers of rltrain raise
    nothing but Quit, so while they stand the two can be told apart.
    """
    if isinstance(error, Exception | GeneratorExit) or threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, Quit):
        return True
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    return any(is_foreign(signal.getsignal(number)) for number in ENDING)


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
