"""Options of every device that is reached by a shell: edgekd's folder there, and the host's patience."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from edgekd.devices._protocol import Fingerprint
from edgekd.devices.agent_options import AgentOptions
from edgekd.devices.reconnecting import SteadySession, opened
from edgekd.devices.remote import RemoteLink
from edgekd.devices.session import AgentSession
from edgekd.devices.shell import Shell

__all__ = ["Folder", "ReachedByShell"]

Folder = Annotated[str, Field(pattern=r"^(~/|/)[^\x00-\x1f]+$")]
"""A folder of the device."""


class ReachedByShell(AgentOptions):
    """``python`` is a Python there, 3.8 or later (default: the private one, or ``python3``); ``folder`` is where edgekd
    keeps its files. ``patience_s`` is how long a lost device is waited for.
    """

    name: str
    python: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")] | None = None
    folder: Folder = "~/.cache/edgekd"
    patience_s: Annotated[float, Field(ge=0)] = 60.0

    @abstractmethod
    def shell(self) -> Shell:
        """Its transport. Raises DeviceUnreachable."""

    def state_by(self, shell: Shell) -> object:  # noqa: ARG002 - what most devices tell of themselves: nothing
        """State that the device tells by its shell, written into every measurement. Raises DeviceUnreachable."""
        return ""

    def open(self) -> SteadySession:
        """Take the lock and start the agent. Raises DeviceBusy, DeviceUnreachable and MissingError."""
        return opened(
            self.name,
            self.patience_s,
            self.power_model,
            self._link,
            self.cooling_s,
        )

    def describe(self) -> Fingerprint:
        """Its fingerprint, also while another run holds its lock. Raises DeviceUnreachable and MissingError."""
        link, power = self._link(""), self.power_model
        with AgentSession(self.name, link, lambda: None, power_model=power, cooling_s=self.cooling_s) as session:
            return session.describe()

    def _link(self, token: str) -> RemoteLink:
        return RemoteLink(self.shell(), self.folder, self.python, token, self.encoded(), self.state_by)
