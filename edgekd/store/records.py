"""Records of a run folder. The folder is the only truth: everything else is recomputed from these records.

::

    RUN/
      run.json                 RunHeader: command, project, target and device of the run
      auto.json                AutoRecord: the loss and the views that `recipe: auto` chose
      teachers.json            TeachersRecord: accuracy of the teacher, and of those it was trained from
      plan.json                PlanRecord: rules of this run's decisions, fixed when it starts
      features.json            FeaturesRecord: static features of each arch analysed
      filters.json             FiltersRecord
      original.json            OriginalRecord: the user's own untouched model
      reference-archs/03.json  ReferenceArchRecord, one file a reference arch, measured on every deployment still in
      deployments.json         DeploymentsRecord
      networks.json prior_tables.json predictors/   latency prediction: `edgekd.store.predicted`
      trials/0007.json         TrialRecord, one file a trial, written once when it ends
      latencies/ latency_model.json supernet.json teacher-tunings/
                               differentiable search: `edgekd.store.differentiable`
      proposals.json           ProposalsRecord: when and why proposing ended
      rounds/02.json           RoundRecord: one iteration of iterative pruning
      rechecks/0007.json       RecheckRecord: a finalist's arch on the deployments that came near its own
      shortlist.json           ShortlistRecord: the best trials as the verdict will measure them, before long training
      finalists/02.json        FinalistRecord, written when refined and again when judged
      outcome.json             OutcomeRecord: how the run ended
      stages.json              StagesRecord: the chosen student after each stage of the recipe
      explanation.json         ExplanationRecord: loss shares, and agreement with the teacher
      students/KEY/            student.json and weights.safetensors
      artefacts/SHA256.tflite  finalists' files only
      stages/KEY/              a recipe stage's own checkpoints, curve.jsonl, and done.json
      bundle/                  the delivered files
      report.html

Every JSON file carries its ``schema`` and is written atomically. Paths inside records are relative to the run folder.
Times called ``ended_s`` are on the run's own clock: seconds it has worked, without the pauses between resumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Fingerprint, Measurement, MeasurePlan
from edgekd.errors import Unstable
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.ir.features import StaticFeatures
from edgekd.ir.kernels import Kernels
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch, Axis, Space
from edgekd.records import Digest, Extended, Filed, Record
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.targets.target import Target
from edgekd.targets.verdict import Verdict
from edgekd.tasks._protocol import TaskSpec

__all__ = [
    "Accuracy",
    "AutoOption",
    "AutoRecord",
    "AutoScore",
    "CurvePoint",
    "Deployment",
    "DeploymentObservation",
    "DeploymentsRecord",
    "DroppedDeployment",
    "FeaturesRecord",
    "FilterReport",
    "FiltersRecord",
    "FinalistRecord",
    "LeftWhole",
    "NeverSlower",
    "OutcomeRecord",
    "PlanRecord",
    "ProposalsRecord",
    "RankCorrelation",
    "ReferenceArchRecord",
    "RoundObservation",
    "RoundOption",
    "RoundRecord",
    "RoundsPlan",
    "RunHeader",
    "StageObservation",
    "StagesRecord",
    "TeacherScore",
    "TeachersRecord",
    "TrialRecord",
]

_SHOWN_LAYERS = 3


class RunHeader(Filed):
    """Header of a run: its command, project, target, task, teacher, family and device."""

    schema_: Literal["edgekd.run/1"] = Field(default="edgekd.run/1", alias="schema")
    id: str
    command: Literal["search", "compress", "distill", "export"]
    created: str  # ISO 8601, UTC
    project: Mapping[str, Any]  # the project file, resolved
    project_file: str
    written: Mapping[str, Any] | None = None  # the project as it was given, where the file alone doesn't hold it
    target: Target
    task: TaskSpec
    teacher: str
    teacher_digest: Digest
    family: str
    family_digest: Digest | None = None  # of its options and initial weights; earlier runs have none
    fingerprint: Fingerprint
    versions: Mapping[str, str]
    seed: int
    budget_s: float | None
    sizes: str = ""  # of the data's splits, in words; earlier runs have none


class RoundsPlan(Record):
    """Plan of iterative pruning."""

    recover: int  # epochs an iteration
    least_gain: float  # a step that gains less ends it


class PlanRecord(Filed):
    """Plan of a run's decisions. Fixed when it starts, so that a resumed or replayed run decides alike."""

    schema_: Literal["edgekd.plan/1"] = Field(default="edgekd.plan/1", alias="schema")
    axes: tuple[Axis, ...]
    deployments: tuple[Deployment, ...]  # all that the target and the recipe allow
    reference_archs: int  # number of archs the deployments are compared on
    sampler: str
    batch: int  # candidates proposed together, then measured side by side
    trials: int | None  # at most; None: as many as the budget holds
    finalists: int  # at most
    measure: MeasurePlan  # of deployments and trials
    certify: MeasurePlan  # of finalists
    refine_images: int  # samples that training one finalist takes, teacher tuning included; 0 where it trains nothing
    # runs made before these rules existed are decided without them
    validation_images: int = 0
    test_images: int = 0  # 0 where the task does not count them
    samples_a_call: int = 1  # of an exported file
    skips_missed: bool = False  # the user's own whole model is not tried again where it clearly missed
    whole_first: bool = False  # it is the first reference arch, and its files are not measured again as trials
    whole_undecided: bool = False  # its fastest files are tried first; a miss within the interval rules out none
    by_files_seen: bool = False  # the reference archs' files narrow what is proposed
    recheck: bool = False  # surviving deployments are measured again on each finalist
    largest_first: bool = False  # each deployment's first trial is the largest arch that may fit
    rounds: RoundsPlan | None = None  # shrinks one model step by step instead of proposing trials
    time_is_bounded: bool = False  # by the target: then only accuracy is maximised
    differentiable: DifferentiableOptions | None = None  # where the choice of an arch is trained; None: sampled
    original: Arch | None = (
        None  # the user's own model, tried untouched on every kept deployment before anything is trained
    )
    predict: bool = False  # archs predicted to be too slow are not proposed

    @property
    def space(self) -> Space:
        """Space of all archs."""
        return Space(axes=self.axes)


