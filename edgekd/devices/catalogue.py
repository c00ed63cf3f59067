"""Devices by name: from a file in ``devices/`` to something that can be opened.

A device file can start a program here (``python`` of this computer, an ssh configuration's proxy command). So a file
beside a project or in the working folder never replaces a device that is shipped, or the person's own, with a
connection; and how the connection of such a file reaches its device is told before it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edgekd import plugins, search_path
from edgekd.devices._protocol import Describes, Device, Fingerprint
from edgekd.documents import problems_of
from edgekd.errors import ConfigurationError, DeviceBusy, MissingError, UnknownName, printable
from edgekd.extends import DEVICES, resolve
from edgekd.records import Digest, Shown
from edgekd.units import format_bytes

__all__ = ["ProbeAnswer", "open_device", "probe_device"]


class ProbeAnswer(Shown):
    """A device's description of itself."""

    schema_: Literal["edgekd.probe/1"] = Field(default="edgekd.probe/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    subject: Digest  # of measurements there on edgekd's own runtimes
    in_use: str = ""  # by whom, where another run holds it now

    def lines(self) -> list[str]:
        """Text for a person, a fact a line."""
        found = self.fingerprint
        runtimes = [f"{name} {version}" for name, version in sorted(found.runtimes.items())]
        providers = [f"{name}/{each}" for name, every in sorted(found.providers.items()) for each in every]
        return [
            f"{self.device}  {found.cpu}, {found.cores} cores, {format_bytes(found.memory_bytes)}"
            if not found.simulates
            else f"{self.device}  {found.cpu}",
            f"  instructions  {found.architecture}: {' '.join(found.extensions) or 'none that matter here'}",
            f"  governor      {found.governor or 'unknown'}",
            f"  system        {found.os}, Python {found.python}",
            f"  runtimes      {', '.join(runtimes) or 'none'}",
            f"  providers     {', '.join(providers) or 'none'}",
            *([f"  on cores      {found.on_cores}"] if found.on_cores else []),
            *([f"  cooling       {found.cooling}"] if found.cooling else []),
            *([f"  limits        {found.limits}"] if found.limits else []),
            *([f"  figures       simulated, by {found.simulator}"] if found.simulates else []),
            f"  fingerprint   {self.subject[:12]}",
            *([f"  in use        {self.in_use}"] if self.in_use else []),
        ]


def probe_device(name: str, notice: Callable[[str], object] | None = None) -> ProbeAnswer:
    """Open a device, ask it, and let it go; one that is in use is asked beside that, where its kind allows it.

    Raises what `open_device` and opening raise.
    """
    device, in_use = open_device(name, notice=notice), ""
    try:
        session = device.open()
    except DeviceBusy as busy:
        if not isinstance(device, Describes):
            raise
        fingerprint, in_use = device.describe(), busy.message
    else:
        try:
            fingerprint = session.describe()
        finally:
            session.close()
    return ProbeAnswer(device=name, fingerprint=fingerprint, subject=fingerprint.digest(), in_use=in_use)


def open_device(name: str, beside: Path | None = None, notice: Callable[[str], object] | None = None) -> Device:
    """The device a name stands for; nothing is touched before its own ``open``.

    ``notice`` gets a line where a file beside the project or in the working folder says how the device is reached, and
    where such a file is passed over. Raises UnknownName, ConfigurationError on a wrong connection, and MissingError
    where no connection is known.
    """
    say = notice or _silent
    path = _file_of(name, beside, say)
    document = resolve(path, DEVICES)
    connection = document.data.get("connection")
    if connection is None:
        reached = f"`connection: {{kind: ssh, host: my-board}}` (kinds: {', '.join(plugins.names('edgekd.devices'))})"
        is_shipped = path.is_relative_to(search_path.shipped("devices"))
        extending = (
            f"write devices/{path.stem}.yaml with `schema: edgekd.device/1`, `extends: {path.stem}` and {reached}"
        )
        raise MissingError(
            f"`{name}` is described, but nothing says how to reach it ({path})",
            f"{extending if is_shipped else f'give it a {reached}'}; or measure on this-computer",
        )
    where = ["connection"]
    if not isinstance(connection, dict) or not isinstance(connection.get("kind"), str):
        raise ConfigurationError.one(
            "expected {kind: ..., options}", "for example {kind: local}", document.place(where)
        )
    options = {key: value for key, value in connection.items() if key != "kind"}
    plugin = plugins.load("edgekd.devices", connection["kind"], document.place([*where, "kind"]))
    try:
        device: Device = plugin(name=name, **options)
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, document, plugin, where)) from None
    except TypeError as error:
        raise ConfigurationError.one(str(error), place=document.place(where)) from None
    if not search_path.is_own("devices", path):
        say(printable(f"device {name} is reached as {_shown(path)} says: {_in_words(connection)}"))
    return device


def _file_of(name: str, beside: Path | None, say: Callable[[str], object]) -> Path:
    """The file a name stands for: the first on the shelves, unless it would replace a device that can be reached."""
    path = search_path.find("devices", name, beside)
    if path.stem != name or search_path.is_own("devices", path):
        return path
    try:
        kept = search_path.find("devices", name, shelves=search_path.own("devices"))
    except UnknownName:
        return path
    if resolve(kept, DEVICES).data.get("connection") is None:  # described only: this file may say how it is reached
        return path
    say(printable(f"{_shown(path)} is not used: {name} is the device of {kept}; to use the file, name it by its path"))
    return kept


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _in_words(value: Any) -> str:
    """A connection on one line, as YAML has it."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {{{_in_words(inner)}}}" if isinstance(inner, dict) else f"{key}: {inner}"
            for key, inner in value.items()
        )
    return str(value)


def _silent(_: str) -> None:
    pass
