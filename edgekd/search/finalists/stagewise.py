"""Stage-by-stage ablation: gain and cost of each recipe step for the chosen student, on the target's own runtime.

Reads finalists/*.json and students/; writes stages.json, for the report: no decision depends on it. Every stage's
student is exported for the finalist's backend, all files are measured in one interleaved batch, and each is scored by
its file on the validation split. The figures come from a trial's short plan (its 5th percentile) and certify nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import DeviceSession, Job, Measurement, MeasurePlan
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import find_figure
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.sequential import measure_stable
from edgekd.search._protocol import FinalistTrainer, Step
from edgekd.search.budget import Budget
from edgekd.search.finalists.selection import is_simulated
from edgekd.search.space.feasible import P5
from edgekd.store.records import FinalistRecord, StageObservation, StagesRecord
from edgekd.store.run import Run

__all__ = ["Stagewise"]


@dataclass(frozen=True)
class Stagewise:
    """Exports, measures and scores every stage's student once."""

    run: Run
    plan: MeasurePlan
    session: DeviceSession
    trainer: FinalistTrainer
    events: Events
    budget: Budget

    def __call__(self, finalist: FinalistRecord | None) -> StagesRecord | None:
        """Stages of this finalist; None where it has no student, or was only simulated. Raises Interrupted."""
        record = self.run.stages_record()
        if record is not None or finalist is None or finalist.student is None or finalist.candidate.backend is None:
            return record
        if is_simulated(finalist):  # a step's file is scored on the device, and a simulator runs nothing
            return None
        stop_if_asked(self.events)
        steps = self.trainer.steps(finalist)
        if not steps:
            return None
        record = StagesRecord(
            finalist=finalist.rank,
            backend=finalist.candidate.backend,
            stages=tuple(self._observations(finalist, steps)),
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        return record

    def _observations(self, finalist: FinalistRecord, steps: Sequence[Step]) -> list[StageObservation]:
        backend = finalist.candidate.backend
        jobs = {
            number: Job(artefact=self.run.resolve(step.artefact), backend=backend)
            for number, step in enumerate(steps)
            if step.artefact is not None and backend is not None
        }
        measured: Sequence[Measurement] = ()
        if jobs:
            measured = measure_stable(
                self.session,
                list(jobs.values()),
                self.plan.but(profile=False),
                lambda what, done, total: self.events.progress("stage by stage", done, total, what),
                self.events.stop,
            )
        by_number = dict(zip(jobs, measured, strict=True))
        return [self._observation(step, by_number.get(number)) for number, step in enumerate(steps)]

    def _observation(self, step: Step, measurement: Measurement | None) -> StageObservation:
        figures = figures_for_limits(self.run.target, measurement, step.artefact)
        return StageObservation(
            stage=step.stage,
            student=step.student,
            precision=step.precision,
            accuracy=step.accuracy,
            size_bytes=step.artefact.size_bytes if step.artefact else None,
            p5_us=find_figure(figures, P5),
            measurement=measurement,
            detail=step.detail or (measurement.detail if measurement else ""),
        )
