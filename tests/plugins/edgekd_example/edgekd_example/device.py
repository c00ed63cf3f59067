"""`pinned`: the computer edgekd runs on, with everything measured kept on one core. Needs util-linux's taskset."""

from __future__ import annotations

import sys

from pydantic import NonNegativeInt

from edgekd.devices.link import PipeLink
from edgekd.devices.lock import DeviceLock
from edgekd.devices.session import AgentSession
from edgekd.devices.zipapp import agent_path
from edgekd.records import Record


class PinnedDevice(Record):
    """``core`` is the one to stay on. The lock is this computer's own: two runs at once would spoil each other."""

    name: str
    core: NonNegativeInt = 0
    lock: str = "this-computer"

    def open(self) -> AgentSession:
        """Take the lock and start the agent. Raises DeviceBusy and DeviceUnreachable."""
        lock = DeviceLock(self.lock)
        try:
            link = PipeLink(["taskset", "-c", str(self.core), sys.executable, "-B", str(agent_path())])
            return AgentSession(self.name, link, lock.release)
        except BaseException:
            lock.release()
            raise
