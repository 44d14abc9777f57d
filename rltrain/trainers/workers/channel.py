"""What parent and worker say to each other: frames over a socket, a length and then that many bytes of pickle.

Neither side ever waits for half a frame of a process that was stopped: the parent only reads what is there. A frame of length 0
is a wake-up: what it is about stands in shared memory.
"""

import pickle
import select
import socket
import time
from typing import Any

WAKE_UP = b"\0" * 8
CHUNK = 2**16  # bytes read at once: memory for more would be mapped and unmapped at each read


class Channel:
    """One end of a connection between two processes that trust each other."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self.closed = False

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._socket.fileno()

    def wake_up(self) -> None:
        """Send a frame without content."""
        self._socket.sendall(WAKE_UP)

    def send(self, message: Any, seconds: float | None = None) -> None:
        """Send a message.

        Raises TimeoutError if it wasn't taken within `seconds`.
        """
        self.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL), seconds)

    def send_bytes(self, payload: bytes, seconds: float | None = None) -> None:
        """Send a message that is pickled already."""
        rest = memoryview(len(payload).to_bytes(8, "big") + payload)
        if seconds is None:
            self._socket.sendall(rest)
            return
        deadline = time.monotonic() + seconds
        while rest:
            if not select.select((), (self._socket,), (), max(0.0, deadline - time.monotonic()))[1]:
                raise TimeoutError("not taken")
            rest = rest[self._socket.send(rest[:CHUNK], socket.MSG_DONTWAIT) :]

    def read_available(self) -> list[Any]:
        """Return the messages that have come in full, None for a wake-up; never waits. `closed` is set at the end."""
        while not self.closed:
            try:
                data = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            self.closed = not data
            self._buffer += data
            if len(data) < CHUNK:
                break
        messages: list[Any] = []
        while (frame := self._take_frame()) is not None:
            messages.append(pickle.loads(frame) if frame else None)
        return messages

    def receive(self) -> Any:
        """Wait for a message and return it, None for a wake-up.

        Raises EOFError if the other end is closed.
        """
        while (frame := self._take_frame()) is None:
            data = self._socket.recv(CHUNK)
            if not data:
                raise EOFError
            self._buffer += data
        return pickle.loads(frame) if frame else None

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self._socket.close()

    def _take_frame(self) -> bytes | None:
        if len(self._buffer) < 8:
            return None
        end = 8 + int.from_bytes(self._buffer[:8], "big")
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[8:end])
        del self._buffer[:end]
        return frame
