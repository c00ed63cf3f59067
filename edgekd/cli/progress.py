"""Progress on stderr: bars with time left on a terminal, one plain line a step in a pipe, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from edgekd.cli.output import tell
from edgekd.cli.stop import StopFlag

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgekd.events import Events

__all__ = ["Bars", "PlainSteps", "Quiet", "watching"]

_EVERY_S = 2.0


class Quiet:
    """Only listens for Ctrl-C."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say nothing."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._stop()


class PlainSteps(Quiet):
    """A line a step, at most one in two seconds within a stage; its last step is always told."""

    def __init__(self, stop: Callable[[], bool], stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stop)
        self._stream, self._clock = stream, clock
        self._stage, self._told, self._at = "", -1, 0.0

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tell a step."""
        now = self._clock()
        if stage == self._stage and (done == self._told or (done < total and now - self._at < _EVERY_S)):
            return
        self._stage, self._told, self._at = stage, done, now
        count = f"{done}/{total}" if total else f"{done}"
        self.line("  ".join(part for part in (stage, count, note) if part))

    def line(self, text: str) -> None:
        """Tell a line. Where nobody listens any more, the work goes on in silence."""
        with suppress(BrokenPipeError):
            self._stream.write(f"{text}\n")
            self._stream.flush()


class Bars(Quiet):
    """A bar a stage."""

    def __init__(self, stop: Callable[[], bool], bars: Progress) -> None:
        super().__init__(stop)
        self._bars = bars
        self._known: dict[str, TaskID] = {}

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Move a stage's bar."""
        if stage not in self._known:
            self._known[stage] = self._bars.add_task(stage, total=total or None, note="")
        self._bars.update(self._known[stage], completed=done, total=total or None, note=note)

    def line(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


@contextmanager
def watching(quiet: bool) -> Iterator[Events]:
    """Events shown as fits where stderr goes, and Ctrl-C listened to."""
    if not quiet and sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bars, StopFlag(lambda text: console.print(escape(text))) as flag:
            yield Bars(flag, bars)
        return

    with StopFlag(lambda text: tell(f"{text}\n")) as flag:
        yield Quiet(flag) if quiet else PlainSteps(flag, sys.stderr)
