"""How work in progress talks to whoever started it: progress, lines worth reading, and the wish to stop."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Events", "SilentEvents"]


class Events(Protocol):
    """Shown to a person, never recorded."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """How far a stage is; ``total`` 0 where that isn't known."""
        ...

    def line(self, text: str) -> None:
        """Something that shouldn't scroll away."""
        ...

    def stop(self) -> bool:
        """Whether the person asked to stop: finish the current write, then raise Interrupted."""
        ...


class SilentEvents:
    """Nobody is watching."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say nothing."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def stop(self) -> bool:
        """Never."""
        return False
