"""The certified student in further formats that were asked for: converted, checked by its answers, never timed."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import EdgeKDError, Interrupted
from edgekd.export._protocol import ExportOptions
from edgekd.export.converter import Converter
from edgekd.export.facts import facts_of
from edgekd.export.parity import check_parity
from edgekd.ir.backends import BACKENDS
from edgekd.ir.plan import Candidate
from edgekd.records import digest_file
from edgekd.store.certificate import BundledFile, OtherFormat, Parity
from edgekd.store.run import Run
from edgekd.students._protocol import Student
from edgekd.tasks._protocol import Task
from edgekd.tasks.splits import spread

__all__ = ["other_formats"]

_SAMPLES = 64


def other_formats(
    run: Run,
    candidate: Candidate,
    student: tuple[Path, Student],
    certified: Format,
    task: Task,
    options: ExportOptions,
    session: DeviceSession,
    draft: Path,
) -> tuple[tuple[OtherFormat, ...], tuple[BundledFile, ...]]:
    """Write ``model.SUFFIX`` for each asked format but the certified one; what can't be had is said with its reason."""
    wanted = [form for form in options.formats if form is not certified]
    if not wanted:
        return (), ()
    found, files = list[OtherFormat](), list[BundledFile]()
    with Converter(run.scratch / "convert") as converter:
        for form in wanted:
            backend = _backend(run, form)
            scratch = run.scratch / "bundle" / form.value
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / f"model{form.suffix}"
            facts = facts_of(run.header, candidate, options, form)
            result = converter.convert(student[0], form, options, backend, run.header.fingerprint, path, facts)
            if result.artefact is None:
                reason = f"{result.outcome.value}: {result.detail}"
                found.append(OtherFormat(format=form, backend=backend, parity=None, detail=reason))
                continue
            parity, detail = _parity(session, result.artefact, backend, student[1], task, options, scratch)
            found.append(OtherFormat(format=form, backend=backend, parity=parity, detail=detail))
            files += _copied(result.artefact, draft)
    return tuple(found), tuple(files)


def _backend(run: Run, form: Format) -> Backend:
    """A backend of the target that reads the format natively and answers samples, or else the first there is."""
    native = [name for name, spec in BACKENDS.items() if spec.formats[0] is form and "execute" in spec.can]
    asked = [backend for backend in run.header.target.backends if str(backend) in native]
    return asked[0] if asked else Backend.model_validate(native[0])


def _parity(
    session: DeviceSession,
    artefact: Artefact,
    backend: Backend,
    student: Student,
    task: Task,
    options: ExportOptions,
    scratch: Path,
) -> tuple[Parity | None, str]:
    validation = task.split("validation").inputs
    raw = validation[spread(len(validation), _SAMPLES)]
    try:
        report = check_parity(session, Job(artefact=artefact, backend=backend), student, raw, options, scratch)
    except Interrupted:
        raise
    except EdgeKDError as error:  # its runtime need not be here: the file is one more, not the certified one
        return None, f"not checked: {error.message}"
    parity = Parity(samples=report.samples, agree=report.agree, largest=report.largest, unit=report.unit)
    return parity, "" if report.holds else f"answers differently from the student: {report.detail}"


def _copied(artefact: Artefact, draft: Path) -> list[BundledFile]:
    copied = []
    for name, source in artefact.named("model").items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        size = path.stat().st_size
        copied.append(BundledFile(name=name, sha256=digest_file(path), size_bytes=size, role="other format"))
    return copied
