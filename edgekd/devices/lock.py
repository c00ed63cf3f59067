"""One run at a time on a device: a lock file, and beside it who holds it and what the device calls this computer."""

from __future__ import annotations

import os
import platform
import re
import secrets
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from edgekd.errors import DeviceBusy
from edgekd.records import digest_bytes

__all__ = ["DeviceLock"]


class DeviceLock:
    """Holds a device from construction to :meth:`release`. The kernel lets go when the process dies.

    Raises DeviceBusy, naming the process that holds it.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        folder = folder or Path(platformdirs.user_cache_dir("edgekd")) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", device)
        self._holder, self._own_name = folder / f"{name}.pid", folder / f"{name}.token"
        self._lock = FileLock(folder / f"{name}.lock", timeout=0, thread_local=False)  # any thread may close
        try:
            self._lock.acquire()
        except Timeout:
            raise DeviceBusy(
                f"the device {device} is in use by process {self._held_by()}",
                "wait until it is done, or stop it: two runs at once would spoil each other's figures",
            ) from None
        self._holder.write_text(str(os.getpid()), encoding="ascii")

    def token(self) -> str:
        """What the device knows this computer by, kept: whoever holds this lock may end what is left of an earlier run.

        A folder may be another computer's too, shared or copied: each has its own all the same. Raises OSError.
        """
        kept = self._own_name.read_text(encoding="ascii", errors="replace") if self._own_name.is_file() else ""
        if not re.fullmatch(r"[0-9a-f]{32}", kept):
            kept = secrets.token_hex(16)
            self._own_name.write_text(kept, encoding="ascii")
        return digest_bytes(f"{kept} {platform.node()}".encode())[:16]

    def release(self) -> None:
        """Let go. Can be called twice."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _held_by(self) -> str:
        try:
            return self._holder.read_text(encoding="ascii").strip() or "unknown"
        except OSError:
            return "unknown"
