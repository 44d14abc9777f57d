"""What a process does so that it never outlives the one that started it."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection

PR_SET_PDEATHSIG = 1
SAFE_PATH, OURS = "PYTHONSAFEPATH", "rltrain"  # a variable of Python's, and our value of it
LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # sent to the group, they are its to answer
BY_IMPORT = 78  # exit status of a process that found itself starting processes while it imported its parent's script
ONE_SENTENCE = (
    "the script starts processes while it is imported; put what it does under `if __name__ == '__main__':`, as each of them "
    "imports it"
)


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


def refuse_while_importing() -> None:
    """End this process if it is one that imports its parent's script, which starts processes at once."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(BY_IMPORT)


def leave_signals_to_parent() -> None:
    """Ignore what a terminal or a cluster sends to the whole group."""
    for number in LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
