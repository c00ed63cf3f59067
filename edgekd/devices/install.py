"""A Python of edgekd's own on a board, with the runtimes asked for: nothing of the board's system is changed.

An environment lies in edgekd's folder there and is what the agent runs in, unless the device file names another
``python``. Every installation makes a new one beside it (``envs/NAME``), which takes its place once it imports what it
has (the file ``envs/current`` names it): one that fails half-way changes nothing. The board fetches packages by its own
pip: its index, its proxy, its network.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from edgekd.devices._protocol import Device
from edgekd.devices.adb_tools import AdbToolsDevice
from edgekd.devices.catalogue import open_device, probe_device
from edgekd.devices.remote import ENVIRONMENT, look
from edgekd.devices.shell import HasShell, Shell, ask, command_line
from edgekd.errors import DeviceUnreachable, MissingError, UnknownName, UsageError
from edgekd.ir.backends import Home, RuntimeSpec, runtimes
from edgekd.records import Shown

__all__ = ["InstallAnswer", "install_runtimes", "installable", "own_python"]


def installable() -> Mapping[str, tuple[RuntimeSpec, Home]]:
    """Runtime and package by the name that a person asks for (numpy comes with each)."""
    return {name: (runtime, home) for runtime in runtimes().values() for name, home in runtime.installs.items()}


_LOOK_DEADLINE_S = 120.0
_DEADLINE_S = 3600.0  # a slow board behind a slow line
_LISTED = re.compile(r"/lib/python(\d+)\.(\d+)/site-packages/([A-Za-z0-9._]+)-([A-Za-z0-9.!+_]+)\.dist-info$", re.M)
_PRINT_BASE = "import os, sys; print('base %d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"


class InstallAnswer(Shown):
    """Runtimes in the agent's own Python there."""

    schema_: Literal["edgekd.install/1"] = Field(default="edgekd.install/1", alias="schema")
    device: str
    python: str
    runtimes: Mapping[str, str]

    def lines(self) -> list[str]:
        """Text for a person: the packages installed, and what to do next."""
        found = ", ".join(f"{name} {version}" for name, version in sorted(self.runtimes.items())) or "no runtime"
        return [f"{self.device}  Python {self.python}: {found}", f"next:   edgekd bench MODEL --device {self.device}"]


def install_runtimes(
    name: str, runtimes: Sequence[str], python: str | None = None, notice: Callable[[str], object] | None = None
) -> InstallAnswer:
    """Give a device a private environment with these runtimes, beside those that it has installed already.

    ``python`` is the one to make it with, else that of the environment that is there, else the first that is found.
    Runtimes that were there keep their versions, but for another version of Python, which gets the newest that it can.
    Raises UnknownName, UsageError where the device has no shell or would not use the environment, MissingError where
    its packages can't be had (what was installed before is then as it was), DeviceUnreachable.
    """
    known = installable()
    for runtime in runtimes:
        if runtime not in known:
            raise UnknownName("runtime to install", runtime, known)
    device = open_device(name, notice=notice)
    if not isinstance(device, HasShell):
        raise UsageError(f"`{name}` is reached without a shell: nothing can be installed there", "use its own pip")
    if isinstance(device, AdbToolsDevice):
        raise UsageError(
            f"`{name}` is measured by the vendors' own programs: a runtime of a Python's would not be used there",
            "put a Python on the phone (Termux), and reach it by kind: adb",
        )
    packages = list(dict.fromkeys(package for runtime in runtimes for package in known[runtime][1].requirements))
    own = own_python(device)
    if own is not None:
        raise UsageError(
            f"the device file of `{name}` names its own Python, {own}: what is installed beside it would not be used",
            f"install there by that one's pip, `{own} -m pip install {command_line(packages)}`, "
            "or take `python` out of the device file",
        )
    if not any(package.startswith("numpy") for package in packages):
        packages.insert(0, "numpy")
    session = device.open()  # nobody measures there while its packages change
    try:
        shell = device.shell()
        try:
            place = look(shell, device.folder, python)
            before = _installed(shell, place.folder)
            # not the environment's own: it is deleted in the end
            maker = place.python if python or before is None else before.base or place.python
            if before is not None:
                packages += _kept(before, before.version == place.version)
            _make(shell, place.folder, maker, packages)
        finally:
            shell.close()
    finally:
        session.close()
    found = probe_device(name).fingerprint
    lacking = [runtime for runtime in runtimes if known[runtime][0].name not in found.runtimes]
    if lacking:
        raise MissingError(
            f"{', '.join(lacking)} is installed on {name}, and the agent there does not find it",
            f"`edgekd devices probe {name}` tells which Python it runs in; is its device file another one by now?",
        )
    return InstallAnswer(device=name, python=found.python, runtimes=dict(found.runtimes))


