"""Turn a run's chosen finalist into a folder a person can ship. The only place where the test split is read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edgekd.artefacts import Artefact, Backend
from edgekd.bundle.agreement import agreeing
from edgekd.bundle.card import card_text
from edgekd.bundle.cautions import cautions_of
from edgekd.bundle.contents import contents_of
from edgekd.bundle.example import example_source
from edgekd.bundle.extra_formats import other_formats
from edgekd.bundle.preprocess import PREPROCESS, preprocess_of
from edgekd.bundle.samples import SAMPLES, Samples, how_many, samples_bytes
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.distill.predict import predict
from edgekd.errors import ConfigurationError, EdgeKDError, ParityFailed, UsageError
from edgekd.evidence import AccuracyKind, accuracy_of
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.parity import compared, expected_answers
from edgekd.export.score import score_artefact
from edgekd.export.tensors import output_encoding
from edgekd.measure.conditions import cores_of, load_of
from edgekd.measure.sentinel import judge_measured
from edgekd.records import digest_file
from edgekd.store.atomic import draft_of, replace_folder, write_bytes, write_json
from edgekd.store.certificate import CERTIFICATE, BundledFile, Certificate, Parity
from edgekd.store.records import Accuracy, FinalistRecord
from edgekd.store.run import Run
from edgekd.store.schema import read_record
from edgekd.students._protocol import Student
from edgekd.students.student import load_student
from edgekd.targets.relative import floored
from edgekd.tasks._protocol import Shipping, Task
from edgekd.tasks.splits import spread
from edgekd.tasks.tokenizing import TOKENIZER

__all__ = ["BUNDLE", "copy_model", "require_free", "whole_certificate", "write_bundle"]

BUNDLE = "bundle"


def write_bundle(
    run: Run,
    finalist: FinalistRecord,
    task: Task,
    options: ExportOptions,
    session: DeviceSession,
    own: Student | None = None,
) -> Certificate:
    """Score the chosen file on the test split, check its parity, and write ``RUN/bundle`` at once.

    ``own`` is the model it was made from, as it came: scored on the same split, which a floor relative to it is held
    against.

    Raises ParityFailed where the file answers differently from the student, and EdgeKDError where it can't be scored.
    """
    artefact, backend, measurement = finalist.artefact, finalist.candidate.backend, finalist.measurement
    if artefact is None or finalist.student is None or backend is None or measurement is None:
        raise EdgeKDError(f"finalist {finalist.rank} was never measured as a file", "go on with the run first")
    artefact = run.resolve(artefact)
    student = load_student(run.students / finalist.student)
    job = Job(artefact=artefact, backend=backend)
    draft, scratch = draft_of(run.folder / BUNDLE), run.scratch / "bundle"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        draft.mkdir(parents=True)
        samples, parity = _checked_samples(job, student, task, options, session, scratch)
        accuracy, twin = _test_accuracy(job, student, task, options, session, scratch)
        model = copy_model(artefact, draft)
        came = None if own is None else _in_torch(own, task, accuracy, "the model as it came in PyTorch float32")
        certificate = _certificate(run, finalist, options, backend, model, artefact, accuracy, twin, parity, came)
        labels = task.split("test").labels
        cautions = cautions_of(certificate, finalist, run.teachers(), labels)
        certificate = certificate.but(in_float=student.annotations.in_float, cautions=cautions)
        write_bytes(draft / SAMPLES, samples_bytes(samples))
        encodings = student.annotations.activations
        outside = preprocess_of(student.task, options, encodings.get("input"), output_encoding(student))
        write_json(draft / PREPROCESS, outside)
        threads = run.header.target.threads
        example = example_source(
            model, backend, threads, options, student.task, encodings.get("input"), student.annotations.precision
        )
        write_bytes(draft / "example.py", example.encode())
        for name, content in (task.shipped() if isinstance(task, Shipping) else {}).items():
            write_bytes(draft / name, content)
        found = (run.students / finalist.student, student)
        others, files = other_formats(run, finalist.candidate, found, artefact.format, task, options, session, draft)
        certificate = certificate.but(others=others)
        write_bytes(draft / "README.md", card_text(certificate).encode())
        weights = [name for name in artefact.named("model") if name != model]
        certificate = certificate.but(files=(*_files(draft, model, weights), *files))
        write_json(draft / CERTIFICATE, certificate)
        replace_folder(draft, run.folder / BUNDLE)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
    return certificate


def whole_certificate(run: Run) -> Certificate | None:
    """The certificate of ``RUN/bundle``; None where it, or a file that it lists, is missing or damaged."""
    try:
        certificate = read_record(run.folder / BUNDLE / CERTIFICATE, Certificate)
        sound = contents_of(run.folder / BUNDLE, certificate).sound
    except (FileNotFoundError, NotADirectoryError, ConfigurationError):
        return None
    return certificate if sound == len(certificate.files) else None


def require_free(output: Path) -> None:
    """Check that a folder holds no more than a bundle: nothing else is ever replaced. Raises UsageError."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"{output} is no folder to write a bundle to", "give --output another folder")
    inside = {str(path.relative_to(output)) for path in output.rglob("*")} if output.is_dir() else set()
    if CERTIFICATE in inside:
        inside -= {CERTIFICATE, *(file.name for file in read_record(output / CERTIFICATE, Certificate).files)}
    if inside:
        raise UsageError(
            f"{output} holds more than a bundle ({min(inside)}), and would be replaced whole",
            "give --output a folder that is new, empty, or an earlier bundle",
        )


