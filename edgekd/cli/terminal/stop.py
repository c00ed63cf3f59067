"""Ctrl-C: the first asks to stop after the current write, the second stops at once; so do 15 s without a check.

Code of a project, or of a library, may take minutes between two checks, or never return.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopFlag"]

_AGAIN_S = 5.0  # a library may swallow a KeyboardInterrupt: it gets another


class StopFlag:
    """Flag of a requested stop. As a context, it listens to SIGINT and SIGTERM, and restores earlier handlers.

    ``patience_s``: time that code may run without a check after the first signal. The process' interval timer
    (setitimer(2), SIGALRM) then ends it, again and again.
    """

    def __init__(self, say: Callable[[str], None], patience_s: float = 15.0) -> None:
        self._say = say
        self._patience_s = patience_s
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """True if a stop was requested. Code that checks ends by itself: it is not interrupted."""
        if self._asked:
            self._no_hurry()
        return self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._no_hurry()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            self._no_hurry()  # the timer would interrupt the clean-up after this
            raise KeyboardInterrupt
        self._asked = True
        signal.setitimer(signal.ITIMER_REAL, self._patience_s, _AGAIN_S)
        self._say(f"stopping after the current write, within {self._patience_s:g} s; Ctrl-C again stops at once")

    def _insist(self, _number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def _no_hurry(self) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
