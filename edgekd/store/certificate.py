"""Certificate: figures of a model, their device and method; the record that outlives the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from edgekd.artefacts import Backend, Format
from edgekd.devices._protocol import Fingerprint, MeasurePlan
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.ir.plan import Candidate
from edgekd.records import Digest, Filed, Record
from edgekd.store.records import Accuracy
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer, Verdict
from edgekd.tasks._protocol import TaskSpec

__all__ = ["CERTIFICATE", "BundledFile", "Certificate", "OtherFormat", "Parity"]

CERTIFICATE = "certificate.json"


class BundledFile(Record):
    """File of the bundle, by content."""

    name: str  # relative to the bundle
    sha256: Digest
    size_bytes: int
    role: Literal["model", "weights", "preprocess", "samples", "card", "example", "tokenizer", "other format"]


class Parity(Record):
    """Parity of the exported file with the PyTorch student at the file's precision, raw input to output, on validation
    samples.
    """

    samples: int
    agree: int  # outputs with the same class
    largest: float  # difference between two logits, in `unit`
    unit: str  # what a difference of 1 means
    alike: int | None = None  # of several heads: outputs that, once decoded, are nearly the student's


class OtherFormat(Record):
    """The same student in another format than the certified one: its outputs were checked, its time was not."""

    format: Format
    backend: Backend  # in which its outputs were checked
    parity: Parity | None  # None where there is no file, or nothing here runs it
    detail: str = ""  # why, or how it differs


class Certificate(Filed):
    """Certified file, with everything measured of it."""

    schema_: Literal["edgekd.certificate/1"] = Field(default="edgekd.certificate/1", alias="schema")
    created: str  # ISO 8601, UTC
    target: Target
    fingerprint: Fingerprint
    task: TaskSpec
    candidate: Candidate
    model: str  # the certified file's name
    format: Format
    backend: Backend
    files: tuple[BundledFile, ...]
    figures: tuple[Figure, ...]
    plan: MeasurePlan
    verdict: Verdict
    accuracy: Accuracy  # test split, by the exported file in its runtime
    float_twin: Accuracy | None  # the same student in PyTorch float32, same split
    parity: Parity
    teacher: str
    export: Mapping[str, Any]
    versions: Mapping[str, str]
    seed: int
    run: str
    others: tuple[OtherFormat, ...] = ()
    load_average: NonNegativeFloat | None = None  # of the whole machine during measurement; None where it is unknown
    machine_cores: PositiveInt | None = None  # all cores of the machine
    own: Accuracy | None = None  # the user's own untouched model: test split, PyTorch float32
    in_float: str = ""  # operators of an int8 student that compute in float, counted by kind
    cautions: tuple[str, ...] = ()  # reasons why it may not be worth shipping though every limit holds

    @model_validator(mode="after")
    def _not_estimated(self) -> Certificate:
        if any(figure.kind is EvidenceKind.SIMULATED for figure in self.figures):
            raise ValueError("a certificate has no simulated figures: nothing ran")
        return self

    @property
    def certified(self) -> bool:
        """True if every hard limit holds, on figures measured on the target's own device, with accuracy by the file
        itself.
        """
        return self._holds and self._kind is EvidenceKind.MEASURED

    @property
    def lesser(self) -> EvidenceKind | None:
        """Weaker evidence kind by which every hard limit holds: `emulated` (artificial limits) or `modelled`; else
        None.
        """
        return self._kind if self._holds and not self.certified else None

    @property
    def standing(self) -> str:
        """`certified`, `emulated`, `modelled` or `not certified`."""
        return "certified" if self.certified else self.lesser.value if self.lesser else "not certified"

    @property
    def _holds(self) -> bool:
        subject = self.fingerprint.digest(self.backend)
        return (
            self.verdict.holds
            and self.accuracy.kind is AccuracyKind.ARTEFACT
            and all(figure.subject == subject for figure in self._timed)
            and self._kind in (EvidenceKind.MEASURED, EvidenceKind.EMULATED, EvidenceKind.MODELLED)
        )

    @property
    def _timed(self) -> list[Figure]:
        of_the_file = ("accuracy", "delegation", "operators", "size")
        return [figure for figure in self.figures if not figure.metric.startswith(of_the_file)]

    @property
    def _kind(self) -> EvidenceKind:
        """Weakest evidence kind of the device's figures; a modelled figure without a hard limit does not count."""
        asked = {limit.metric for limit in self.target.limits if limit.hard}
        counted = [f.kind for f in self._timed if f.kind is not EvidenceKind.MODELLED or f.metric in asked]
        return min(counted, key=lambda kind: kind.strength, default=EvidenceKind.MEASURED)

    def shortfall(self) -> str:
        """Reason why it is not certified, as text; empty where it is."""
        missed = [
            f"{v.limit} {v.answer.value}" + (f" ({v.figure})" if v.figure else "")
            for v in self.verdict.limits
            if v.limit.hard and v.answer is not Answer.HOLDS
        ]
        if missed or self.certified:
            return ", ".join(missed)
        if self.lesser is EvidenceKind.EMULATED:
            return f"its figures are emulated: {self.fingerprint.limits}"
        if self.lesser is EvidenceKind.MODELLED:
            return f"its energy is modelled: {self.fingerprint.meter}"
        return "its figures were not all measured on the target's own device"

    def summary(self) -> str:
        """Summary line: runtime, precision, accuracy, latency and size."""
        by_metric = {figure.metric: figure for figure in self.figures}
        scored = "test" if self.task.metric.name != "agreement" else "agreement with the float model"
        parts = [f"{self.backend.runtime} {self.candidate.plan.precision.value}", f"{self.accuracy.value:.1%} {scored}"]
        for metric, name in (("latency.p95", "p95"), ("latency.p50", "p50"), ("size.file", "")):
            if metric in by_metric:
                parts.append(f"{name} {by_metric[metric]}".strip())
        return " . ".join(parts)
