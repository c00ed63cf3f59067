"""Lock for one agent at a time on a device, whichever computer it serves; who holds it also tidies the folder.

An agent whose host has gone without a word can live on until the network notices. The host that comes back, in the same
command or a later one, has the same token: its new agent ends the old one and takes its place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import List

__all__ = ["take", "tidy"]

_WAIT_S = 5.0
_KEPT_S = 7 * 24 * 3600.0
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


def tidy(folder: str) -> None:
    """Remove what earlier sessions left (our own has not begun), and models, samples and agents unused for a week."""
    for session in _names(os.path.join(folder, "sessions")):
        shutil.rmtree(os.path.join(folder, "sessions", session), ignore_errors=True)
    for blob in _names(os.path.join(folder, "blobs")):
        place = os.path.join(folder, "blobs", blob)
        if all(_unused(os.path.join(place, name)) for name in _names(place)):
            shutil.rmtree(place, ignore_errors=True)
    for room in (os.path.join(folder, "agent"), os.path.join(folder, "tools")):
        for place in [os.path.join(room, name) for name in _names(room)]:
            with suppress(OSError):  # it may be another's, and stays then
                if _unused(place) and not os.path.samefile(place, sys.argv[0]):  # workers start from there
                    os.remove(place)


def _unused(place: str) -> bool:
    """True where a file was not used for a week: one that a host asks for is marked as used."""
    try:
        return time.time() - os.stat(place).st_mtime > _KEPT_S
    except OSError:  # it has just gone by itself
        return False


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:  # nothing was kept there yet
        return []


def _end(holder: str) -> None:
    try:
        os.kill(int(holder), signal.SIGKILL)
    except (ValueError, OSError):  # it has just gone by itself
        pass