def _checked_samples(
    job: Job, student: Student, task: Task, options: ExportOptions, session: DeviceSession, scratch: Path
) -> tuple[Samples, Parity]:
    validation = task.split("validation")
    chosen = spread(len(validation), how_many(validation.inputs[:1], len(validation)))
    raw, labels = np.ascontiguousarray(validation.inputs[chosen]), validation.labels[chosen]
    found = file_answers(session, job, student, raw, options, scratch)
    report = compared(job, student, raw, options, found)
    if not report.holds:
        raise ParityFailed(
            f"{job.artefact.path.name} in {job.backend} answers differently from the PyTorch student: {report.detail}",
            "export in another precision, or report the operator named above",
        )
    parity = Parity(samples=report.samples, agree=report.agree, largest=report.largest, unit=report.unit)
    if student.task.plain:
        return Samples(raw, labels, np.asarray(report.expected, np.float32)), parity
    # a bundle holds decoded answers alone, of which a tie may go either way: `verify` asks for as many as there are now
    answers = expected_answers(student, raw, options, job.backend)
    parity = parity.but(alike=int(np.sum(agreeing(student.task, found, answers))))
    return Samples(raw, labels, answers), parity


def _test_accuracy(
    job: Job, student: Student, task: Task, options: ExportOptions, session: DeviceSession, scratch: Path
) -> tuple[Accuracy, Accuracy]:
    test = task.split("test")
    by_file = score_artefact(session, job, student, task, test, options, scratch)
    accuracy = Accuracy(
        value=by_file.value,
        kind=AccuracyKind.ARTEFACT,
        split="test",
        samples=by_file.samples,
        method=f"the exported file in {job.backend}",
        parts=by_file.parts,
        errors=by_file.errors,
    )
    return accuracy, _in_torch(student, task, accuracy, "the same student in PyTorch float32")


def _in_torch(student: Student, task: Task, scored: Accuracy, words: str) -> Accuracy:
    """The same split in PyTorch."""
    test = task.split("test")
    found = task.score(predict(student.module, test.inputs, student.task), test.labels)
    return scored.but(value=found.value, kind=AccuracyKind.TORCH, method=words, parts=found.parts, errors=found.errors)


def copy_model(artefact: Artefact, draft: Path) -> str:
    """Copy a file, and those of its weights beside it, as ``model``; return the name of the former."""
    named = artefact.named("model")
    for name, source in named.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft / name)
    return next(iter(named))


def _certificate(
    run: Run,
    finalist: FinalistRecord,
    options: ExportOptions,
    backend: Backend,
    model: str,
    artefact: Artefact,
    accuracy: Accuracy,
    twin: Accuracy,
    parity: Parity,
    own: Accuracy | None,
) -> Certificate:
    header, measurement = run.header, finalist.measurement
    assert measurement is not None  # the caller has checked
    method = f"{accuracy.method}, {accuracy.samples} samples of the test split"
    scored = accuracy_of(accuracy.value, artefact.sha256, method)
    target = run.target
    if own is not None:
        target = floored(target.but(accuracy=header.target.accuracy), own.value)
    figures = (*(figure for figure in finalist.figures if figure.metric != "accuracy"), scored)
    return Certificate(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        target=target,
        fingerprint=header.fingerprint,
        task=header.task,
        candidate=finalist.candidate,
        model=model,
        format=artefact.format,
        backend=backend,
        files=(),
        figures=figures,
        plan=measurement.plan,
        verdict=judge_measured(target, figures, measurement),
        accuracy=accuracy,
        float_twin=twin,
        parity=parity,
        teacher=header.teacher,
        export=options.model_dump(mode="json"),
        versions=header.versions,
        seed=header.seed,
        run=header.id,
        load_average=load_of([measurement]),
        machine_cores=cores_of([measurement]),
        own=own,
    )


def _files(draft: Path, model: str, weights: Sequence[str]) -> Sequence[BundledFile]:
    roles = {
        model: "model",
        **dict.fromkeys(weights, "weights"),
        PREPROCESS: "preprocess",
        SAMPLES: "samples",
        "README.md": "card",
        "example.py": "example",
        TOKENIZER: "tokenizer",
    }
    return tuple(
        BundledFile.model_validate(
            {
                "name": name,
                "sha256": digest_file(draft / name),
                "size_bytes": (draft / name).stat().st_size,
                "role": role,
            }
        )
        for name, role in roles.items()
        if (draft / name).is_file()
    )