class FeaturesRecord(Filed):
    """Static features, at float32, of every arch analysed: the whole space, or an even sample of it."""

    schema_: Literal["edgekd.features/1"] = Field(default="edgekd.features/1", alias="schema")
    space_size: int
    indices: tuple[int, ...]  # ascending, as in Space.at
    features: tuple[StaticFeatures, ...]  # one an index


class FilterReport(Record):
    """Report of one filter: its condition, the evidence kind it rests on, and the number of archs it removed."""

    name: str
    asks: str
    kind: EvidenceKind
    removed: int


class FiltersRecord(Filed):
    """Filters from the whole space to the archs that may be proposed. An arch counts at the first filter that removes
    it.
    """

    schema_: Literal["edgekd.filters/1"] = Field(default="edgekd.filters/1", alias="schema")
    space_size: int
    considered: int  # the whole space, or a sample of it
    filters: tuple[FilterReport, ...]
    left: int


class Deployment(Record):
    """Deployment: a backend and a precision."""

    backend: Backend
    precision: Precision

    @classmethod
    def of(cls, candidate: Candidate) -> Deployment:
        """Deployment that a candidate is searched on. Raises ValueError on one without a backend."""
        if candidate.backend is None:
            raise ValueError(f"{candidate} has no backend: only candidates of a deployment are searched")
        return cls(backend=candidate.backend, precision=candidate.plan.precision)

    def candidate(self, family: str, arch: Arch) -> Candidate:
        """Candidate of a family's arch here."""
        plan = CompressionPlan(precision=self.precision)
        return Candidate(family=family, arch=arch, plan=plan, backend=self.backend)

    def __str__(self) -> str:
        return f"{self.backend} {self.precision.value}"


class DeploymentObservation(Extended):
    """Observation of one deployment on one reference arch."""

    added: ClassVar[frozenset[str]] = frozenset({"kernels", "seconds"})
    deployment: Deployment
    arch: Arch
    measurement: Measurement | None  # None where no artefact could be made
    size_bytes: int | None
    detail: str = ""  # why there is no artefact or no figure
    p5_us: Figure | None = None
    kernels: Kernels = ()  # of the file, as runtimes fuse it; none where they can't be read
    seconds: float = 0.0  # that measuring took


class DroppedDeployment(Record):
    """Deployment that was dropped, with the reason."""

    deployment: Deployment
    reason: str


