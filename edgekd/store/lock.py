"""Lock of a run folder: one writer at a time. Readers need no lock: they never see half a file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgekd.errors import MissingError

__all__ = ["RunBusy", "locked"]


class RunBusy(MissingError):
    """Another process is writing into this run folder."""


@contextmanager
def locked(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process in any case. Raises RunBusy, which names the holder."""
    lock = FileLock(folder / ".lock")
    holder = folder / ".writer.json"
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        raise RunBusy(
            f"{folder} is being written by {_who(holder)}",
            "wait until it is done, or stop that process: what it finished is kept, and the run can be resumed",
        ) from None
    try:
        # beside the lock, not in it: a process that tries the lock truncates it. A hint for people, so not atomic
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        said = json.loads(holder.read_text())
        return f"process {int(said['pid'])} on {said['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
