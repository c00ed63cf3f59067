"""Devices by name: from a file in ``devices/`` to something that can be opened."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgekd import plugins, shelves
from edgekd.devices._protocol import Device
from edgekd.documents import problems_of, read_document
from edgekd.errors import ConfigurationError, MissingError

__all__ = ["open_device"]


def open_device(name: str, beside: Path | None = None) -> Device:
    """The device a name stands for; nothing is touched before its own ``open``.

    Raises UnknownName, ConfigurationError on a wrong connection, and MissingError where no connection is known.
    """
    path = shelves.find("devices", name, beside)
    document = read_document(path)
    connection = document.data.get("connection")
    if connection is None:
        raise MissingError(
            f"`{name}` is described, but nothing says how to reach it ({path})",
            "measure on this-computer, or give the device file a `connection` "
            f"(kinds: {', '.join(plugins.names('edgekd.devices'))})",
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
