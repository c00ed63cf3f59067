"""Background load on purpose: processes that only burn cycles, and end with the one that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import Iterator, List

__all__ = ["burn", "busy_cores"]


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep so many cores busy inside the context. The scheduler places them, as any other program."""
    begin = [sys.executable, "-B", sys.argv[0], "burn", str(os.getpid())]
    started: List["subprocess.Popen[bytes]"] = []
    try:
        for _ in range(count):
            started.append(subprocess.Popen(begin, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        yield
        ended = [process.poll() for process in started if process.poll() is not None]
        if ended:
            raise RuntimeError("a process that kept a core busy has ended: exit code %s" % ended[0])
    finally:
        for process in started:
            process.kill()
            process.wait()


def burn(parent: int) -> int:
    """Never returns; dies with ``parent``."""
    from edgekd.agent.worker import die_with

    die_with(parent)
    while True:
        pass