class ReferenceArchRecord(Filed):
    """Reference arch, measured on every deployment still in, in one interleaved batch."""

    schema_: Literal["edgekd.reference-arch/1"] = Field(default="edgekd.reference-arch/1", alias="schema")
    number: int
    arch: Arch
    observations: tuple[DeploymentObservation, ...]
    noise: float  # between two identical jobs of this batch, relative
    ended_s: float = 0.0


class NeverSlower(Record):
    """Compressed deployment against float32 on the same backend: whether it is faster, and what regressed."""

    deployment: Deployment
    ratio: float  # its 5th percentile over float32's, geometric mean over reference archs
    faster: bool
    smaller: bool
    regressed: tuple[str, ...] = ()  # operators that cost more than in float32, worst first


class DeploymentsRecord(Filed):
    """Ranking of all deployments on the reference archs: kept and dropped ones."""

    schema_: Literal["edgekd.deployments/1"] = Field(default="edgekd.deployments/1", alias="schema")
    reference_archs: tuple[Arch, ...]
    observations: tuple[DeploymentObservation, ...]
    kept: tuple[Deployment, ...]
    dropped: tuple[DroppedDeployment, ...]
    never_slower: tuple[NeverSlower, ...]
    noise: float  # A/A noise of the batch, relative
    tail: float  # p95 / p5, the device's measured tail factor
    tail_p99: float | None = None  # p99 / p5; runs of earlier versions have none
    filters: tuple[FilterReport, ...] = ()  # what the files seen on the reference archs removed further

    @property
    def tails(self) -> Mapping[str, float]:
        """Tail factors by metric."""
        return {"latency.p95": self.tail, "latency.p99": self.tail if self.tail_p99 is None else self.tail_p99}


class Accuracy(Extended):
    """Score, with its method, split and samples."""

    added: ClassVar[frozenset[str]] = frozenset({"parts", "errors"})
    value: float
    kind: AccuracyKind
    split: str
    samples: int
    method: str
    parts: Mapping[str, float] = {}  # each head's own metric, where there are several
    errors: Mapping[str, float] = {}  # of numbers, mean absolute, in their own units


class TrialRecord(Filed):
    """Trial: one proposal and its results. ``asked`` is the sampler's seed for this ask."""

    schema_: Literal["edgekd.trial/1"] = Field(default="edgekd.trial/1", alias="schema")
    number: int
    candidate: Candidate
    asked: int
    batch: int = 0  # trials of one batch were proposed before any of them was measured
    features: StaticFeatures
    undecided: bool = False  # of an untouched model: a limit is missed, and not with certainty
    outcome: Literal["measured", "over-budget", "refused", "crashed", "hung", "out-of-memory", "unstable", "diverged"]
    detail: str = ""
    size_bytes: int | None = None
    sha256: Digest | None = None
    measurement: Measurement | None = None
    figures: tuple[Figure, ...] = ()
    accuracy: Accuracy | None = None
    seconds: Mapping[str, float] = {}  # convert, measure, train: where the time went
    images_per_s: float | None = None  # of its short training: what a full one will cost
    ended_s: float = 0.0


class ProposalsRecord(Filed):
    """End of proposing, and why: the number of trials that fit in the time is a fact that a replay can't find again."""

    schema_: Literal["edgekd.proposals/1"] = Field(default="edgekd.proposals/1", alias="schema")
    trials: int
    reason: Literal["time", "exhausted", "enough"]
    detail: str
    finalists: int  # number of full recipes that the rest of the time holds, at least one
    reserve_s: float  # predicted seconds of these
    share: float = 1.0  # of the recipe's epochs, where the budget has no time for all
    ended_s: float = 0.0


class CurvePoint(Record):
    """Epoch of training."""

    epoch: int
    loss: float
    validation: float | None
    rate: float  # learning rate
    images_per_s: float  # training images over the epoch's whole time, validation included
    shares: Mapping[str, float] = {}  # of the gradient's length, by loss; of some epochs, with several losses


class RecheckRecord(Filed):
    """Recheck of a finalist's arch, untrained, side by side on its own deployment and on those near it."""

    schema_: Literal["edgekd.recheck/1"] = Field(default="edgekd.recheck/1", alias="schema")
    trial: int
    observations: tuple[DeploymentObservation, ...]
    noise: float  # A/A noise of the batch, relative
    ended_s: float


