"""Listings of targets and devices, for `edgekd targets` and `edgekd devices`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgekd.documents import dotted
from edgekd.records import Record, Shown
from edgekd.targets.catalogue import device_names, load_device_facts, load_resolved, load_target, target_names
from edgekd.targets.facts import DeviceFacts
from edgekd.targets.target import Target
from edgekd.wrapping import columns

__all__ = [
    "DevicesAnswer",
    "TargetAnswer",
    "TargetsAnswer",
    "list_devices",
    "list_targets",
    "show_target",
]


class TargetsAnswer(Shown):
    """Every target found here."""

    schema_: Literal["edgekd.targets/1"] = Field(default="edgekd.targets/1", alias="schema")
    targets: tuple[Target, ...]

    def lines(self) -> list[str]:
        """Format one line per target: its device and its limits."""
        width = max((len(target.name) for target in self.targets), default=0)
        lines = []
        for target in self.targets:
            # a line breaks between limits, never inside one
            limits = ", ".join(limit.replace(" ", "\xa0") for limit in target.written) or "no limits"
            text = f"{target.name:<{width}}  {target.device}  {limits}"
            wrapped = textwrap.wrap(text, columns(), subsequent_indent=" " * (width + 2), break_on_hyphens=False)
            lines += [line.replace("\xa0", " ") for line in wrapped]
        return lines


class Origin(Record):
    """File and line of a value."""

    field: str
    value: Any
    file: str
    line: int


class TargetAnswer(Shown):
    """Target, with the place of every value."""

    schema_: Literal["edgekd.target-shown/1"] = Field(default="edgekd.target-shown/1", alias="schema")
    target: Target
    resolved: bool
    origins: tuple[Origin, ...]

    def lines(self) -> list[str]:
        """Format the target's terms; with ``resolved``, every value and the file and line it came from."""
        if self.resolved:
            shown = [(f"{item.field}: {_text(item.value)}", f"{item.file}:{item.line}") for item in self.origins]
            width = max(len(text) for text, _ in shown)
            return [f"{text:<{width}}  {place}" for text, place in shown]
        target = self.target
        rate = f" {target.load.rate}" if target.load.rate is not None else ""
        lines = [
            f"{target.name}",
            f"  device    {target.device}, {target.threads} thread{'s' if target.threads > 1 else ''}",
            f"  backends  {', '.join(map(str, target.backends))}",
            f"  load      {target.load.pattern}{rate}",
        ]
        lines += [f"  limit     {limit}{'' if limit.hard else '  (reported only)'}" for limit in target.limits]
        lines += [f"  limit     {text}" for text in target.written[len(target.limits) :]]
        if not target.written:
            lines.append("  limit     none: figures are reported, none is required")
        return lines


class DeviceLine(Record):
    """Device of the catalogue."""

    name: str
    facts: DeviceFacts


class DevicesAnswer(Shown):
    """Every device found here, with its facts and their sources."""

    schema_: Literal["edgekd.devices/1"] = Field(default="edgekd.devices/1", alias="schema")
    devices: tuple[DeviceLine, ...]

    def lines(self) -> list[str]:
        """Format one line per device: its cores, and whether it can be reached."""
        width = max((len(device.name) for device in self.devices), default=0)
        lines = []
        for device in self.devices:
            facts = device.facts
            cores = ", ".join(f"{c.count} x {c.kind}" for c in facts.cores.value) if facts.cores else ""
            parts = [facts.title, "" if facts.connection else "no connection written"]
            lines.append(f"{device.name:<{width}}  {'; '.join(part for part in parts if part)}")
            if cores:
                lines.append(f"{'':<{width}}  {cores}")
        return lines


def list_targets() -> TargetsAnswer:
    """Every target found here. Raises ConfigurationError where one is wrong."""
    return TargetsAnswer(targets=tuple(load_target(name) for name in target_names()))


def show_target(name: str, resolved: bool = False, beside: Path | None = None) -> TargetAnswer:
    """Show a target, looked for in the folder ``beside`` first. Raises UnknownName and ConfigurationError."""
    target, found = load_resolved(name, beside)
    origins = []
    for where, value in _leaves(found.data):
        place = found.place(where)
        origins.append(Origin(field=dotted(where), value=value, file=place.file, line=place.line))
    return TargetAnswer(target=target, resolved=resolved, origins=tuple(origins))


def list_devices() -> DevicesAnswer:
    """Every device found here. Raises ConfigurationError where one is wrong."""
    return DevicesAnswer(devices=tuple(DeviceLine(name=n, facts=load_device_facts(n)) for n in device_names()))


def _leaves(data: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in data.items():
        found += _leaves(value, (*at, key)) if isinstance(value, dict) and value else [((*at, key), value)]
    return found


def _text(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