def _homes() -> Mapping[str, Home]:
    """Homes by pip's name of the package that brings a runtime: the first that is installed for it."""
    return {_pip_name(home.requirements[0]): home for _, home in installable().values()}


def _pip_name(requirement: str) -> str:
    """The package that a requirement such as ``numpy<2`` is about, spelled as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def own_python(device: Device) -> str | None:
    """The Python that the device's file names for the agent: no environment of edgekd's own is used beside it."""
    named = getattr(device, "python", None)
    return None if named is None else str(named)


class _Installed(NamedTuple):
    base: str | None  # the Python that the environment was made with; None where it no longer starts
    version: tuple[int, int]
    packages: Mapping[str, str]  # runtimes' packages and their versions


def _installed(shell: Shell, folder: str) -> _Installed | None:
    """Packages of the environment there, by its files: an upgrade of the system may have taken its Python away.

    None where there is none, or nothing in it.
    """
    script = f"""
E={ENVIRONMENT}
[ -n "$E" ] || exit 0
"$E/bin/python" -c {command_line([_PRINT_BASE])}
ls -d "$E"/lib/python*/site-packages/*.dist-info
true"""
    said = ask(shell, f"cd {command_line([folder])} || exit 1\n{script}", _LOOK_DEADLINE_S)
    listed = _LISTED.findall(said)
    found = re.search(r"^base (\d+)\.(\d+) (/.+)$", said, re.MULTILINE)
    if found is None and not listed:
        return None
    major, minor = found.groups()[:2] if found else listed[-1][:2]
    packages = {re.sub(r"[-_.]+", "-", name).lower(): version for *_, name, version in listed}
    kept = {name: version for name, version in packages.items() if name in _homes()}
    return _Installed(found.group(3) if found else None, (int(major), int(minor)), kept)


def _kept(before: _Installed, same_python: bool) -> list[str]:
    """Requirements of the runtimes that were there, in the versions that were measured with."""
    packages = []
    for name, version in before.packages.items():
        packages += [f"{name}=={version}" if same_python else name, *_homes()[name].requirements[1:]]
    return packages


def _make(shell: Shell, folder: str, python: str, packages: Sequence[str]) -> None:
    """A new environment in the place of the one before. Raises MissingError; that one then stays."""
    new = f"envs/{secrets.token_hex(4)}"
    inside = f"{new}/bin/python"
    pip = [inside, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", *packages]
    homes = [_homes()[name] for name in dict.fromkeys(map(_pip_name, packages)) if name in _homes()]
    modules = ["numpy", *(home.imports or home.module for home in homes)]
    # as in agent/telemetry.py: OpenVINO's import tells its vendor of it, and nothing here does unasked
    look_in = f"import sys; sys.modules['openvino_telemetry'] = None; import {', '.join(modules)}"
    try:
        _run(shell, folder, f"mkdir -p envs && {command_line([python, '-m', 'venv', new])}")
        _run(shell, folder, command_line(pip))
        _run(shell, folder, command_line([inside, "-c", look_in]))
    except MissingError:
        _run(shell, folder, f"rm -rf {new}")
        raise
    others = f'for E in env envs/*; do case "$E" in {new}|envs/current) ;; *) rm -rf "$E" ;; esac; done'
    _run(shell, folder, f"echo {new} > envs/next && mv -f envs/next envs/current && {others}")


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
