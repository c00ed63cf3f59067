"""A Python of edgekd's own on a board, with the runtimes asked for: nothing of the board's system is changed.

The environment lies in edgekd's folder there (``env/``) and is what the agent runs in from then on, unless the device
file names another ``python``. The board fetches packages by its own pip: its index, its proxy, its network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from edgekd.devices.catalogue import open_device, probe_device
from edgekd.devices.remote import look
from edgekd.devices.shell import HasShell, Shell, ask, command_line
from edgekd.errors import DeviceUnreachable, MissingError, UnknownName, UsageError
from edgekd.records import Filed

__all__ = ["PACKAGES", "InstallAnswer", "install_runtimes"]

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "litert": ("ai-edge-litert",),
    "tflite-runtime": ("tflite-runtime", "numpy<2"),  # built against numpy 1
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
"""What a person asks for, and the packages that bring it (numpy comes with each)."""

_DEADLINE_S = 3600.0  # a slow board behind a slow line


class InstallAnswer(Filed):
    """What the agent's own Python there has now."""

    schema_: Literal["edgekd.install/1"] = Field(default="edgekd.install/1", alias="schema")
    device: str
    python: str
    runtimes: Mapping[str, str]

    def lines(self) -> list[str]:
        """What was installed, and what to do next."""
        found = ", ".join(f"{name} {version}" for name, version in sorted(self.runtimes.items())) or "no runtime"
        return [f"{self.device}  Python {self.python}: {found}", f"next:   edgekd bench MODEL --device {self.device}"]


def install_runtimes(name: str, runtimes: Sequence[str], python: str | None = None) -> InstallAnswer:
    """Make the private environment on a device and install runtimes into it; what is there already stays.

    ``python`` is the one to make it with. Raises UnknownName, UsageError where the device has no shell, MissingError
    where its packages can't be had, DeviceUnreachable.
    """
    for runtime in runtimes:
        if runtime not in PACKAGES:
            raise UnknownName("runtime to install", runtime, PACKAGES)
    device = open_device(name)
    if not isinstance(device, HasShell):
        raise UsageError(f"`{name}` is reached without a shell: nothing can be installed there", "use its own pip")
    packages = list(dict.fromkeys(package for runtime in runtimes for package in PACKAGES[runtime]))
    if not any(package.startswith("numpy") for package in packages):
        packages.insert(0, "numpy")
    session = device.open()  # nobody measures there while its packages change
    try:
        shell = device.shell()
        try:
            place = look(shell, device.folder, python)
            made = command_line([place.python, "-m", "venv", "--clear", "env"])
            _run(shell, place.folder, f"[ -e env/ready ] || {made}")
            pip = ["env/bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            # one that is not whole is never used: what worked before works on
            _run(shell, place.folder, f"{command_line([*pip, *packages])} && touch env/ready")
        finally:
            shell.close()
    finally:
        session.close()
    found = probe_device(name).fingerprint
    return InstallAnswer(device=name, python=found.python, runtimes=dict(found.runtimes))


def _run(shell: Shell, folder: str, script: str) -> None:
    try:
        ask(shell, f"cd {command_line([folder])} && {{ {script} ; }} 2>&1", _DEADLINE_S)
    except DeviceUnreachable as error:
        if "ended with status" not in error.message:
            raise
        raise MissingError(
            error.message,
            "does the board reach a package index, and has it `venv` (Debian: apt install python3-venv)? "
            "Else install the runtime there by hand and give its `python`",
        ) from error
