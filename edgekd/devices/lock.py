"""A device's lock, for one run at a time: a file, and beside it who holds it and what the device calls this computer.

The lock of the computer edgekd runs on is one for all its users: on Linux a name in the abstract namespace of Unix
sockets (unix(7)), which a process binds alone, which ends with it, and for which no file or link can be planted. It
reaches as far as the network namespace: a container with a network of its own has its own. Any local user can bind the
name, and keep others from measuring: the lock is for people who want to take turns. A person who sets XDG_CACHE_HOME
keeps locks of their own there, and this one is not taken.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import socket
import struct
import sys
import weakref
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from edgekd.errors import DeviceBusy
from edgekd.records import digest_bytes

__all__ = ["DeviceLock"]


_HELD: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child has the socket as well, and would hold the name for as long as it lives."""
    for held in list(_HELD):
        held.close()


os.register_at_fork(after_in_child=_let_go_in_child)


class DeviceLock:
    """Holds a device from construction to :meth:`release`. The kernel lets go when the process dies.

    ``of_machine``: of all users, where the system allows it. Raises DeviceBusy, naming the process that holds it.
    """

    def __init__(self, device: str, folder: Path | None = None, *, of_machine: bool = False) -> None:
        folder = folder or Path(platformdirs.user_cache_dir("edgekd")) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", device)
        self._holder, self._own_name = folder / f"{name}.pid", folder / f"{name}.token"
        self._lock = FileLock(folder / f"{name}.lock", timeout=0, thread_local=False)  # any thread may close
        self._socket: socket.socket | None = None
        try:
            self._lock.acquire()
        except Timeout:
            raise _busy(device, self._held_by()) from None
        if of_machine and not os.environ.get("XDG_CACHE_HOME"):
            try:
                self._socket = _bound(device, f"\0edgekd-device-{name}")
            except DeviceBusy:
                self._lock.release()
                raise
        self._holder.write_text(str(os.getpid()), encoding="ascii")

    def token(self) -> str:
        """Token by which the device knows this computer, kept: who holds this lock may end what is left of a run.

        A folder may be another computer's too, shared or copied: each has its own all the same. Raises OSError.
        """
        kept = self._own_name.read_text(encoding="ascii", errors="replace") if self._own_name.is_file() else ""
        if not re.fullmatch(r"[0-9a-f]{32}", kept):
            kept = secrets.token_hex(16)
            self._own_name.write_text(kept, encoding="ascii")
        return digest_bytes(f"{kept} {platform.node()}".encode())[:16]

    def release(self) -> None:
        """Let go. Can be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _held_by(self) -> str:
        try:
            return self._holder.read_text(encoding="ascii").strip() or "unknown"
        except OSError:
            return "unknown"


def _busy(device: str, holder: str) -> DeviceBusy:
    return DeviceBusy(
        f"the device {device} is in use by process {holder}",
        "wait until it is done, or stop it: two runs at once would spoil each other's figures",
    )


def _bound(device: str, address: str) -> socket.socket | None:
    """A socket of this address, which one process of the machine has; None where there are no such addresses.

    Raises DeviceBusy with the holder's number, which the kernel tells.
    """
    if sys.platform != "linux":
        return None
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mine.bind(address)
        mine.listen(socket.SOMAXCONN)
    except OSError as error:
        mine.close()
        if error.errno != errno.EADDRINUSE:  # a system that forbids them: the person's own lock is all there is
            return None
        raise _busy(device, _listener(address)) from None
    _HELD.add(mine)
    return mine


def _listener(address: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:  # it has just ended, or too many have asked
            return "unknown"
    return str(struct.unpack("3i", credentials)[0])
