"""`edgekd profile`: find the sections missing for a device in its present state, estimate their time, measure them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Device, Fingerprint
from edgekd.errors import Interrupted, MissingError
from edgekd.events import Events
from edgekd.export.converter import Converter
from edgekd.ir.backends import BACKENDS, can, formats_of
from edgekd.ir.numerics import Precision
from edgekd.measure.contention import DriftBaseline
from edgekd.profiling.builder import ProbeBuilder
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.page import write_page
from edgekd.profiling.probes import NETWORKS, width_sweep
from edgekd.profiling.record import AgainRecord, BehaviourProfile, DeploymentProfile, MemoryProfile, ProfileReport
from edgekd.profiling.sections import Profiler
from edgekd.records import Filed
from edgekd.store.atomic import sweep, write_json
from edgekd.store.schema import read_record

__all__ = ["expected_s", "profile_device", "profiles_folder"]

_PRECISIONS = (Precision.FLOAT32, Precision.FLOAT16, Precision.INT8)
_QUICK = (Precision.FLOAT32, Precision.INT8)
_WITHIN_S = 55.0  # latest start of a step in a quick profile: with that step, and the command, a minute
_CONVERT_S, _PROCESS_S, _IMPORT_S = 1.6, 0.7, 8.0
_OPERATORS_S = 8.0
_AGAIN_S = 24 * 3600.0
_MEMORY_S, _BEHAVIOUR_S = 6.0, 110.0
_QUICK_MEMORY_S, _QUICK_BEHAVIOUR_S = 3.0, 15.0


def profiles_folder() -> Path:
    """Folder of this person's profiles."""
    return Path(platformdirs.user_data_dir("edgekd")) / "profiles"


def profile_device(
    device: Device,
    backends: Sequence[Backend],
    quick: bool,
    again: bool,
    events: Events,
    folder: Path | None = None,
    precisions: Sequence[Precision] = (),
    threads: int = 1,
    now: Callable[[], float] = time.monotonic,
) -> ProfileReport:
    """Measure the missing sections, and write the page.

    ``again`` measures everything anew; if stopped, the same command continues within a day with the rest. A full
    section replaces a quick one, never the other way round; one without results is tried again. A quick profile ends
    within a minute, or with its first section where that takes longer: sections it had no time for are left out and
    listed. Raises UnknownName, MissingError where a requested backend is not there, Interrupted (finished sections are
    kept), and what opening raises.
    """
    begun = now()
    for backend in backends:
        formats_of(backend)  # raises UnknownName on one that can't be driven, before the device is taken
    session = device.open()
    try:
        fingerprint = session.describe()
        if fingerprint.times_only:
            raise MissingError(
                f"{device.name} tells times of whole models only: a profile needs more",
                "put a Python there (on a phone, Termux), and reach it by kind: adb",
            )
        if fingerprint.simulates:
            raise MissingError(
                f"{device.name} estimates by {fingerprint.simulator}, and a profile is of measurements",
                f"profile a device that runs models; rank with this one: edgekd bench MODEL --device {device.name}",
            )
        usable = _usable(fingerprint, backends, quick)
        safe = "".join(c if c.isalnum() or c in "-." else "_" for c in device.name)
        home = (folder or profiles_folder()) / f"{safe}-{fingerprint.digest()[:12]}"
        home.mkdir(parents=True, exist_ok=True)
        sweep(home)
        wanted = tuple(dict.fromkeys(precisions)) or (_QUICK if quick else _PRECISIONS)
        deployments = [(backend, precision) for backend in usable for precision in wanted]
        behaviour = f"behaviour-{_of_backend(fingerprint, usable[0])}"
        names = [_name(_of_backend(fingerprint, backend), precision, threads) for backend, precision in deployments]
        sections = ("memory", *names, behaviour)
        anew = _Anew(home / "again.json", again)
        known = _known(home, sections, quick, anew)
        missing = [name for name in sections if name not in known]
        if missing:
            events.line(
                f"profiling  {device.name}: {len(missing)} sections, about "
                f"{_duration(expected_s(missing, quick))}; what is finished is kept"
            )
        clock = _Clock(now, begun, quick)
        with (
            tempfile.TemporaryDirectory(prefix="edgekd-profile-") as scratch,
            Converter(Path(scratch) / "c") as converter,
        ):
            profiler = Profiler(
                device=device.name,
                session=session,
                fingerprint=fingerprint,
                make=ProbeBuilder(converter, fingerprint, Path(scratch)),
                depthwise=Depthwise(Path(scratch) / "depthwise"),
                quick=quick,
                drift_baseline=DriftBaseline(),
                stop=lambda: _stop(events),
                threads=threads,
            )
            for done, name in enumerate(missing):
                _stop(events)

                def report_step(what: str, step: int, steps: int, name: str = name, done: int = done) -> None:
                    _stop(events)
                    clock.check()
                    events.progress("profiling", done, len(missing), f"{name}: {what} {step}/{steps}")

                try:
                    clock.begin(name)
                    section: DeploymentProfile | MemoryProfile | BehaviourProfile
                    if name == "memory":
                        section = profiler.memory(report_step)
                    elif name == behaviour:
                        section = profiler.behaviour(usable[0], report_step)
                    else:
                        section = profiler.deployment(*deployments[names.index(name)], report_step)
                except _NoTimeLeft:
                    continue
                known[name] = section
                write_json(home / f"{name}.json", section)
                anew.finished(name)
                if _has_results(section):
                    clock.finished()
            if all(name in known for name in sections):
                anew.over()
    finally:
        session.close()
    report = ProfileReport(
        device=device.name,
        fingerprint=fingerprint,
        folder=str(home),
        quick=quick,
        threads=threads,
        deployments=tuple(found for name in names if isinstance(found := known.get(name), DeploymentProfile)),
        memory=found if isinstance(found := known.get("memory"), MemoryProfile) else None,
        behaviour=found if isinstance(found := known.get(behaviour), BehaviourProfile) else None,
        reused=tuple(name for name in sections if name not in missing),
        left_out=tuple(name for name in missing if name not in known),
    )
    write_page(report.but(deployments=_all_deployments(home)), home)
    return report


