"""Devices by name: from a file in ``devices/`` to something that can be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgekd import plugins, shelves
from edgekd.devices._protocol import Device, Fingerprint
from edgekd.documents import problems_of
from edgekd.errors import ConfigurationError, MissingError
from edgekd.inheritance import DEVICES, resolve
from edgekd.records import Digest, Filed
from edgekd.units import format_bytes

__all__ = ["ProbeAnswer", "open_device", "probe_device"]


class ProbeAnswer(Filed):
    """What a device says it is."""

    schema_: Literal["edgekd.probe/1"] = Field(default="edgekd.probe/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    subject: Digest  # what measurements taken on it name as their subject

    def lines(self) -> list[str]:
        """One fact a line."""
        found = self.fingerprint
        runtimes = [f"{name} {version}" for name, version in sorted(found.runtimes.items())]
        providers = [f"{name}/{each}" for name, every in sorted(found.providers.items()) for each in every]
        return [
            f"{self.device}  {found.cpu}, {found.cores} cores, {format_bytes(found.memory_bytes)}",
            f"  instructions  {found.architecture}: {' '.join(found.extensions) or 'none that matter here'}",
            f"  governor      {found.governor or 'unknown'}",
            f"  system        {found.os}, Python {found.python}",
            f"  runtimes      {', '.join(runtimes) or 'none'}",
            f"  providers     {', '.join(providers) or 'none'}",
            *([f"  on cores      {found.on_cores}"] if found.on_cores else []),
            *([f"  cooling       {found.cooling}"] if found.cooling else []),
            *([f"  limits        {found.limits}"] if found.limits else []),
            f"  fingerprint   {self.subject[:12]}",
        ]


def probe_device(name: str) -> ProbeAnswer:
    """Open a device, ask it, and let it go. Raises what `open_device` and opening raise."""
    session = open_device(name).open()
    try:
        fingerprint = session.describe()
    finally:
        session.close()
    return ProbeAnswer(device=name, fingerprint=fingerprint, subject=fingerprint.digest())


def open_device(name: str, beside: Path | None = None) -> Device:
    """The device a name stands for; nothing is touched before its own ``open``.

    Raises UnknownName, ConfigurationError on a wrong connection, and MissingError where no connection is known.
    """
    path = shelves.find("devices", name, beside)
    document = resolve(path, DEVICES)
    connection = document.data.get("connection")
    if connection is None:
        raise MissingError(
            f"`{name}` is described, but nothing says how to reach it ({path})",
            "measure on this-computer, or give the device file a `connection` "
            f"(kinds: {', '.join(plugins.names('edgekd.devices'))}), or write one that extends it",
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
    return device
