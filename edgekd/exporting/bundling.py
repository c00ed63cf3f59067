"""Bundle of a file in a folder: certified on a target's device, or as it was checked here."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgekd.bundle.example import example_source
from edgekd.bundle.preprocess import PREPROCESS, Preprocess, preprocess_of
from edgekd.bundle.samples import SAMPLES, Samples, samples_bytes
from edgekd.bundle.write import BUNDLE, copy_model, require_free, write_bundle
from edgekd.devices._protocol import DeviceSession, Measurement
from edgekd.errors import ConfigurationError, UsageError
from edgekd.events import Events, measuring
from edgekd.evidence import AccuracyKind, Figure, accuracy_of
from edgekd.export.integer import float_figure
from edgekd.export.tensors import output_encoding
from edgekd.exporting.builder import Made
from edgekd.exporting.data import ModelTask
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.sentinel import judge_measured
from edgekd.measure.sequential import measure_until
from edgekd.search.plan import certify_plan
from edgekd.store.atomic import draft_of, replace_folder, write_bytes, write_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.records import Accuracy, FinalistRecord, RunHeader
from edgekd.store.run import Run
from edgekd.store.schema import read_record
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer, Verdict
from edgekd.tasks._protocol import Shipping
from edgekd.tasks.splits import spread

__all__ = ["CARD", "certified_bundle", "checked_bundle", "judged", "require_replaceable"]

CARD = "README.md"
_WRITTEN = (CARD, CERTIFICATE, PREPROCESS, SAMPLES, "example.py")
_MOST = 4  # times the plan's own processes


def require_replaceable(place: Path, read: Iterable[Path] = ()) -> None:
    """Check that a folder holds only earlier exports, and none of ``read``, the inputs of this export. Raises
    UsageError.
    """
    for source in read:
        if source.resolve().is_relative_to(place.resolve()):
            raise UsageError(
                f"{source} lies in {place}, which is replaced whole", "give --output a folder that is new or empty"
            )
        if source.is_dir() and place.resolve().is_relative_to(source.resolve()):
            raise UsageError(f"{place} lies in {source}, and would be read as data", "give --output a folder elsewhere")
    files = [path for path in place.rglob("*") if not path.is_dir()] if place.is_dir() else []
    folders = {path.parent for path in files}
    if place.is_symlink() or not files or not all(_is_exported(folder) for folder in folders):
        require_free(place)


def _is_exported(folder: Path) -> bool:
    """Tell whether a folder holds all files of an export, and no others."""
    names = {path.name for path in folder.iterdir() if not path.is_dir()}
    own = names <= {*_WRITTEN, *(name for name in names if Path(name).stem == "model")}
    if not own or not names >= {SAMPLES, PREPROCESS, "example.py"}:
        return False
    try:
        read_record(folder / PREPROCESS, Preprocess)
    except ConfigurationError:
        return False
    return True


def judged(
    target: Target, made: Made, measurement: Measurement, accuracy: float | None, samples: int
) -> tuple[tuple[Figure, ...], Verdict]:
    """Return figures and verdict of one measured file."""
    assert made.artefact is not None
    figures = list(figures_for_limits(target, measurement, made.artefact))
    if accuracy is not None:
        method = f"the exported file in {made.candidate.backend}, validation split, {samples} samples"
        figures.append(accuracy_of(accuracy, made.artefact.sha256, method))
    if target.fully_integer and made.float_operators is not None:
        figures.append(float_figure(made.float_operators, made.artefact.sha256))
    return tuple(figures), judge_measured(target, figures, measurement)


def certified_bundle(
    made: Made,
    accuracy: float,
    task: ModelTask,
    header: RunHeader,
    students: Path,
    session: DeviceSession,
    scratch: Path,
    folder: Path,
    events: Events,
) -> Certificate:
    """Measure a file in fresh processes, and write its bundle to ``folder`` with the certificate.

    Raises ParityFailed, Interrupted.
    """
    assert made.artefact is not None
    samples, target = len(task.split("validation")), header.target
    plan = certify_plan(target, header.seed)

    def decided(measurements: Sequence[Measurement]) -> bool:
        return judged(target, made, measurements[0], accuracy, samples)[1].answer is not Answer.UNSTABLE

    limit = _MOST * plan.processes
    measurement = measure_until(session, [made.job], plan, decided, limit, measuring(events), events.stop)[0]
    figures, verdict = judged(target, made, measurement, accuracy, samples)
    run = Run.create(scratch, header)
    shutil.copytree(students / made.key, run.students / made.key)
    finalist = FinalistRecord(
        rank=1,
        trial=-1,
        candidate=made.candidate,
        student=made.key,
        artefact=made.artefact.but(path=made.artefact.path.absolute()),
        curve=(),
        accuracy=Accuracy(
            value=accuracy,
            kind=AccuracyKind.ARTEFACT,
            split="validation",
            samples=samples,
            method=f"the exported file in {made.candidate.backend}",
        ),
        float_operators=made.float_operators,
        measurement=measurement,
        figures=figures,
        verdict=verdict,
        chosen=True,
    )
    certificate = write_bundle(run, finalist, task, made.options, session)
    _put(run.folder / BUNDLE, folder)
    return certificate


def checked_bundle(made: Made, task: ModelTask, header: RunHeader, card: str, folder: Path) -> None:
    """Write a file's bundle to ``folder``: model, preprocess, samples, example, card; without measurements."""
    assert made.artefact is not None
    assert made.student is not None
    assert made.parity is not None
    draft = draft_of(folder.absolute())
    draft.mkdir(parents=True)
    try:
        model = copy_model(made.artefact, draft)
        annotations, spec = made.student.annotations, task.spec
        encoding = annotations.activations.get("input")
        validation = task.split("validation")
        chosen = spread(len(validation), made.parity.samples)  # the samples of the parity check
        samples = Samples(
            np.ascontiguousarray(validation.inputs[chosen]),
            validation.labels[chosen],
            np.asarray(made.parity.expected, np.float32),
        )
        write_bytes(draft / SAMPLES, samples_bytes(samples))
        outside = preprocess_of(spec, made.options, encoding, output_encoding(made.student))
        write_json(draft / PREPROCESS, outside)
        example = example_source(
            model, made.job.backend, header.target.threads, made.options, spec, encoding, annotations.precision
        )
        write_bytes(draft / "example.py", example.encode())
        write_bytes(draft / CARD, card.encode())
        for name, content in (task.shipped() if isinstance(task, Shipping) else {}).items():
            write_bytes(draft / name, content)
        replace_folder(draft, folder.absolute())
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(bundle: Path, folder: Path) -> None:
    draft = draft_of(folder.absolute())
    try:
        shutil.copytree(bundle, draft)
        replace_folder(draft, folder.absolute())
    finally:
        shutil.rmtree(draft, ignore_errors=True)