class LeftWhole(Record):
    """Layers of a model that can't be pruned, for one reason."""

    reason: str
    layers: tuple[str, ...]

    def line(self) -> str:
        """Format the first layers and the reason."""
        more = f" and {len(self.layers) - _SHOWN_LAYERS} more" if len(self.layers) > _SHOWN_LAYERS else ""
        return f"left whole {', '.join(f'`{layer}`' for layer in self.layers[:_SHOWN_LAYERS])}{more}: {self.reason}"


class OriginalRecord(Filed):
    """Baseline of the user's own untouched model, to compare the result with."""

    schema_: Literal["edgekd.original/1"] = Field(default="edgekd.original/1", alias="schema")
    arch: Arch
    accuracy: Accuracy  # validation, in PyTorch
    observations: tuple[DeploymentObservation, ...]  # float32, one a backend
    target: Target | None = None  # the run's target, its relative limits as absolute figures
    ended_s: float


class Shortlisted(Record):
    """A trial's untrained file, measured as the verdict will measure."""

    trial: int
    measurement: Measurement | None
    figures: tuple[Figure, ...]


class ShortlistRecord(Filed):
    """Shortlist measured once more before any long training."""

    schema_: Literal["edgekd.shortlist/1"] = Field(default="edgekd.shortlist/1", alias="schema")
    seen: tuple[Shortlisted, ...]
    complete: bool = False
    ended_s: float = 0.0


class FinalistRecord(Filed):
    """Finalist: a candidate after the whole recipe, exported and scored in its runtime."""

    schema_: Literal["edgekd.finalist/1"] = Field(default="edgekd.finalist/1", alias="schema")
    rank: int
    trial: int  # -1 where there was no search
    candidate: Candidate
    student: Digest | None  # folder under students/; None where its training diverged
    artefact: Artefact | None
    curve: tuple[CurvePoint, ...]
    accuracy: Accuracy | None  # validation, by the exported file
    float_twin: Accuracy | None = None  # the same student in PyTorch float32, on the same split
    float_operators: tuple[str, ...] | None = None  # of an int8 file, where its format shows them
    seen: Measurement | None = None  # side by side with the other finalists, for the choice
    measurement: Measurement | None = None  # fresh processes, never seen by the choice
    figures: tuple[Figure, ...] = ()  # of `measurement`, or of `seen` where there is none
    verdict: Verdict | None = None  # on `figures`
    never_slower: NeverSlower | None = None  # against its float32 baseline on the same backend, side by side
    chosen: bool = False
    reason: str = ""
    ended_early: bool = False  # its training, since the time was up
    ended_s: float = 0.0


class RoundOption(Record):
    """Candidate step along one axis of the space, measured side by side with the present arch."""

    arch: Arch
    p5_us: float | None  # on the backend of the iteration before; None where it could not be measured
    size_bytes: int | None
    accuracy: float | None  # validation, BatchNorm recalibrated, before any recovery
    detail: str = ""


class RoundObservation(Record):
    """Measurement of an iteration's student on one backend, as the verdict will measure it."""

    backend: Backend
    measurement: Measurement | None
    figures: tuple[Figure, ...]  # including the student's accuracy
    verdict: Verdict
    size_bytes: int | None = None
    detail: str = ""


class RoundRecord(Filed):
    """Iteration of pruning: the step taken, and the figures of the student once it has recovered.

    Written when the step is chosen, and again, with everything below ``noise``, when the student is measured.
    """

    schema_: Literal["edgekd.round/1"] = Field(default="edgekd.round/1", alias="schema")
    number: int  # 0 is the untouched model
    before: RoundOption | None  # the present arch, in the same batch as the options
    options: tuple[RoundOption, ...]
    arch: Arch | None  # None where no step gains enough: the last iteration
    noise: float = 0.0  # between two identical jobs of this batch, relative
    student: Digest | None = None  # folder under students/, float32: start of the next iteration
    recovered: Literal["", "short", "full"] = ""  # full where it was below the floor otherwise
    accuracy: Accuracy | None = None  # validation, in PyTorch, at the recipe's precision
    observations: tuple[RoundObservation, ...] = ()
    ended_s: float = 0.0

    @property
    def best(self) -> RoundObservation | None:
        """Backend on which most of the target's limits hold; the fastest of equals."""
        ran = [observation for observation in self.observations if observation.figures]
        return min(ran, key=lambda observation: (not observation.verdict.holds, _low(observation)), default=None)


