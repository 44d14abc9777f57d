"""A worker's process: how it starts, what it does with faults, how it ends."""

import faulthandler
import os
import signal
import socket
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from rltrain.confidential import learn
from rltrain.errors import RltrainError, portable
from rltrain.hangs import write_stacks_to
from rltrain.processes import end_with_parent, leave_signals_to_parent, start_as_usual, watch_parent
from rltrain.trainers.workers.channel import Channel
from rltrain.trainers.workers.shared import Pulse, Stacks


@dataclass
class Desk:
    """What a worker has at hand: its number, the line to the parent, the shared memory."""

    index: int
    channel: Channel
    pulse: Pulse
    extra: Any = None  # more shared memory, of the kind of job

    def enter(self, phase: str) -> None:
        """Say what comes now."""
        self.pulse.enter(self.index, phase)

    def tell(self, kind: str, *content: Any) -> None:
        """Send a message to the parent."""
        before = self.pulse.phase(self.index)
        self.enter("send")
        self.channel.send((kind, *content))
        self.enter(before)

    def ask(self, kind: str, *content: Any) -> Any:
        """Send a message to the parent and wait for the answer."""
        before = self.pulse.phase(self.index)
        self.enter("send")
        self.channel.send((kind, *content))
        self.enter("wait")
        answer = self.channel.receive()
        self.enter(before)
        return answer


class Job(Protocol):
    """What a worker does; travels pickled."""

    def run(self, desk: Desk) -> None:
        """Do it."""


@dataclass
class Report:
    """What a worker says of the exception that ended it."""

    phase: str
    timestep: int
    kind: str
    text: str
    trace: str
    error: RltrainError | None  # where it is one of ours, and travels


def run(index: int, end: socket.socket, pulse: Pulse, stacks: Stacks, parent: int, secrets: Sequence[str], extra: Any) -> None:
    """Run one worker: the function that its process is started with."""
    learn(secrets)
    leave_signals_to_parent()
    start_as_usual()
    end_with_parent(parent)
    watch_parent()  # also where the kernel doesn't see to it
    faulthandler.enable(stacks.file)
    write_stacks_to(stacks.file)
    with suppress(AttributeError):
        faulthandler.register(signal.SIGUSR2, stacks.file)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # each worker's JAX would take most of a GPU for itself
    desk = Desk(index, Channel(end), pulse, extra)
    status = 0
    try:
        desk.enter("make")
        job: Job = desk.channel.receive()
        job.run(desk)
    except EOFError:
        status = 1  # the parent is gone
    except BaseException as error:
        status = 1
        with suppress(OSError):
            desk.channel.send(("error", _report(desk, error)))
    os._exit(status)  # libraries take seconds to tear down what the kernel frees at once


def _report(desk: Desk, error: BaseException) -> Report:
    phase, timestep = desk.pulse.phase(desk.index), desk.pulse.timestep(desk.index)
    trace = "".join(traceback.format_exception(error))
    return Report(phase, timestep, type(error).__name__, str(error), trace, portable(error))