def _stop(events: Events) -> None:
    if events.stop():
        raise Interrupted("stopped; finished sections are kept", "go on with the same command")


class _NoTimeLeft(Exception):
    """A quick profile is at its end."""


class _Clock:
    """Time limit of a quick profile: no section begins that is not expected to fit, no step too late.

    The limit applies once a section has results: on a machine where one section alone takes longer, each call
    finishes one, and the same command comes to an end.
    """

    def __init__(self, now: Callable[[], float], begun_s: float, quick: bool) -> None:
        self._now, self._ends_s = now, begun_s + _WITHIN_S if quick else float("inf")
        self._begun_s, self._sections, self._any_finished = now(), list[str](), False

    def begin(self, section: str) -> None:
        """Check that a section fits; a device that took longer so far is expected to, up to twice as long. Raises
        _NoTimeLeft.
        """
        expected = expected_s(self._sections, quick=True)
        slower = (self._now() - self._begun_s) / expected if expected else 1.0
        takes = min(max(1.0, slower), 2.0) * _of_section_s(section, quick=True)
        if self._any_finished and self._now() + takes > self._ends_s:
            raise _NoTimeLeft
        self._sections.append(section)

    def finished(self) -> None:
        """Record that a section has results."""
        self._any_finished = True

    def check(self) -> None:
        """Check that time is left. Raises _NoTimeLeft."""
        if self._any_finished and self._now() > self._ends_s:
            raise _NoTimeLeft


def expected_s(sections: Sequence[str], quick: bool) -> float:
    """Expected seconds of the sections: a conversion, and fresh processes, per network."""
    deployments = any(name.startswith("deployment-") for name in sections)
    return sum(_of_section_s(name, quick) for name in sections) + (_IMPORT_S if deployments else 0.0)


