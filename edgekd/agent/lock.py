"""One agent at a time on a device, whichever computer it serves.

An agent whose host has gone without a word can live on until the network notices. The host that comes back knows its
own session by its token: its new agent ends the old one and takes its place.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from typing import List

__all__ = ["take"]

_WAIT_S = 5.0
_held: List[int] = []  # the descriptor lives as long as the process, and the lock with it


def take(path: str, token: str) -> str:
    """Take the lock: an empty text, or the process that holds it for somebody else. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            holder, _, its_token = os.pread(descriptor, 200, 0).decode("ascii", "replace").partition(" ")
            if its_token.strip() != token or not token or time.monotonic() > end:
                os.close(descriptor)
                return holder.strip() or "unknown"
            _end(holder)
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, ("%d %s" % (os.getpid(), token)).encode("ascii"), 0)
    _held.append(descriptor)
    return ""


def _end(holder: str) -> None:
    try:
        os.kill(int(holder), signal.SIGKILL)
    except (ValueError, OSError):  # it has just gone by itself
        pass
