"""The computer edgekd runs on, reached through the same agent as any other device."""

from __future__ import annotations

import sys
from collections.abc import Callable

from edgekd.devices._protocol import Fingerprint
from edgekd.devices.agent_options import AgentOptions, PathHere
from edgekd.devices.link import PipeLink
from edgekd.devices.lock import DeviceLock
from edgekd.devices.session import AgentSession
from edgekd.devices.zipapp import agent_path

__all__ = ["LocalDevice"]


class LocalDevice(AgentOptions):
    """This computer. ``python`` is the interpreter the agent runs with; by default the one running now.

    ``limits`` make it a smaller one; ``meter`` says where its power is read.
    """

    name: str = "this-computer"
    python: PathHere | None = None

    def open(self) -> AgentSession:
        """Take the lock and start the agent. Raises DeviceBusy and DeviceUnreachable."""
        lock = DeviceLock("this-computer", of_machine=True)  # whatever it is called: it is one
        try:
            return self._session(lock.release)
        except BaseException:
            lock.release()
            raise

    def describe(self) -> Fingerprint:
        """Its fingerprint, also while another run holds its lock. Raises DeviceUnreachable."""
        with self._session(lambda: None) as session:
            return session.describe()

    def _session(self, release: Callable[[], None]) -> AgentSession:
        command = [str(self.python or sys.executable), "-B", str(agent_path()), "serve", "", "", self.encoded()]
        return AgentSession(
            self.name, PipeLink(command), release, power_model=self.power_model, cooling_s=self.cooling_s
        )
