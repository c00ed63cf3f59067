"""Facts of a page, gathered from a run folder once. Nothing here is computed: figures are the records' own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.differentiable import LatencyModelRecord, SupernetRecord, TeacherTuningRecord
from edgekd.store.explanation import ExplanationRecord
from edgekd.store.predicted import PredictorsRecord
from edgekd.store.records import (
    AutoRecord,
    DeploymentsRecord,
    FiltersRecord,
    FinalistRecord,
    OriginalRecord,
    OutcomeRecord,
    PlanRecord,
    RoundRecord,
    RunHeader,
    StagesRecord,
    TeachersRecord,
    TrialRecord,
)
from edgekd.store.run import Run
from edgekd.store.schema import read_record
from edgekd.targets.target import Limit

__all__ = ["Facts", "gather"]

_PICTURES = 4


@dataclass(frozen=True)
class Facts:
    """Records of a run so far; parts that it hasn't reached are None or empty."""

    folder: Path
    header: RunHeader
    original: OriginalRecord | None  # the user's own untouched model
    filters: FiltersRecord | None
    deployments: DeploymentsRecord | None
    trials: tuple[TrialRecord, ...]
    finalists: tuple[FinalistRecord, ...]
    outcome: OutcomeRecord | None
    certificate: Certificate | None
    explanation: ExplanationRecord | None = None
    pictures: tuple[bytes, ...] = ()  # PNG: samples drawn by generators, the chosen student's first
    stages: StagesRecord | None = None
    rounds: tuple[RoundRecord, ...] = ()
    auto: AutoRecord | None = None
    plan: PlanRecord | None = None
    latency_model: LatencyModelRecord | None = None  # of a differentiable search
    supernet: SupernetRecord | None = None
    teacher_tunings: tuple[TeacherTuningRecord, ...] = ()
    teachers: TeachersRecord | None = None
    predicted: PredictorsRecord | None = None  # the latency predictor's last fit

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Budgets of the target and its accuracy floor."""
        own = self.original.target if self.original is not None else None
        return (own or self.header.target).limits

    @property
    def chosen(self) -> FinalistRecord | None:
        """Finalist that was certified."""
        return next((finalist for finalist in self.finalists if finalist.chosen), None)

    @property
    def latency_metric(self) -> str:
        """Metric of the front's horizontal axis: the latency that is budgeted, else the ranking quantile."""
        budgeted = [limit.metric for limit in self.limits if limit.metric.startswith("latency.")]
        timed = [metric for metric in budgeted if metric not in ("latency.first", "latency.load")]
        return timed[0] if timed else "latency.p5"


def gather(folder: Path) -> Facts:
    """Read a run folder. Raises ConfigurationError naming a file that can't be read."""
    run = Run.open(folder)
    path = run.folder / "bundle" / CERTIFICATE
    return Facts(
        folder=run.folder,
        header=run.header,
        original=run.original(),
        filters=run.filters(),
        deployments=run.deployments(),
        trials=run.trials(),
        finalists=run.finalists(),
        outcome=run.outcome(),
        certificate=read_record(path, Certificate) if path.is_file() else None,
        explanation=run.explanation(),
        pictures=_pictures(run),
        stages=run.stages_record(),
        rounds=run.rounds(),
        auto=run.auto(),
        plan=run.plan(),
        latency_model=run.latency_model(),
        supernet=run.supernet(),
        teacher_tunings=run.teacher_tunings(),
        teachers=run.teachers(),
        predicted=next(reversed(run.predictors()), None),
    )


def _pictures(run: Run) -> tuple[bytes, ...]:
    """Sample sheets of generators, each once (students may share a generator), the chosen student's first."""
    stages = run.stages_record()
    own = {finalist.student for finalist in run.finalists() if finalist.chosen}
    own |= {stage.student for stage in stages.stages} if stages is not None else set()
    paths = sorted(run.stages.glob("*/pictures.png"), key=lambda path: (path.parent.name not in own, path))
    return tuple(dict.fromkeys(path.read_bytes() for path in paths))[:_PICTURES]
