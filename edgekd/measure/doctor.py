"""Readiness check of a machine (`edgekd doctor`): each line is ok, warn or missing, with a remedy.

Everything about the device comes through its session. Converters are looked for on the host, where students are always
exported; disk and free memory are checked where the device is this computer.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Describes, Device, DeviceSession, Fingerprint, Job, MeasurePlan, Outcome
from edgekd.devices.adb import AdbDevice
from edgekd.devices.install import own_python
from edgekd.devices.shell import HasShell
from edgekd.errors import DeviceBusy, DeviceUnreachable
from edgekd.ir.backends import runtimes
from edgekd.measure.compare import aa_noise
from edgekd.measure.conditions import cautions_of_device, cores_of, load_of, too_busy
from edgekd.measure.converters import CONVERTERS, LATE, FoundConverter, find_converters
from edgekd.records import Record, Shown, digest_bytes
from edgekd.units import format_bytes
from edgekd.wrapping import columns

__all__ = ["DoctorCheck", "DoctorReport", "examine"]

_OLDEST = {"host": (3, 11), "device": (3, 8)}
_LOW_BATTERY = 20  # percent
_STEADY_GOVERNORS = ("performance", "userspace")  # any other scales the clock with recent load
_STEADY_CLOCKS = {
    "linux": "set it for steady clocks: sudo cpupower frequency-set -g performance",
    "android": "the clock follows the load: `cooling` and `on_cores` in the device file, and more processes; "
    "only root can set `performance` in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
}
_SMALLEST_DISK, _SMALLEST_MEMORY = 2 << 30, 2 << 30
_NOISE_PLAN = MeasurePlan(processes=5, rounds=5, round_ms=10.0, warmup_ms=10.0, sentinel=False)


class DoctorCheck(Record):
    """Check, with its result and remedy."""

    name: str
    state: Literal["ok", "warn", "missing"]
    found: str
    remedy: str = ""


class DoctorReport(Shown):
    """All checks. ``exit_code`` is 4 where no runtime is installed."""

    schema_: Literal["edgekd.doctor/1"] = Field(default="edgekd.doctor/1", alias="schema")
    device: str
    checks: tuple[DoctorCheck, ...]
    exit_code: int

    def lines(self) -> list[str]:
        """Format the summary, then one line a check."""
        missing = [check for check in self.checks if check.state == "missing"]
        warned = [check for check in self.checks if check.state == "warn"]
        if self.exit_code:
            answer = "not ready: no runtime to measure with"
        elif missing or warned:
            answer = f"ready, with {len(missing)} missing and {len(warned)} to look at"
        else:
            answer = "ready"
        lines = [f"{self.device}: {answer}"]
        width = max(len(check.name) for check in self.checks)
        for check in self.checks:
            before = f" {check.state:<7} {check.name:<{width}} "
            lines += _wrapped(check.found, before, " " * len(before))
            if check.remedy:  # a command in it stays on one line, to be copied
                lines.append(f"{'':<{len(before)}}-> {check.remedy}")
        return lines


def examine(device: Device, converters: Callable[[], Sequence[FoundConverter]] = find_converters) -> DoctorReport:
    """Check a device and the host's converters. A device in use is checked only as far as possible without measuring.

    Raises DeviceUnreachable where it can't be opened.
    """
    try:
        session = device.open()
    except DeviceBusy as busy:
        return _beside(device, busy, converters)
    try:
        fingerprint = session.describe()
        checks = [
            *_python(fingerprint),
            *_runtimes(fingerprint, device),
            *_converters(converters()),
            *(() if fingerprint.simulates else _cpu(fingerprint, _is_android(device, fingerprint))),
            *(() if fingerprint.simulates else _meter(fingerprint)),
            *(_phone(device) if isinstance(device, AdbDevice) else ()),
            *(_host() if device.name == "this-computer" else ()),
            *(() if fingerprint.times_only or fingerprint.simulates else _noise(session)),
        ]
    finally:
        session.close()
    return DoctorReport(device=device.name, checks=tuple(checks), exit_code=0 if fingerprint.runtimes else 4)


def _beside(device: Device, busy: DeviceBusy, converters: Callable[[], Sequence[FoundConverter]]) -> DoctorReport:
    """Checks while another run holds the device: nothing is measured, and it is asked only where that takes no lock."""
    fingerprint = device.describe() if isinstance(device, Describes) else None
    checks = [
        DoctorCheck(
            name="in use",
            state="warn",
            found=busy.message,
            remedy="noise and load can be measured once it is done: run edgekd doctor again then",
        ),
        *(_runtimes(fingerprint, device) if fingerprint else ()),
        *_converters(converters()),
        *(_cpu(fingerprint, "android" in fingerprint.os.lower()) if fingerprint else ()),
        *(_host() if device.name == "this-computer" else ()),
    ]
    nothing = fingerprint is not None and not fingerprint.runtimes
    return DoctorReport(device=device.name, checks=tuple(checks), exit_code=4 if nothing else 0)


def _python(fingerprint: Fingerprint) -> Iterator[DoctorCheck]:
    here = sys.version_info[:2]
    fine = here >= _OLDEST["host"]
    yield DoctorCheck(
        name="python",
        state="ok" if fine else "missing",
        found=sys.version.split()[0],
        remedy="" if fine else "edgekd needs Python 3.11 or newer",
    )
    if fingerprint.simulates:
        remedy = "it ranks candidates; to certify one, name a device that runs models in the target"
        yield DoctorCheck(name="figures", state="warn", found=f"simulated, by {fingerprint.simulator}", remedy=remedy)
        return
    if fingerprint.times_only:
        remedy = "for memory, answers, energy and searches: put a Python on the phone, and use kind: adb"
        yield DoctorCheck(name="device python", state="warn", found="none: times only", remedy=remedy)
        return
    there = tuple(int(part) for part in fingerprint.python.split(".")[:2])
    if there < _OLDEST["device"]:
        yield DoctorCheck(
            name="device python",
            state="missing",
            found=fingerprint.python,
            remedy="the agent needs Python 3.8 or newer",
        )


def _wrapped(text: str, first: str, further: str) -> list[str]:
    """Wrap to the terminal's width without breaking words."""
    return textwrap.wrap(
        text, columns(), initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _runtimes(fingerprint: Fingerprint, device: Device) -> Iterator[DoctorCheck]:
    by_shell, own = isinstance(device, HasShell), own_python(device)
    for runtime, spec in runtimes().items():
        package, version = spec.package, fingerprint.runtimes.get(runtime)
        if version is None and (fingerprint.simulates or not spec.homes):
            continue  # it can't be installed there
        if version is None:
            there = f"edgekd devices install {device.name} --runtime {runtime}"
            remedy = there if by_shell else f"pip install {package}"
            if own is not None:
                remedy = f"by the Python that the device file names, there: {own} -m pip install {package}"
            if fingerprint.times_only:
                remedy = (
                    "give its program in the device file, where there is one (benchmark_model, onnxruntime_perf_test)"
                )
            yield DoctorCheck(name=runtime, state="missing", found="not installed", remedy=remedy)
        else:
            providers = ", ".join(fingerprint.providers.get(runtime, ()))
            yield DoctorCheck(name=runtime, state="ok", found=f"{version} ({providers})" if providers else version)


def _converters(found: Sequence[FoundConverter]) -> Iterator[DoctorCheck]:
    for name, version, problem in found:
        package, writes = CONVERTERS[name].package, CONVERTERS[name].writes
        yield DoctorCheck(
            name=name,
            state="warn" if problem == LATE else "missing" if problem else "ok",
            found=problem or f"{version}, writes {writes}",
            remedy=_remedy(package, writes, problem) if problem else "",
        )


def _remedy(package: str, writes: str, problem: str) -> str:
    if problem == LATE:
        return "close other programs, and run edgekd doctor again"
    return f"to write {writes}: pip install {'' if problem == 'not installed' else '--force-reinstall '}{package}"


def _is_android(device: Device, fingerprint: Fingerprint) -> bool:
    return isinstance(device, AdbDevice) or "android" in fingerprint.os.lower()


def _cpu(fingerprint: Fingerprint, android: bool) -> Iterator[DoctorCheck]:
    extensions = " ".join(fingerprint.extensions) or "no known extensions"
    saturates = fingerprint.saturates_int8
    yield DoctorCheck(
        name="cpu",
        state="warn" if saturates else "ok",
        found=f"{fingerprint.cpu}, {fingerprint.cores} cores; {extensions}",
        remedy="no 8-bit dot product: int8 may be slower here, and its products can saturate" if saturates else "",
    )
    governors = (fingerprint.governor or _STEADY_GOVERNORS[0]).split(", ")
    slow = not set(governors) <= set(_STEADY_GOVERNORS)
    yield DoctorCheck(
        name="governor",
        state="warn" if slow else "ok",
        found=fingerprint.governor or "unknown on this system",
        remedy=_STEADY_CLOCKS["android" if android else "linux"] if slow else "",
    )
    low = fingerprint.memory_bytes < _SMALLEST_MEMORY
    yield DoctorCheck(
        name="memory",
        state="warn" if low else "ok",
        found=format_bytes(fingerprint.memory_bytes),
        remedy="training and conversion want 2 GiB; measuring alone needs less" if low else "",
    )


def _meter(fingerprint: Fingerprint) -> Iterator[DoctorCheck]:
    yield DoctorCheck(
        name="power",
        state="ok",  # most machines have none, and nothing else needs it
        found=fingerprint.meter or f"no meter ({fingerprint.no_meter or 'this device reports none'})",
        remedy="",
    )


def _phone(device: AdbDevice) -> Iterator[DoctorCheck]:
    """States of an Android phone that change figures, with remedies."""
    shell = device.shell()
    try:
        state = device.state_by(shell)
    finally:
        shell.close()
    if not str(state):
        yield DoctorCheck(name="phone", state="ok", found="no Android, or one that tells nothing of itself")
        return
    hints = [
        "with its screen off it may slow down: wake it, and set a long screen timeout" if state.screen == "off" else "",
        "charging heats it: unplug it, and use adb over the network" if state.charging else "",
        "below 20 % it may save power: charge it first"
        if state.battery_percent is not None and state.battery_percent < _LOW_BATTERY
        else "",
        "Android slows it down: let it cool" if state.throttling not in (None, "none") else "",
    ]
    remedy = "; ".join(hint for hint in hints if hint)
    yield DoctorCheck(name="phone", state="warn" if remedy else "ok", found=str(state), remedy=remedy)


def _host() -> Iterator[DoctorCheck]:
    free = psutil.virtual_memory().available
    yield DoctorCheck(
        name="free memory",
        state="warn" if free < _SMALLEST_MEMORY else "ok",
        found=format_bytes(free),
        remedy="close other programs: a search wants 2 GiB" if free < _SMALLEST_MEMORY else "",
    )
    disk = shutil.disk_usage(Path.cwd()).free
    yield DoctorCheck(
        name="disk",
        state="warn" if disk < _SMALLEST_DISK else "ok",
        found=f"{format_bytes(disk)} free here",
        remedy="a run wants 2 GiB: free some, or work in another folder" if disk < _SMALLEST_DISK else "",
    )


def _noise(session: DeviceSession) -> Iterator[DoctorCheck]:
    """Noise of the sentinel timed as two identical jobs for about two seconds, and the device's conditions."""
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        path = Path(folder) / "sentinel.tflite"
        path.write_bytes(b"sentinel")
        artefact = Artefact(path=path, format=Format.TFLITE, sha256=digest_bytes(b"sentinel"), size_bytes=8)
        job = Job(artefact=artefact, backend=Backend(runtime="sentinel", provider="none"))
        try:
            measured = session.measure([job, job], _NOISE_PLAN)
        except DeviceUnreachable as error:
            yield DoctorCheck(
                name="noise", state="warn", found=f"can't be measured: {error.message}", remedy=error.remedy
            )
            return
    failed = next((m for m in measured if m.outcome is not Outcome.OK), None)
    if failed is not None:
        yield DoctorCheck(
            name="noise", state="warn", found=f"can't be measured: {failed.detail}", remedy="run edgekd doctor again"
        )
        return
    noise = aa_noise(measured)
    yield DoctorCheck(
        name="noise",
        state="warn" if noise > 0.02 else "ok",
        found=f"identical models differ by {noise:.1%} (A/A, 5 processes each)",
        remedy="smaller differences can't be measured: stop other programs, fix the clock" if noise > 0.02 else "",
    )
    load, cores = load_of(measured), cores_of(measured)
    if load is not None and cores is not None:
        busy = too_busy(load, cores)
        yield DoctorCheck(
            name="load",
            state="warn" if busy else "ok",
            found=f"load average {load:.2f} on {cores} cores",
            remedy="see what else runs there, and close it before measuring" if busy else "",
        )
    for caution in cautions_of_device(measured):
        yield DoctorCheck(name=caution.code, state="warn", found=caution.message, remedy=caution.remedy)
