"""What a person sees while a command works, and Ctrl-C as a polite request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgekd.cli.terminal.output import tell
from edgekd.cli.terminal.stop import StopFlag
from edgekd.errors import printable
from edgekd.events import Events, SilentEvents
from edgekd.progress import steps_on_stderr

__all__ = ["watching"]


class _Quiet(SilentEvents):
    """Listens for Ctrl-C, and tells nothing but notices."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def notice(self, text: str) -> bool:
        """Shown all the same: whose code is about to run."""
        tell(f"{printable(text)}\n")
        return True

    def stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._stop()


@contextmanager
def watching(quiet: bool) -> Iterator[Events]:
    """Events shown as fits where stderr goes, and Ctrl-C listened to."""
    with StopFlag(lambda text: tell(f"{text}\n")) as flag:
        if quiet:
            yield _Quiet(flag)
            return
        with steps_on_stderr(flag) as steps:
            yield steps
