"""A phone or board reached by the system's ``adb``, by USB or TCP.

``adb`` hides what goes wrong: a phone that dies in the middle of a command answers 0 with nothing, and a frozen one is
still listed as a device while commands hang. So nothing is believed without its end mark, and every wait is ours.
The agent needs a Python there: Termux's, one in a chroot, or one that was pushed; its path is ``python``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from edgekd.devices.phone import PhoneState, state_of
from edgekd.devices.reached import Folder, ReachedByShell
from edgekd.devices.shell import Shell, ask, command_line, last_line, run_here, size_there
from edgekd.errors import ConnectionLost, DeviceUnreachable

__all__ = ["AdbDevice", "AdbShell"]

_DEADLINE_S = 30.0
_SLOWEST_BYTES_PER_S = 128 * 1024
_CONNECTED = re.compile(r"^(already )?connected to ")
_REMEDIES = (
    ("No space left", False, "its storage is full", "make room there"),
    ("Permission denied", False, "a file can't be written there", "give a `folder` of the shell user's"),
    ("Read-only file system", False, "a file can't be written there", "give another `folder`"),
    ("couldn't create file", False, "a file can't be written there", "give another `folder`; is its storage full?"),
    ("unauthorized", False, "it has not allowed this computer",
     "unlock the phone and allow USB debugging from this computer"),
    ("more than one device", False, "several are connected", "give the one you mean as `serial` (see `adb devices`)"),
    ("no permissions", False, "this user may not use its USB port",
     "add udev rules for it (Debian: the package android-sdk-platform-tools-common)"),
    ("offline", True, "it is offline", "unplug it and plug it in again, or start its adbd"),
    ("not found", True, "it is not connected", "see `adb devices`; is USB debugging on?"),
    ("no devices", True, "nothing is connected", "see `adb devices`; is USB debugging on?"),
    ("closed", True, "it closed the connection", "see `adb devices`"),
    ("refused", True, "no adbd answers there", "start it: on the phone, wireless debugging; `adb tcpip 5555` by USB"),
    ("failed to connect", True, "no adbd answers there", "see whether it is on, and on this network"),
)  # fmt: skip
"""What adb says, whether it may pass, and what it means."""


class AdbDevice(ReachedByShell):
    """A phone. ``serial`` as `adb devices` lists it, or the ``address`` HOST:PORT of an adbd on the network."""

    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=255)] | None = None
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*:[0-9]{1,5}$", max_length=255)] | None = None
    folder: Folder = "/data/local/tmp/edgekd"

    @model_validator(mode="after")
    def _one_way(self) -> AdbDevice:
        if (self.serial is None) == (self.address is None):
            raise ValueError("expected either `serial` (see `adb devices`) or `address` (HOST:PORT)")
        return self

    def shell(self) -> AdbShell:
        """Its transport; connects to an address. Raises DeviceUnreachable."""
        return AdbShell(self)

    def state_by(self, shell: Shell) -> PhoneState:
        """Screen, charging, battery and throttling, now. Raises DeviceUnreachable."""
        return state_of(shell)


class AdbShell:
    """See Shell."""

    def __init__(self, device: AdbDevice) -> None:
        self.device = device
        self._at = ["adb", "-s", device.serial or device.address or ""]
        if device.address is not None:
            self._connect(device.address)
        self._alive()

    def argv(self, script: str, stays: bool = False) -> Sequence[str]:  # noqa: ARG002 - every command has its own stream
        """See Shell."""
        return [*self._at, "shell", "-T", command_line(["sh", "-c", script])]

    def why(self, complaint: str, status: int | None = None) -> DeviceUnreachable:  # noqa: ARG002 - adb's says nothing
        """See Shell."""
        for words, may_pass, meaning, remedy in _REMEDIES:
            if words in complaint:
                kind = ConnectionLost if may_pass else DeviceUnreachable
                return kind(f"{self.device.name} can't be reached: {meaning}", remedy)
        return ConnectionLost(
            f"{self.device.name} went away in the middle of a command: {last_line(complaint)}",
            "see `adb devices`, and whether it is still on",
        )

    def push(self, file: Path, place: str) -> None:
        """See Shell."""
        said = run_here([*self._at, "push", str(file), place], self._patience_for(file.stat().st_size))
        if said.status:
            raise self.why(f"{said.output.decode('utf-8', 'replace')}\n{said.complaint}")

    def pull(self, place: str, file: Path, most_bytes: int) -> None:
        """See Shell."""
        size = size_there(self, place, most_bytes)
        said = run_here([*self._at, "pull", place, str(file)], self._patience_for(size))
        if said.status or not file.is_file() or file.stat().st_size != size:
            raise self.why(f"{said.output.decode('utf-8', 'replace')}\n{said.complaint}")

    def close(self) -> None:
        """See Shell. The connection to an address stays, for others may use it."""

    def _connect(self, address: str) -> None:
        """``adb connect`` ends well whatever happens; a phone that died is still listed until it is let go."""
        for attempt in ("connect", "disconnect", "connect"):
            said = run_here(["adb", attempt, address], _DEADLINE_S)
            answer = said.output.decode("utf-8", "replace").strip()
            if attempt == "connect" and _CONNECTED.match(answer):
                state = run_here([*self._at, "get-state"], _DEADLINE_S)
                if state.output.strip() == b"device":
                    return
                answer = state.complaint
        raise self.why(answer or said.complaint)

    def _alive(self) -> None:
        """True where a shell answers there at all."""
        if ask(self, "echo edgekd", _DEADLINE_S) != "edgekd":
            raise self.why("")

    @staticmethod
    def _patience_for(size_bytes: int) -> float:
        return _DEADLINE_S + size_bytes / _SLOWEST_BYTES_PER_S
