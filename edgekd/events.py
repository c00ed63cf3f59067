"""What happens while something runs, told to whoever watches: the command line, a notebook, nobody.

Nothing told here is recorded: the run folder is the only truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgekd.errors import Interrupted

__all__ = ["Events", "SilentEvents", "StageProgress", "measuring", "stop_if_asked"]


@dataclass(frozen=True)
class StageProgress:
    """Where a stage is: shown to the person, never recorded."""

    stage: str
    done: int
    total: int
    note: str = ""


class Events(Protocol):
    """Somebody who watches, and may ask to stop."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` steps of a stage are finished; ``total`` 0 where nobody knows it."""
        ...

    def budget(self, seconds: float, spent: float) -> None:
        """The run may take ``seconds`` in all, and ``spent`` of them are gone."""
        ...

    def line(self, text: str) -> None:
        """One line worth keeping on the screen."""
        ...

    def notice(self, text: str) -> bool:
        """One line that must be seen, as whose code is about to run. Whether it was shown."""
        ...

    def stop(self) -> bool:
        """Whether the person asked to stop: finish the current write, raise Interrupted."""
        ...


class SilentEvents:
    """Nobody watches, and nobody stops."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say nothing."""

    def budget(self, seconds: float, spent: float) -> None:
        """Say nothing."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def notice(self, text: str) -> bool:
        """As a line, where a class has one of its own; else nobody sees it."""
        self.line(text)
        return type(self).line is not SilentEvents.line

    def stop(self) -> bool:
        """Never."""
        return False


def measuring(events: Events) -> Callable[[str, int, int], None]:
    """Tells a device's steps as those of one stage: a batch names each process, which are no stages of their own."""
    return lambda what, done, total: events.progress("measuring", done, total, what)


def stop_if_asked(
    events: Events,
    message: str = "stopped; every finished step is kept",
    remedy: str = "go on with: the same command again, with --run and this run's folder",
) -> None:
    """Raises Interrupted when the person asked to stop."""
    if events.stop():
        raise Interrupted(message, remedy)
