"""Catalogue of targets by name, and of the devices they name.

Searched beside the project, in ``./targets``, in the person's configuration folder, and among the shipped ones; a name
found earlier hides a later one. The same goes for ``devices``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgekd import search_path
from edgekd.documents import problems_of
from edgekd.errors import ConfigurationError, Problem, UnknownName
from edgekd.extends import TARGETS, Resolved, resolve
from edgekd.targets.facts import DeviceFacts, read_facts
from edgekd.targets.target import Target, Terms

__all__ = [
    "device_folder",
    "device_names",
    "load_device_facts",
    "load_resolved",
    "load_target",
    "target_names",
    "written",
]


def target_names(beside: Path | None = None) -> tuple[str, ...]:
    """Names of all targets found here, sorted."""
    return search_path.names("targets", beside)


def device_names(beside: Path | None = None) -> tuple[str, ...]:
    """Names of all devices found here, sorted."""
    return search_path.names("devices", beside)


def load_target(name_or_path: str | Path, beside: Path | None = None) -> Target:
    """Load a target by name or path. Raises UnknownName, or ConfigurationError with every problem of its files."""
    return load_resolved(name_or_path, beside)[0]


def load_resolved(name_or_path: str | Path, beside: Path | None = None) -> tuple[Target, Resolved]:
    """Load a target, with the file and line of each of its values."""
    path = name_or_path if isinstance(name_or_path, Path) else _found(name_or_path, beside)
    resolved = resolve(path, TARGETS)
    problems: list[Problem] = []
    target: Target | None = None
    try:
        Terms.model_validate(resolved.data)
        target = Target.model_validate({**resolved.data, "name": path.stem})
    except ValidationError as error:
        problems.extend(problems_of(error, resolved, Terms))
    device = resolved.data.get("device")
    if isinstance(device, str):
        try:
            load_device_facts(device, path.parent)
        except UnknownName as unknown:
            problem = unknown.problems[0]
            remedy = f"{problem.remedy}  describe it in devices/{device}.yaml" if device.isprintable() else ""
            problems.append(replace(problem, place=resolved.place(["device"]), remedy=remedy))
        except ConfigurationError as wrong:
            problems.extend(wrong.problems)
    if problems or target is None:
        raise ConfigurationError(problems)
    return target, resolved


def device_folder(target: str, beside: Path | None = None) -> Path | None:
    """Folder beside which the device of a target is opened: the target's own where it is named by a path.

    Else ``beside``, the project's, which may say how a described device is reached.
    """
    return search_path.find("targets", target, beside).parent if search_path.is_path(target) else beside


def _found(name: str, beside: Path | None) -> Path:
    """File of a target. Raises UnknownName; for a device's name, the message lists that device's targets."""
    try:
        return search_path.find("targets", name, beside)
    except UnknownName as unknown:
        device = next((known for known in device_names(beside) if _bare(known) == _bare(name)), None)
        if device is None:
            raise
        there = [
            each for each in target_names(beside) if device == _device_of(search_path.find("targets", each, beside))
        ]
        new = f"write one: edgekd targets new NAME --device {device}"
        wanted = f"targets for it: {', '.join(there)}" if there else new
        problem = replace(unknown.problems[0], remedy=f"`{device}` is a device; {wanted}")
        raise ConfigurationError([problem]) from None


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _device_of(path: Path) -> object:
    try:
        return resolve(path, TARGETS).data.get("device")
    except ConfigurationError:  # reported when that target is loaded
        return None


def load_device_facts(name: str, beside: Path | None = None) -> DeviceFacts:
    """Published facts of a device, each with its source. Raises UnknownName and ConfigurationError."""
    return read_facts(search_path.find("devices", name, beside))


def written(resolved: Resolved) -> dict[str, Any]:
    """Whole target as one file that extends nothing."""
    return {"schema": TARGETS.schema, **resolved.data}
