"""The workers as their parent sees them: started, watched and ended together; a fault of one ends all."""

import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rltrain.confidential import known
from rltrain.errors import EnvironmentFailure, NonFiniteError, RltrainError, RunError
from rltrain.processes import BY_IMPORT, ONE_SENTENCE, known_start_method
from rltrain.trainers.workers.channel import Channel
from rltrain.trainers.workers.process import Report, run
from rltrain.trainers.workers.shared import CONTEXT, WAIT, Pulse, Stacks

MAKING = 120.0  # seconds that a worker has at least to import what it needs and to make its agent
LOOK = 0.1  # seconds between looks for signs of life
LONGEST_LOOK = 1.0  # seconds: a parent that was busy or asleep itself doesn't count the whole time against its workers


class WorkerError(RunError):
    """A worker raised, ended or hangs."""


class WorkerTraceback(Exception):
    """A worker's own traceback, as text."""

    def __str__(self) -> str:
        """Show it as it stood in the worker."""
        return f"\n\n{self.args[0]}"


class Crew:
    """A process per agent, direct children. Leaving the context ends whatever still runs."""

    def __init__(self, names: Sequence[str], timeout: float) -> None:
        self.names, self.timeout = list(names), timeout
        self.pulse = Pulse(len(names))
        self._stacks = [Stacks() for _ in names]
        self._processes: list[Any] = []
        self.channels: list[Channel] = []
        self._poll = select.poll()
        self._by_descriptor: dict[int, int] = {}
        self._beats = [-1] * len(names)
        self._silence = [0.0] * len(names)
        self._looked = time.monotonic()
        self._failed: RltrainError | None = None
        self._done: set[int] = set()  # workers that have told all and only close what they have

    def __enter__(self) -> "Crew":
        """Return the crew."""
        return self

    def __exit__(self, *_: object) -> None:
        """End whatever still runs."""
        self.end()

    def start(self, jobs: Sequence[bytes], extra: Any = None) -> None:
        """Start a worker per pickled job; `extra` is more shared memory for all of them."""
        for index in range(len(jobs)):
            ours, theirs = socket.socketpair()
            with theirs:
                arguments = (index, theirs, self.pulse, self._stacks[index], os.getpid(), known(), extra)
                process = CONTEXT.Process(target=run, args=arguments, name=f"rltrain-{self.names[index]}")
                self.channels.append(Channel(ours))
                with known_start_method():
                    process.start()
            self._processes.append(process)
            for descriptor in (ours.fileno(), process.sentinel):
                self._by_descriptor[descriptor] = index
                self._poll.register(descriptor, select.POLLIN)
        for index, job in enumerate(jobs):
            try:
                self.channels[index].send_bytes(job, self._patience(index))
            except TimeoutError:
                raise self._hang(index) from None
            except OSError:
                raise self._death(index) from None
        self._looked = time.monotonic()

    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        """Return the messages that come within `seconds`, with the number of who sent them.

        Raises the failure of a worker that raised, ended or hangs; what had been sent until then is returned first, as a
        checkpoint may be whole with it. One that had sent "done" has nothing left to lose: its failure comes as its last
        message, ("closed", error), and the others go on.
        """
        if self._failed:
            raise self._failed
        messages: list[tuple[int, Any]] = []
        for descriptor, _ in self._poll.poll(seconds * 1000):
            index = self._by_descriptor.get(descriptor)
            if index is None:
                continue
            found = self._read(index)
            messages += found
            if not found and (self.channels[index].closed or descriptor == self._processes[index].sentinel):
                messages += [] if self._failed else self._note(index, self._death(index))
        if self._failed:
            for index in set(self._by_descriptor.values()):
                messages += self._read(index)
            if not messages:
                raise self._failed
        elif time.monotonic() - self._looked > LOOK:
            messages += self._find_silent()
        return messages

    def _read(self, index: int) -> list[tuple[int, Any]]:
        """Return what a worker has sent; an error among it is kept."""
        messages: list[tuple[int, Any]] = []
        for message in self.channels[index].read_available():
            kind = message[0] if isinstance(message, tuple) else ""
            if kind == "error":
                messages += self._note(index, self._failure(index, message[1]))
                continue
            messages.append((index, message))
            if kind == "done":
                self._done.add(index)
            elif kind == "closed":
                self._dismiss(index)
        return messages

    def _note(self, index: int, error: RltrainError) -> list[tuple[int, Any]]:
        """Keep a worker's failure to be raised; that of one that was done is told as its last message instead."""
        if index in self._done:
            self._dismiss(index)
            return [(index, ("closed", error))]
        self._failed = self._failed or error
        return []

    def send(self, index: int, message: Any) -> None:
        """Send a message to a worker that waits for one."""
        if self._failed:
            raise self._failed
        try:
            self.channels[index].send(message, self.timeout)
        except TimeoutError:
            raise self._hang(index) from None
        except OSError:
            raise self._death(index) from None

    def wake_all(self, tick: float) -> None:
        """Send every worker a wake-up and wait until all have answered; look every `tick` seconds whether they still live."""
        for index, channel in enumerate(self.channels):
            try:
                channel.wake_up()
            except OSError:
                raise self._death(index) from None
        missing = len(self.channels)
        while missing:
            missing -= len(self.wait(tick))

    def _dismiss(self, index: int) -> None:
        """Take a worker's end as no fault from now on."""
        for descriptor, owner in list(self._by_descriptor.items()):
            if owner == index:
                self._poll.unregister(descriptor)
                del self._by_descriptor[descriptor]

    def end(self) -> None:
        """End every process and close every connection; nothing is left of a worker afterwards."""
        for process in self._processes:
            with suppress(OSError, ValueError):
                process.kill()
        for process in self._processes:
            with suppress(OSError, ValueError):
                process.join(5.0)
                process.close()
        for channel in self.channels:
            channel.close()
        for stacks in self._stacks:
            stacks.file.close()
        self._processes, self.channels, self._stacks = [], [], []

    # -- faults --------------------------------------------------------------------------------------------------------

    def _find_silent(self) -> list[tuple[int, Any]]:
        """Raise for a worker that gave no sign of life for too long, though it waits for nobody; tell of one that was done."""
        messages: list[tuple[int, Any]] = []
        now = time.monotonic()
        look, self._looked = min(now - self._looked, LONGEST_LOOK), now
        for index in set(self._by_descriptor.values()):
            beat = self.pulse.beat(index)
            silent = beat == self._beats[index] and self.pulse.phase(index) != WAIT
            self._silence[index] = self._silence[index] + look if silent else 0.0
            self._beats[index] = beat
            if self._silence[index] > self._patience(index):
                messages += self._note(index, self._hang(index))
                if self._failed:
                    raise self._failed
        return messages

    def _patience(self, index: int) -> float:
        """Return how long a worker may be silent: importing and making things takes a busy machine its time."""
        return max(self.timeout, MAKING) if self.pulse.phase(index) in ("start", "make") else self.timeout

    def _where(self, index: int) -> str:
        return f"agents.{self.names[index]}: {self.pulse.phase(index)}, timestep {self.pulse.timestep(index)}"

    def _failure(self, index: int, report: Report) -> RltrainError:
        """Return the error to raise for an exception in a worker, its traceback as the cause."""
        name = f"agents.{self.names[index]}"
        error: RltrainError = WorkerError(f"{name}: {report.phase}, timestep {report.timestep}: {report.kind}: {report.text}")
        if isinstance(report.error, EnvironmentFailure | NonFiniteError | RunError):
            text = str(report.error)
            error = type(report.error)(text if text.startswith(name) else f"{name}: {text}")
        elif report.error is not None:
            error = report.error
        error.__cause__ = WorkerTraceback(report.trace)
        return error

    def _death(self, index: int) -> RltrainError:
        """Return the error for a worker that ended without a word."""
        process = self._processes[index]
        process.join(2.0)  # a dying process closes its socket just before it ends
        code = process.exitcode
        if code == BY_IMPORT:
            return RunError(ONE_SENTENCE)
        how = f"exit status {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                how = f"killed by {signal.Signals(-code).name}"
        error = WorkerError(f"{self._where(index)}: its worker ended ({how})")
        stack = self._stacks[index].read()
        if stack:
            error.__cause__ = WorkerTraceback(stack)
        return error

    def _hang(self, index: int) -> RltrainError:
        """Return the error for a worker that hangs, with its stack if it still tells it."""
        where, stacks = self._where(index), self._stacks[index]
        with suppress(OSError, AttributeError):
            os.kill(self._processes[index].pid, signal.SIGUSR2)
            deadline = time.monotonic() + 1.0
            while not stacks.read() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)  # it may still be writing
        error = WorkerError(f"{where}: its worker gave no sign of life for {self._patience(index):g} s (trainer.worker_timeout)")
        error.__cause__ = WorkerTraceback(stacks.read() or "(it doesn't say where: the process is stopped or in the kernel)")
        return error
