"""Progress display of a command, and Ctrl-C as a polite request."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from edgekd.cli.terminal.output import write_stderr
from edgekd.cli.terminal.stop import StopFlag
from edgekd.errors import printable
from edgekd.events import Events, SilentEvents
from edgekd.progress import steps_on_stderr

__all__ = ["watching"]


class _Quiet(SilentEvents):
    """Events that show notices only, and listen for Ctrl-C."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def notice(self, text: str) -> bool:
        """Show the notice all the same: whose code is about to run."""
        write_stderr(f"{printable(text)}\n")
        return True

    def stop(self) -> bool:
        """True if Ctrl-C was pressed."""
        return self._stop()


def _say_at_once(text: str) -> None:
    """Write a line to stderr from a signal handler, which may have come in the middle of another write."""
    try:
        write_stderr(f"{text}\n")
    except RuntimeError:  # Python refuses to enter a buffered stream again
        with suppress(BrokenPipeError):
            os.write(sys.stderr.fileno(), f"{text}\n".encode())


@contextmanager
def watching(quiet: bool) -> Iterator[Events]:
    """Events shown in stderr's manner, with Ctrl-C as a request to stop."""
    with StopFlag(_say_at_once) as flag:
        if quiet:
            yield _Quiet(flag)
            return
        with steps_on_stderr(flag) as steps:
            yield steps
