"""Ctrl-C: the first asks to stop after the current write, the second stops at once; so does a quarter of a minute.

Code of a project, or of a library, may take minutes between two questions whether to stop, or never return.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopFlag"]


class StopFlag:
    """Whether the person asked to stop. As a context, it listens to SIGINT and SIGTERM, and restores what was there.

    ``patience_s`` is how long whatever runs may go on after the first signal.
    """

    def __init__(self, say: Callable[[str], None], patience_s: float = 15.0) -> None:
        self._say = say
        self._patience_s = patience_s
        self._insist: threading.Timer | None = None
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._insist is not None:
            self._insist.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        main = threading.main_thread().ident
        if main is not None:
            self._insist = threading.Timer(self._patience_s, signal.pthread_kill, (main, number))
            self._insist.daemon = True
            self._insist.start()
        self._say("stopping after the current write; Ctrl-C again stops at once, and nothing written is lost")
