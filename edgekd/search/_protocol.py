"""Protocols of a search: sampler, artefact builder, accuracy estimate, trainer of finalists, static analyser.

Deciding (filters, deployments, samplers, the choice) reads records and returns records. Running (`ArtefactBuilder`,
`AccuracyEstimate`, `FinalistTrainer`, `StaticAnalyser`) turns a candidate into facts. Only the loop writes to the run
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from edgekd.artefacts import Artefact
from edgekd.devices._protocol import Fingerprint
from edgekd.events import StageProgress
from edgekd.evidence import AccuracyKind
from edgekd.export._protocol import ConversionResult
from edgekd.ir.features import StaticFeatures
from edgekd.ir.kernels import Kernels
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.records import Digest
from edgekd.stages import Stage
from edgekd.store.records import Accuracy, CurvePoint, Deployment, FinalistRecord, PlanRecord, TrialRecord
from edgekd.students._protocol import Family
from edgekd.tasks._protocol import Task
from edgekd.teachers._protocol import Teacher

__all__ = [
    "AccuracyEstimate",
    "ArtefactBuilder",
    "CandidateRanking",
    "Estimate",
    "EstimateContext",
    "FinalistTrainer",
    "Knowledge",
    "Refined",
    "Sampler",
    "StaticAnalyser",
    "Step",
]


@dataclass(frozen=True)
class CandidateRanking:
    """Ranking of archs on one deployment, made outside the trials (by a trained choice), for the sampler to follow."""

    deployment: Deployment
    order: Sequence[int]  # indices, best first
    predicted_us: Sequence[float]  # latency of each, in the same order
    budget_us: float  # limit of the measured 5th percentile
    even: Sequence[int] = ()  # those of them that are evenly scaled, tried as well


@dataclass(frozen=True)
class Knowledge:
    """Knowledge that a proposal may rest on. Everything here comes from the run folder.

    ``allowed`` has, for each kept deployment, the indices of archs no filter removed, ascending. ``trials`` are those
    of earlier batches; ``pending`` are the candidates already proposed in this one. ``affordable`` has the share of the
    whole model's latency that the limits allow, for each deployment where a person's own model clearly misses them.
    ``macs`` has the multiply-adds of each analysed arch by its index. ``known_whole`` are the deployments on which
    the whole model was measured as a reference arch, and is not measured again; ``whole_us`` its 5th percentile on all
    where it was.
    """

    family: str
    plan: PlanRecord
    allowed: Mapping[Deployment, Sequence[int]]
    deployments: Sequence[Deployment]
    trials: Sequence[TrialRecord]
    pending: Sequence[Candidate] = ()
    violations: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # by trial number, then by limit
    ranking: CandidateRanking | None = None
    affordable: Mapping[Deployment, float] = field(default_factory=dict)
    macs: Mapping[int, int] = field(default_factory=dict)
    known_whole: Collection[Deployment] = ()
    whole_us: Mapping[Deployment, float] = field(default_factory=dict)

    @property
    def proposed(self) -> Sequence[TrialRecord]:
        """The trials that a sampler proposed: all but those of a person's own model as it came."""
        return [trial for trial in self.trials if not trial.candidate.plan.untouched]


class Sampler(Protocol):
    """Sampler: proposes candidates. It holds no state: the same knowledge and seed give the same proposal."""

    name: ClassVar[str]

    def propose(self, knowledge: Knowledge, seed: int) -> Candidate | None:
        """Return a candidate that no filter removed and that is neither tried nor pending; None where all have been
        tried.
        """
        ...


class ArtefactBuilder(Protocol):
    """Builder of a candidate's file with untrained weights: latency does not depend on them."""

    def make(self, candidate: Candidate, path: Path) -> ConversionResult:
        """Write the file at ``path`` (its suffix may be changed to the format's). Outcomes are values, not errors."""
        ...


@dataclass(frozen=True)
class EstimateContext:
    """Inputs of an accuracy estimate. The test split is never among them."""

    task: Task
    teacher: Teacher | None
    family: Family
    recipe: Sequence[Stage]
    fingerprint: Fingerprint | None
    students: Path
    stages: Path
    cache: Path
    seed: int
    progress: Callable[[StageProgress], None]
    stop: Callable[[], bool]


@dataclass(frozen=True)
class Estimate:
    """A candidate's accuracy before it is refined, and how fast it trained (None where nothing was trained)."""

    accuracy: Accuracy
    images_per_s: float | None = None


class AccuracyEstimate(Protocol):
    """Accuracy estimate: ranks candidates for less than a full recipe. Constructed from its options (frozen)."""

    name: ClassVar[str]
    kind: ClassVar[AccuracyKind]

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """Score it quantized, as it will ship, on the validation split. Raises Interrupted on ``context.stop()``."""
        ...


@dataclass(frozen=True)
class Refined:
    """Result of training a finalist: a candidate after the whole recipe."""

    student: Digest | None  # folder under students/; None where training diverged
    artefact: Artefact | None  # None where it can't be exported or scored: ``detail`` says why
    accuracy: Accuracy | None
    float_twin: Accuracy | None
    curve: tuple[CurvePoint, ...] = ()
    detail: str = ""
    float_operators: tuple[str, ...] | None = None  # of an int8 file, where its format shows them


@dataclass(frozen=True)
class Step:
    """The student as one stage of the recipe left it, and its file."""

    stage: str
    student: Digest  # folder under students/
    precision: Precision
    artefact: Artefact | None  # path relative to the run; None where there is none: ``detail`` says why
    accuracy: Accuracy | None  # validation, by the exported file
    detail: str = ""


class FinalistTrainer(Protocol):
    """Trainer of finalists: trains, exports and scores a finalist, and makes its float32 baseline."""

    def refine(self, candidate: Candidate, late: Callable[[], bool] = ...) -> Refined:
        """Run the whole recipe; trainings that keep their best epoch end when it is ``late()``.

        Raises Interrupted where the person asked to stop.
        """
        ...

    def twin(self, candidate: Candidate) -> Artefact | None:
        """Return the float32 baseline: the same student in float32 for the same backend, or None where there can be
        none.
        """
        ...

    def steps(self, finalist: FinalistRecord) -> Sequence[Step]:
        """Return the student after every stage of the recipe, in order, without new training. Raises Interrupted."""
        ...


class StaticAnalyser(Protocol):
    """Static analyser: counts features of an arch at float32 without running it on a device."""

    def features(self, arch: Arch) -> StaticFeatures:
        """Evidence kind: analytic."""
        ...

    def kernels(self, arch: Arch) -> Kernels:
        """Return the kernels that a runtime will run for this arch."""
        ...
