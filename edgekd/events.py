"""Events: progress of running work, for the command line, a notebook, or no listener.

Events are not recorded: the run folder is the only truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgekd.errors import Interrupted

__all__ = ["Events", "SilentEvents", "StageProgress", "measuring", "stop_if_asked"]


@dataclass(frozen=True)
class StageProgress:
    """Progress of a stage: shown to the person, never recorded."""

    stage: str
    done: int
    total: int
    note: str = ""


class Events(Protocol):
    """Listener to progress, which may ask to stop."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` steps of a stage are finished; ``total`` 0 where it is unknown."""
        ...

    def budget(self, seconds: float, spent: float) -> None:
        """Report that the run may take ``seconds`` in all, of which ``spent`` are gone."""
        ...

    def line(self, text: str) -> None:
        """Report a line worth keeping on the screen."""
        ...

    def notice(self, text: str) -> bool:
        """Report a line that must be seen, such as whose code is about to run. Returns whether it was shown."""
        ...

    def stop(self) -> bool:
        """True if the person asked to stop: finish the current write, raise Interrupted."""
        ...


class SilentEvents:
    """Events without a listener: nothing is shown, nothing stops."""

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Ignore progress."""

    def budget(self, seconds: float, spent: float) -> None:
        """Ignore the budget."""

    def line(self, text: str) -> None:
        """Ignore the line."""

    def notice(self, text: str) -> bool:
        """Report as a line, where a subclass shows lines; returns whether it does."""
        self.line(text)
        return type(self).line is not SilentEvents.line

    def stop(self) -> bool:
        """Return False: it never stops."""
        return False


def measuring(events: Events) -> Callable[[str, int, int], None]:
    """Progress callback of a device that reports all its steps as one stage: a batch names each process."""
    return lambda what, done, total: events.progress("measuring", done, total, what)


def stop_if_asked(
    events: Events,
    message: str = "stopped; every finished step is kept",
    remedy: str = "go on with: the same command again, with --run and this run's folder",
) -> None:
    """Raise Interrupted if the person asked to stop."""
    if events.stop():
        raise Interrupted(message, remedy)
