"""Progress on stderr: two bars on a terminal (time budget, present step), plain lines in a pipe, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from edgekd.events import Events, SilentEvents
from edgekd.wrapping import wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Bars", "PlainSteps", "shown", "steps_on_stderr"]

_EVERY_S = 2.0
_BAR = 14
_COUNTED = 1000  # larger totals count samples or bytes: a share is clearer, and leaves room for the note


def _never() -> bool:
    return False


class PlainSteps(SilentEvents):
    """Progress as lines: one a step, at most one in two seconds within a stage; its last step is always shown."""

    def __init__(self, stop: Callable[[], bool], stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stop, self._stream, self._clock = stop, stream, clock
        self._stage, self._shown_step, self._at = "", -1, 0.0

    def stop(self) -> bool:
        """True if the person asked to stop."""
        return self._stop()

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Print a step."""
        now = self._clock()
        if stage == self._stage and (done == self._shown_step or (done < total and now - self._at < _EVERY_S)):
            return
        self._stage, self._shown_step, self._at = stage, done, now
        count = f"{done}/{total}" if total else f"{done}"
        self.line("  ".join(part for part in (stage, count, note) if part))

    def line(self, text: str) -> None:
        """Print a line. Where the stream was closed, the work goes on in silence."""
        with suppress(BrokenPipeError):
            self._stream.write(f"{text}\n")
            self._stream.flush()


@dataclass(frozen=True)
class _Step:
    """Present and first observed step of a stage: its speed is computed from the two."""

    stage: str
    done: int
    total: int
    note: str
    first: int
    since: float


class Bars(SilentEvents):
    """Progress bars: one for the run's time budget, if any, and one for the present step.

    A step's bar goes when the next step begins, and both go at the end: lasting messages are printed as lines.
    """

    def __init__(self, stop: Callable[[], bool], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._stop, self._console, self._clock = stop, console, clock
        self._budget: tuple[float, float] | None = None  # seconds, and the clock when the first of them began
        self._step: _Step | None = None
        self.live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def stop(self) -> bool:
        """True if the person asked to stop."""
        return self._stop()

    def budget(self, seconds: float, spent: float) -> None:
        """Show the time left to the run."""
        self._budget = (seconds, self._clock() - spent)

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of the present step."""
        before = self._step
        if before is None or (before.stage, before.total) != (stage, total) or done < before.done:
            self._step = _Step(stage, done, total, note, done, self._clock())
        else:
            self._step = _Step(stage, done, total, note, before.first, before.since)

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        for line in wrapped(text, self._console.width):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _drawn(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        if self._budget is not None:
            seconds, began = self._budget
            spent = self._clock() - began
            left = f"{_clocked(seconds - spent)} left" if spent <= seconds else f"{_clocked(spent - seconds)} over"
            bar = ProgressBar(total=seconds, completed=min(spent, seconds), width=_BAR)
            table.add_row("budget", bar, "", f"{_clocked(spent)} of {_clocked(seconds)}", left)
        step = self._step
        if step is not None:
            bar = ProgressBar(total=step.total or None, completed=step.done, width=_BAR, animation_time=self._clock())
            table.add_row(step.stage, bar, _count(step), _plain(step.note), self._left(step))
        return table

    def _left(self, step: _Step) -> str:
        gone, made = self._clock() - step.since, step.done - step.first
        if made <= 0 or step.done >= step.total:
            return ""
        return f"{_clocked(gone / made * (step.total - step.done))} left"


def _plain(text: str) -> str:
    """Escape text for rich, which reads brackets as markup."""
    from rich.markup import escape

    return escape(text)


def _count(step: _Step) -> str:
    if not step.total:
        return str(step.done) if step.done else ""
    return f"{step.done}/{step.total}" if step.total < _COUNTED else f"{step.done / step.total:.0%}"


def _clocked(seconds: float) -> str:
    """Format a time: ``1:05``, or ``1:02:03``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def steps_on_stderr(stop: Callable[[], bool] = _never) -> Iterator[Events]:
    """Progress bars where stderr is a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_dumb_terminal:
            bars = Bars(stop, console)
            with bars.live:
                yield bars
            return
    yield PlainSteps(stop, sys.stderr)


@contextmanager
def shown(events: Events | None) -> Iterator[Events]:
    """Return ``events``, or progress on stderr where there are none."""
    if events is not None:
        yield events
        return
    with steps_on_stderr() as steps:
        yield steps