def _low(observation: RoundObservation) -> float:
    return next((figure.value for figure in observation.figures if figure.metric == "latency.p5"), float("inf"))


class TeacherScore(Record):
    """Score of a teacher on some validation samples."""

    name: str
    identity: Digest
    score: float | None  # in the task's metric; None where it has not every head
    samples: int


class TeachersRecord(Filed):
    """Chain of teachers: from the first of the assistants to the one that teaches the student."""

    schema_: Literal["edgekd.teachers/1"] = Field(default="edgekd.teachers/1", alias="schema")
    teachers: tuple[TeacherScore, ...]


class AutoOption(Record):
    """Loss, or augmentations, that `auto` may choose."""

    phase: Literal["loss", "views"]
    name: str
    why_not: str = ""  # reason why it isn't tried


class AutoScore(Record):
    """Short training of `auto`."""

    phase: Literal["loss", "views"]
    option: str
    epochs: int
    validation: float | None  # in PyTorch float32; None where it diverged
    detail: str = ""


class AutoRecord(Filed):
    """Trainings and choice of `recipe: auto`. Rewritten after each training; final once it has ended."""

    schema_: Literal["edgekd.auto/1"] = Field(default="edgekd.auto/1", alias="schema")
    arch: Arch  # of the student that was trained
    options: tuple[AutoOption, ...]
    scores: tuple[AutoScore, ...]
    least: float = 0.0  # a score clearly above chance: trainings that all stay below are too short to drop any
    loss: str = ""
    views: str = ""
    chosen: Mapping[str, Any] = {}  # options of the `distill` that follows
    ended: Literal["", "done", "time"] = ""  # time: its share of the budget was used up
    ended_s: float = 0.0

    def names(self, phase: Literal["loss", "views"]) -> tuple[str, ...]:
        """Options that are tried in a phase."""
        return tuple(option.name for option in self.options if option.phase == phase and not option.why_not)

    def of(self, phase: Literal["loss", "views"]) -> tuple[AutoScore, ...]:
        """Trainings of one phase."""
        return tuple(score for score in self.scores if score.phase == phase)

    def line(self) -> str:
        """Format the choice as a line."""
        losses, views = ({score.option for score in self.of(phase)} for phase in ("loss", "views"))
        counts = f"of {len(losses)} losses and {len(views)} views"
        best = max((score for score in self.of("views") if score.option == self.views), key=lambda s: s.epochs)
        scored = f"{best.validation:.1%} validation after {best.epochs} epochs" if best.validation is not None else ""
        late = ", as far as its time went" if self.ended == "time" else ""
        return f"recipe     {self.loss}, {self.views}: the best {counts}, {scored}{late}"


class StageObservation(Record):
    """Student after one stage of the recipe, measured by its file on the finalist's backend."""

    stage: str  # `inherited`: the family's own weights, before any stage
    student: Digest  # folder under students/
    precision: Precision
    accuracy: Accuracy | None  # validation, by the exported file
    size_bytes: int | None
    p5_us: Figure | None  # side by side with the other stages
    measurement: Measurement | None = None
    detail: str = ""  # why there is no file or no figure


class StagesRecord(Filed):
    """Gain and cost of each stage of the recipe: for the report, no decision depends on it."""

    schema_: Literal["edgekd.stages/1"] = Field(default="edgekd.stages/1", alias="schema")
    finalist: int
    backend: Backend
    stages: tuple[StageObservation, ...]
    ended_s: float = 0.0


class RankCorrelation(Record):
    """Rank correlation (Kendall's tau-b) of the finalists' estimated and final accuracies."""

    method: str
    finalists: int
    tau: float | None  # None where there are too few finalists, or all tie
    detail: str


class OutcomeRecord(Filed):
    """Outcome of a run, with summary and exit code."""

    schema_: Literal["edgekd.outcome/1"] = Field(default="edgekd.outcome/1", alias="schema")
    exit_code: int
    summary: str
    chosen: int | None  # the finalist's rank
    seconds: float
    detail: tuple[str, ...] = ()  # further lines: the nearest candidates, and which limits would admit them
    estimate: RankCorrelation | None = None

    @property
    def undecided(self) -> bool:
        """True if noise left every verdict that counts open: the same command measures again."""
        return self.exit_code == Unstable.exit_code and self.chosen is None
