"""Baseline of the user's own model: accuracy, and latency on every backend, to compare the result with.

Reads the family and the target; writes original.json, with the target's relative limits as absolute figures. Where the
model scores near chance, its normalisation is not the one it was trained with, and a warning says so before hours are
spent on pruning it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import MeasurePlan
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import AccuracyKind, find_figure
from edgekd.ir.numerics import Precision
from edgekd.measure.figures import figures_for_limits, figures_of
from edgekd.search._protocol import EstimateContext
from edgekd.search.accuracy.scoring import score_student
from edgekd.search.budget import Budget
from edgekd.search.space.feasible import p5_us
from edgekd.search.trials.measuring import Bench, observation_of
from edgekd.store.certificate import Certificate
from edgekd.store.records import (
    Accuracy,
    Deployment,
    DeploymentObservation,
    LeftWhole,
    OriginalRecord,
    PlanRecord,
)
from edgekd.store.run import Run
from edgekd.students._protocol import Family, Inheriting
from edgekd.students.student import new_student
from edgekd.targets.relative import resolved
from edgekd.targets.target import Target
from edgekd.tasks._protocol import TaskSpec
from edgekd.tasks.score import near_chance
from edgekd.units import format_bytes, format_us

__all__ = ["Original", "beside_own", "left_whole", "limits_beside"]


def left_whole(family: Family, spec: TaskSpec) -> tuple[LeftWhole, ...]:
    """Return the layers that every arch of a family leaves whole, by reason; none where a family removes nothing."""
    layers: dict[str, list[str]] = {}
    for layer, reason in family.left_out(spec) if isinstance(family, Inheriting) else ():
        layers.setdefault(reason, []).append(layer)
    return tuple(LeftWhole(reason=reason, layers=tuple(names)) for reason, names in layers.items())


@dataclass(frozen=True)
class Original:
    """Scores and measures the model once; None where the space does not contain the whole model."""

    run: Run
    plan: PlanRecord
    bench: Bench
    context: EstimateContext
    events: Events
    budget: Budget

    def __call__(self) -> OriginalRecord | None:
        """Return the record, measured now or before. Raises Interrupted."""
        left = left_whole(self.context.family, self.context.task.spec)
        for each in left:
            self.events.line(each.line())
        record = self.run.original() or self._measure()
        if record is None:
            return None
        times = [
            f"{format_us(r.p5_us.value)} p5 on {r.deployment.backend}"
            for r in record.observations
            if r.p5_us is not None
        ]
        self.events.line(
            f"own model  {record.accuracy.value:.1%} validation in PyTorch; {', '.join(times) or 'runs nowhere'}"
        )
        spec = self.context.task.spec
        self._report_relative()
        if left and self.context.family.space(spec).size == 1:
            self.events.line("           nothing to prune: the whole model at each precision and on each runtime")
        labels = self.context.task.split("validation").labels
        if spec.plain and (doubt := near_chance(record.accuracy.value, labels, spec.head.classes)):
            self.events.line(f"           {doubt}: are the task's mean and std those it learnt with?")
        return record

    def _careful(self, plan: PlanRecord) -> MeasurePlan:
        """Measurement plan: that of a certificate where the target's limits are relative to this model."""
        shares = any(metric != "accuracy" for metric, _ in self.run.header.target.relative)
        return plan.certify.but(profile=False) if shares else plan.measure

    def _report_relative(self) -> None:
        """Report the absolute values of the limits that are relative to this model."""
        relative = {metric for metric, _ in self.run.header.target.relative}
        found = [str(limit) for limit in self.run.target.limits if limit.metric in relative]
        if found:
            self.events.line(f"           so it has to meet {', '.join(found)}")

    def _measure(self) -> OriginalRecord | None:
        family = self.context.family
        arch = family.original(self.context.task.spec) if isinstance(family, Inheriting) else None
        if arch is None:
            return None
        stop_if_asked(self.events)
        student = new_student(self.context.family, arch, self.context.task.spec, self.context.seed)
        accuracy = score_student(student, self.context.task, AccuracyKind.TORCH, "as it came")
        backends = dict.fromkeys(deployment.backend for deployment in self.plan.deployments)
        deployments = [Deployment(backend=backend, precision=Precision.FLOAT32) for backend in backends]
        measured, _ = self.bench.measure(
            [deployment.candidate(self.run.header.family, arch) for deployment in deployments],
            self._careful(self.plan),
            progress=lambda what, done, total: self.events.progress("own model", done, total, what),
            stop=lambda: stop_if_asked(self.events),
        )
        observations = tuple(
            observation_of(deployment, result) for deployment, result in zip(deployments, measured, strict=True)
        )
        record = OriginalRecord(
            arch=arch,
            accuracy=accuracy,
            target=limits_beside(self.run.header.target, accuracy, observations),
            observations=observations,
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        return record


def limits_beside(target: Target, accuracy: Accuracy, observations: Sequence[DeploymentObservation]) -> Target | None:
    """Return the target with its relative limits as absolute figures; None where it has none. Raises
    ConfigurationError.

    Shares are of the figures on the backend where the model is fastest.
    """
    if not target.relative:
        return None
    ran = [(observation.p5_us.value, observation) for observation in observations if observation.p5_us is not None]
    fastest = min(ran, key=lambda each: each[0], default=(0.0, None))[1]
    if fastest is None or fastest.measurement is None:
        return resolved(target, accuracy.value, {})
    figures = figures_of(fastest.measurement, size_bytes=fastest.size_bytes)
    return resolved(target, accuracy.value, {figure.metric: figure.value for figure in figures})


def beside_own(run: Run, certificate: Certificate) -> str:
    """Summary line: test accuracy, latency and size of the user's own model, and of the certified one.

    Latency is the 5th percentile; the model's own is on the same backend in float32. Empty where none was measured.
    """
    original, own = run.original(), certificate.own
    chosen = next((finalist for finalist in run.finalists() if finalist.chosen), None)
    if original is None or own is None or chosen is None:
        return ""
    figures = figures_for_limits(run.target, chosen.measurement, chosen.artefact)
    observation = next(
        (observation for observation in original.observations if observation.deployment.backend == certificate.backend),
        None,
    )
    size = find_figure(figures, "size.file")
    after = _figures_text(certificate.accuracy.value, p5_us(figures), int(size.value) if size else None)
    low = observation.p5_us.value if observation and observation.p5_us else None
    return f"own model  {_figures_text(own.value, low, observation.size_bytes if observation else None)} -> {after}"


def _figures_text(accuracy: float, low: float | None, size_bytes: int | None) -> str:
    parts = [f"{accuracy:.1%} test"]
    parts += [f"{format_us(low)} p5"] if low is not None else ["runs nowhere there"]
    return ", ".join([*parts, *([format_bytes(size_bytes)] if size_bytes else [])])
