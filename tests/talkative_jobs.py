"""Jobs for workers that say something first."""

from typing import Any


class TellsAndFails:
    """Sends two messages, which fill more than one read, and raises at once."""

    def run(self, desk: Any) -> None:
        """Do it."""
        desk.tell("part", b"x" * 200_000)
        desk.tell("row", 8)
        raise ZeroDivisionError("broken")
