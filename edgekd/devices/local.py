"""The computer edgekd runs on, reached through the same agent as any other device."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekd.devices.limits import Limits
from edgekd.devices.link import PipeLink
from edgekd.devices.lock import DeviceLock
from edgekd.devices.session import AgentSession
from edgekd.devices.zipapp import agent_path
from edgekd.records import Record

__all__ = ["LocalDevice"]


class LocalDevice(Record):
    """This computer. ``python`` is the interpreter the agent runs with; by default the one running now.

    ``limits`` make it a smaller one.
    """

    name: str = "this-computer"
    python: Path | None = None
    limits: Limits | None = None

    def open(self) -> AgentSession:
        """Take the lock and start the agent. Raises DeviceBusy and DeviceUnreachable."""
        lock = DeviceLock(self.name)
        try:
            limits = ["serve", "", "", self.limits.told()] if self.limits is not None else []
            link = PipeLink([str(self.python or sys.executable), "-B", str(agent_path()), *limits])
            return AgentSession(self.name, link, lock.release)
        except BaseException:
            lock.release()
            raise
