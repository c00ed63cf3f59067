"""A person's own model as it came: its accuracy, and its latency on every backend, beside which the result is read.

Reads the family and the target; writes original.json. Decides nothing. Where it scores near chance, its normalisation
is not the one it was trained with, and that is said before hours are spent on pruning it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.artefacts import Precision
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import AccuracyKind
from edgekd.search._protocol import EstimateContext
from edgekd.search.accuracy.scoring import score_student
from edgekd.search.budget import Budget
from edgekd.search.measuring import Bench, reading_of
from edgekd.store.records import Arm, OriginalRecord, PlanRecord
from edgekd.store.run import Run
from edgekd.students._protocol import Candidate, CompressionPlan, Inheriting
from edgekd.students.student import new_student
from edgekd.units import format_us

__all__ = ["Original"]

_NEAR_CHANCE = 1.5
_SHOWN = 3


@dataclass(frozen=True)
class Original:
    """Scores and measures it once; nothing where the space leaves the whole model out."""

    run: Run
    plan: PlanRecord
    bench: Bench
    context: EstimateContext
    events: Events
    budget: Budget

    def __call__(self) -> OriginalRecord | None:
        """Raises Interrupted."""
        record = self.run.original() or self._measure()
        if record is None:
            return None
        times = [f"{format_us(r.low_us.value)} low on {r.arm.backend}" for r in record.readings if r.low_us is not None]
        self.events.line(
            f"own model  {record.accuracy.value:.1%} validation in PyTorch; {', '.join(times) or 'runs nowhere'}"
        )
        spec = self.context.task.spec
        self._tell_left_out()
        chance = 1.0 / spec.head.classes if spec.plain else 0.0
        if record.accuracy.value < _NEAR_CHANCE * chance:
            self.events.line("           hardly better than chance: are the task's mean and std those it learnt with?")
        return record

    def _tell_left_out(self) -> None:
        """Layers that every arch has whole, by the reason."""
        family, spec = self.context.family, self.context.task.spec
        layers: dict[str, list[str]] = {}
        for layer, reason in family.left_out(spec) if isinstance(family, Inheriting) else ():
            layers.setdefault(reason, []).append(layer)
        for reason, names in layers.items():
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            self.events.line(f"left whole {', '.join(names[:_SHOWN])}{more}: {reason}")
        if family.space(spec).size == 1:
            self.events.line("           nothing to prune: the whole model at each precision and on each runtime")

    def _measure(self) -> OriginalRecord | None:
        family = self.context.family
        arch = family.original(self.context.task.spec) if isinstance(family, Inheriting) else None
        if arch is None:
            return None
        stop_if_asked(self.events)
        student = new_student(self.context.family, arch, self.context.task.spec, self.context.seed)
        accuracy = score_student(student, self.context.task, AccuracyKind.TORCH, "as it came")
        backends = list(dict.fromkeys(arm.backend for arm in self.plan.arms))
        measured, _ = self.bench.measure(
            [
                Candidate(
                    family=self.run.header.family,
                    arch=arch,
                    plan=CompressionPlan(precision=Precision.FLOAT32),
                    backend=backend,
                )
                for backend in backends
            ],
            self.plan.measure,
            progress=lambda what, done, total: self.events.progress("own model", done, total, what),
            stop=lambda: stop_if_asked(self.events),
        )
        record = OriginalRecord(
            arch=arch,
            accuracy=accuracy,
            readings=tuple(
                reading_of(Arm(backend=backend, precision=Precision.FLOAT32), result)
                for backend, result in zip(backends, measured, strict=True)
            ),
            ended_s=self.budget.spent_s(),
        )
        self.run.write(record)
        return record
