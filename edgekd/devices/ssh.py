"""A board reached by the system's ``ssh``: its keys, its configuration, its known hosts.

No password is read or kept, and a host whose key is unknown or has changed is refused. The agent's own connection is
the one that all other commands go by (a control master), so that a file costs milliseconds and not a handshake.
Files go through ``cat``: boards with a small ssh server have no sftp, and none is needed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from edgekd.devices.agent_options import PathHere
from edgekd.devices.reached import ReachedByShell
from edgekd.devices.shell import FAILED_THERE, command_line, last_line, run_here, size_there
from edgekd.errors import ConnectionLost, DeviceUnreachable

__all__ = ["SshDevice", "SshShell"]

_SLOWEST_BYTES_PER_S = 16 * 1024  # a dead line is noticed by ssh itself, in seconds
_OWN_STATUS = 255
_DEADLINE_S = 30.0
_REMEDIES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", False, "its host key has changed: nothing was sent to it",
     "if the board was installed anew, `ssh-keygen -R HOST` and connect once by hand; else find out who answers there"),
    ("Host key verification failed", False, "its host key is not known",
     "connect once by hand with `ssh`, compare the key, and accept it"),
    ("Permission denied", False, "it lets nobody in with these keys",
     "put your public key there with `ssh-copy-id`, or unlock it with `ssh-add`: edgekd reads no password"),
    ("Bad configuration option", False, "the ssh configuration is wrong", "mend it: `ssh HOST true` should work"),
    ("Can't open user config file", False, "the ssh configuration is not there", "give its path as `config`"),
    ("Could not resolve hostname", False, "its name is not known to the network",
     "mend `host` in the device file, or write the host into the ssh configuration"),
    ("Connection refused", True, "no ssh server answers there", "start sshd on the board; is `port` right?"),
    ("No route to host", True, "there is no way to it", "see whether it is on, and on this network"),
    ("timed out", True, "it does not answer", "see whether it is on, and on this network"),
)  # fmt: skip
"""What ssh says, whether it may pass, and what it means."""


class SshDevice(ReachedByShell):
    """A board. ``host`` is a name of your ssh configuration, or an address."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:%-]*$", max_length=255)]
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=64)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    config: PathHere | None = None
    identity: PathHere | None = None

    @field_validator("config", "identity")
    @classmethod
    def _found_from_anywhere(cls, path: Path | None) -> Path | None:
        if path is not None and not path.expanduser().is_absolute():
            raise ValueError("expected a whole path, from / or ~: a device is used from any folder")
        return None if path is None else path.expanduser()

    def shell(self) -> SshShell:
        """Transport of the device, not yet connected."""
        return SshShell(self)


class SshShell:
    """See Shell."""

    def __init__(self, device: SshDevice) -> None:
        self.device = device
        # a socket's path may have about 100 characters
        self._control = Path(tempfile.mkdtemp(prefix="edgekd-ssh-", dir="/tmp"))

    def argv(self, script: str, stays: bool = False) -> Sequence[str]:
        """See Shell."""
        device = self.device
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "yes" if stays else "no",
            "ControlPath": str(self._control / "%C"),
            "ControlPersist": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "RequestTTY": "no",
            "RemoteCommand": "none",
            "LogLevel": "ERROR",
        }
        words = ["ssh", *(["-F", str(device.config)] if device.config else [])]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words += ["-i", str(device.identity)] if device.identity else []
        words += ["-l", device.user] if device.user else []
        words += ["-p", str(device.port)] if device.port else []
        return [*words, "--", device.host, command_line(["/bin/sh", "-c", script])]

    def why(self, complaint: str, status: int | None = None) -> DeviceUnreachable:
        """See Shell. Any status but 255 is that of the command there."""
        if status not in (None, 0, _OWN_STATUS):
            return DeviceUnreachable(f"a command on {self.device.name} failed: {last_line(complaint)}", FAILED_THERE)
        for words, may_pass, meaning, remedy in _REMEDIES:
            if words in complaint:
                kind = ConnectionLost if may_pass else DeviceUnreachable
                return kind(f"{self.device.name} can't be reached: {meaning}", remedy.replace("HOST", self.device.host))
        return ConnectionLost(
            f"the connection to {self.device.name} ended: {last_line(complaint)}",
            f"see whether `ssh {self.device.host} true` works",
        )

    def push(self, file: Path, place: str) -> None:
        """See Shell."""
        size = file.stat().st_size
        script = f"umask 077; cat > {command_line([place])}"
        with file.open("rb") as stream:
            said = run_here(self.argv(script), _DEADLINE_S + size / _SLOWEST_BYTES_PER_S, stream)
        if said.status:
            raise self.why(said.complaint, said.status)

    def pull(self, place: str, file: Path, most_bytes: int) -> None:
        """See Shell."""
        size = size_there(self, place, most_bytes)
        deadline_s = _DEADLINE_S + size / _SLOWEST_BYTES_PER_S
        with file.open("xb") as stream:
            said = run_here(self.argv(f"cat {command_line([place])}"), deadline_s, into=stream, most_bytes=size)
        if said.status:
            raise self.why(said.complaint, said.status)

    def close(self) -> None:
        """See Shell."""
        shutil.rmtree(self._control, ignore_errors=True)
