"""Builder of one file of a model: calibrated, converted in the worker, compared with the model, scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Fingerprint, Job
from edgekd.errors import ConfigurationError, Diverged, EdgeKDError
from edgekd.export._protocol import ExportOptions
from edgekd.export.converter import Converter
from edgekd.export.facts import facts_of
from edgekd.export.parity import ParityReport, check_parity
from edgekd.export.score import score_artefact
from edgekd.exporting.answer import ExportedFile
from edgekd.exporting.data import ModelTask
from edgekd.ir.backends import BACKENDS
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.store.certificate import Parity
from edgekd.store.records import RunHeader
from edgekd.students._protocol import Student
from edgekd.students.own import Own
from edgekd.students.student import new_student, save_student
from edgekd.tasks._protocol import SplitName
from edgekd.tasks.splits import spread

__all__ = ["FileBuilder", "Made", "backend_for", "detail_of", "options_for"]

_CALIBRATION, _PARITY = 256, 64


@dataclass(frozen=True)
class Made:
    """File of one format at one precision, with its row of the answer. Without an artefact the row has the reason."""

    row: ExportedFile
    candidate: Candidate
    options: ExportOptions
    key: str = ""  # of the student, under the builder's students
    student: Student | None = None
    artefact: Artefact | None = None
    parity: ParityReport | None = None
    float_operators: tuple[str, ...] | None = None

    @property
    def job(self) -> Job:
        """Measurement job: the file on its backend. Raises ValueError where there is no file."""
        if self.artefact is None or self.candidate.backend is None:
            raise ValueError(f"{self.candidate} has no file")
        return Job(artefact=self.artefact, backend=self.candidate.backend)

    def but(self, **changes: object) -> Made:
        """Return a copy with some fields of its row changed."""
        return replace(self, row=self.row.but(**changes))


@dataclass(frozen=True)
class FileBuilder:
    """Builder of one model's files. ``scratch`` holds students and files until they are bundled.

    Without a session files are converted and not compared; without a header they carry no metadata.
    """

    family: Own
    task: ModelTask
    converter: Converter
    scratch: Path
    session: DeviceSession | None = None
    fingerprint: Fingerprint | None = None
    header: RunHeader | None = None
    seed: int = 0

    @property
    def students(self) -> Path:
        """Folder of calibrated students by key."""
        return self.scratch / "students"

    def make(self, form: Format, precision: Precision, backend: Backend) -> Made:
        """Write and compare one file. A failure is a row with its reason."""
        made = self.converted(form, precision, backend)
        return made if made.artefact is None else self._compared(made)

    def converted(self, form: Format, precision: Precision, backend: Backend) -> Made:
        """Write one file without comparing it. A failure is a row with its reason."""
        candidate = Candidate(
            family=self.family.name,
            arch=self.family.original(self.task.spec),
            plan=CompressionPlan(precision=precision),
            backend=backend,
        )
        options = options_for(self.task, form)
        row = ExportedFile(format=form, precision=precision, backend=str(backend), outcome="refused")
        made = Made(row, candidate, options)
        try:
            student = self._calibrated(candidate)
        except (ConfigurationError, Diverged) as error:
            return made.but(detail=detail_of(error))
        key = f"{form.value}-{precision.value}-{backend.runtime}-{backend.provider}"
        save_student(student, self.students / key)
        path = self.scratch / "files" / key / f"model{form.suffix}"
        facts = facts_of(self.header, candidate, options, form) if self.header is not None else {}
        result = self.converter.convert(self.students / key, form, options, backend, self.fingerprint, path, facts)
        if result.artefact is None:
            return made.but(detail=result.detail or result.outcome.value)
        return replace(
            made, key=key, student=student, artefact=result.artefact, float_operators=result.float_operators
        ).but(size_bytes=result.artefact.size_bytes, outcome="passed over", in_float=student.annotations.in_float)

    def scored(self, made: Made, split: SplitName) -> float:
        """Score of the file on a split, in its runtime."""
        assert made.student is not None
        assert self.session is not None
        scratch = self.scratch / "score"
        return score_artefact(self.session, made.job, made.student, self.task, split, made.options, scratch).value

    def _calibrated(self, candidate: Candidate) -> Student:
        spec, precision = self.task.spec, candidate.plan.precision
        student = new_student(self.family, candidate.arch, spec, self.seed)
        split = self.task.split("calibration")
        inputs = split.inputs[spread(len(split), _CALIBRATION)]
        if precision.is_static and not len(inputs):
            raise ConfigurationError.one(
                f"{precision.value} needs samples to find its ranges by", "give --data, or --precision dynamic-int8"
            )
        return calibrate(student, inputs, precision, "percentile", self.fingerprint, candidate.backend)

    def _compared(self, made: Made) -> Made:
        assert made.student is not None
        assert self.session is not None
        validation = self.task.split("validation")
        raw = validation.inputs[spread(len(validation), _PARITY)]
        try:
            report = check_parity(self.session, made.job, made.student, raw, made.options, self.scratch / "parity")
        except ConfigurationError as error:
            return made.but(outcome="refused", detail=detail_of(error))
        parity = Parity(samples=report.samples, agree=report.agree, largest=report.largest, unit=report.unit)
        if not report.holds:
            return made.but(outcome="differs", detail=f"from the model: {report.detail}", parity=parity)
        return replace(made, parity=report).but(parity=parity)


_LAYOUT: Mapping[Format, str] = {Format.TFLITE: "nhwc", Format.ONNX: "nchw", Format.OPENVINO: "nchw"}
"""Usual layout of each format: where users expect the channels."""


def options_for(task: ModelTask, form: Format) -> ExportOptions:
    """I/O wrapper of the file: raw pixels where the images are raw, with normalisation inside; else the model's own
    input.
    """
    raw = task.spec.input.raw_dtype == "uint8"
    return ExportOptions.model_validate(
        {"input": "uint8" if raw else "float32", "layout": _LAYOUT[form], "preprocess": "fold"}
    )


def backend_for(form: Format) -> Backend:
    """First backend that reads the format natively: outputs are checked there."""
    return Backend.model_validate(next(name for name, spec in BACKENDS.items() if spec.formats[0] is form))


def detail_of(error: EdgeKDError) -> str:
    """Format an error as the detail of a row."""
    if isinstance(error, ConfigurationError):
        first, *more = error.problems
        also = f" (and {len(more)} more like it)" if more else ""
        return f"{first.message}{also}" + (f"; {first.remedy}" if first.remedy else "")
    return error.message
