"""Template of a new target file: commented, valid as it is, with the budgets left to the person."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from edgekd.agent.fingerprint import is_installed
from edgekd.errors import MissingError, UsageError
from edgekd.ir.backends import BACKENDS, runtimes
from edgekd.targets.catalogue import load_device_facts

__all__ = ["installed_backends", "target_text", "write_target"]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


def installed_backends() -> tuple[str, ...]:
    """Backends whose runtime is installed here, each runtime's first provider but for reference ones. Imports none."""
    found: dict[str, str] = {}
    for backend, spec in BACKENDS.items():
        first = spec.runtime.homes[:1]  # this computer's own Python is not searched for others
        if first and is_installed(first[0].module) and not spec.reference:
            found.setdefault(spec.runtime.name, backend)
    return tuple(found.values())


def target_text(device: str, title: str, backends: Sequence[str], budgets: str = "") -> str:
    """Text of the file."""
    chosen = budgets or (
        "# budgets:                    # write at least one; every one is optional\n"
        "#   latency: {p95: 33 ms}\n"
        "#   memory: {model: 32 MiB}   # what the model adds over its runtime\n"
        "#   size: {file: 4 MiB}\n"
        "# accuracy: {floor: 0.90}     # the lowest score worth shipping\n"
    )
    return (
        f"# What a student has to meet on: {title}\n"
        "schema: edgekd.target/1\n"
        f"device: {device}\n"
        f"backends: [{', '.join(backends)}]   # the one to ship is chosen by measurement\n"
        "threads: 1\n"
        "load: {pattern: closed}        # back to back; or {pattern: periodic, rate: 30/s}\n"
        f"{chosen}"
    )


def write_target(name: str, folder: str | PathLike[str], device: str, force: bool = False) -> Path:
    """Write ``folder/NAME.yaml``. Raises UsageError where it is there already, UnknownName on the device."""
    if not _NAME.match(name):
        raise UsageError(f"`{name!r}` can't be a target's name", "use letters, digits, dots and dashes")
    facts = load_device_facts(device)
    here = device == "this-computer"
    backends = installed_backends() if here else ("litert/xnnpack", "onnxruntime/cpu")
    if not backends:
        packages = ", ".join(runtime.package for runtime in runtimes().values() if runtime.homes)
        raise MissingError("no runtime is installed here", f"install one of: {packages}")
    title = f"this computer ({platform.machine()})" if here else facts.title
    folder = Path(folder)
    path = folder / f"{name}.yaml"
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "give another name, or --force to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(target_text(device, title, backends))
    return path