def _of_section_s(section: str, quick: bool) -> float:
    """Expected seconds of one section once the converters are imported."""
    if section == "memory":
        return _QUICK_MEMORY_S if quick else _MEMORY_S
    if section.startswith("behaviour"):
        return _QUICK_BEHAVIOUR_S if quick else _BEHAVIOUR_S
    networks = 2 + len(width_sweep(quick)) + (0 if quick else NETWORKS)
    return networks * (_CONVERT_S + (2 if quick else 3) * _PROCESS_S) + (0.0 if quick else _OPERATORS_S)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _usable(fingerprint: Fingerprint, asked: Sequence[Backend], quick: bool) -> tuple[Backend, ...]:
    """Requested backends, or the installed ones; for a quick profile the first of those."""
    there = [
        backend
        for backend in map(Backend.model_validate, BACKENDS)
        if backend.provider in fingerprint.providers.get(backend.runtime, ()) and can(backend, "measure")
    ]
    absent = [str(backend) for backend in asked if backend not in there]
    if absent or not there:
        known = ", ".join(map(str, there)) or "none"
        raise MissingError(
            f"not to be timed on this device: {', '.join(absent) or 'any runtime'} (there: {known})",
            "install one: edgekd devices install NAME --runtime onnxruntime",
        )
    plain = [backend for backend in there if not BACKENDS[str(backend)].reference]
    return tuple(asked) or tuple(plain[:1] if quick else plain)


def _name(backend: str, precision: Precision, threads: int) -> str:
    several = f"-{threads}-threads" if threads != 1 else ""
    return f"deployment-{backend}-{precision.value}{several}"


def _of_backend(fingerprint: Fingerprint, backend: Backend) -> str:
    """A backend in the name of a section, with the device's digest for it where that is not the folder's."""
    name, subject = str(backend).replace("/", "-"), fingerprint.digest(backend)
    return name if subject == fingerprint.digest() else f"{name}-{subject[:12]}"


class _Anew:
    """Sections that ``--again`` has measured, so that it can be stopped; one begun a day ago is not resumed."""

    def __init__(self, path: Path, again: bool) -> None:
        self._path, self.asked = path, again
        self._record = AgainRecord(begun_s=time.time())
        if again and path.is_file():
            before = read_record(path, AgainRecord)
            if 0.0 <= self._record.begun_s - before.begun_s < _AGAIN_S:
                self._record = before

    def has(self, name: str) -> bool:
        """Tell whether a section is already measured anew."""
        return name in self._record.done

    def finished(self, name: str) -> None:
        """Record that a section was written."""
        if self.asked:
            self._record = self._record.but(done=(*self._record.done, name))
            write_json(self._path, self._record)

    def over(self) -> None:
        """End: all requested sections are measured anew."""
        if self.asked:
            self._path.unlink(missing_ok=True)


def _known(home: Path, names: Sequence[str], quick: bool, anew: _Anew) -> dict[str, Filed]:
    """Existing sections that are complete enough and have results. A quick profile leaves full ones as they are."""
    found: dict[str, Filed] = {}
    for name in names:
        path = home / f"{name}.json"
        if path.is_file():
            section = _read(path)
            whole_enough = quick or not section.quick
            keeps = not anew.asked or anew.has(name) or (quick and not section.quick)
            if _has_results(section) and whole_enough and keeps:
                found[name] = section
    return found


def _read(path: Path) -> DeploymentProfile | MemoryProfile | BehaviourProfile:
    if path.name.startswith("deployment-"):
        return read_record(path, DeploymentProfile)
    if path.name == "memory.json":
        return read_record(path, MemoryProfile)
    return read_record(path, BehaviourProfile)


def _has_results(section: DeploymentProfile | MemoryProfile | BehaviourProfile) -> bool:
    if isinstance(section, DeploymentProfile):
        return not section.refused
    return bool(section.streams) if isinstance(section, MemoryProfile) else bool(section.threads)


def _all_deployments(home: Path) -> tuple[DeploymentProfile, ...]:
    """All recorded deployments: the page shows everything known, not only the last request."""
    return tuple(read_record(path, DeploymentProfile) for path in sorted(home.glob("deployment-*.json")))
