"""Accuracy of the user's own untouched model: quantized and scored without training; other candidates as estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekd.distill.autotune import training_rate
from edgekd.distill.trainer import training_device
from edgekd.evidence import AccuracyKind
from edgekd.ir.plan import Candidate
from edgekd.search._protocol import AccuracyEstimate, Estimate, EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.recipe import calibrating, with_precision
from edgekd.students.student import new_student

__all__ = ["AsItCame"]

_TIMED = 16  # images a pass: enough to predict how long training takes, before any is run


@dataclass(frozen=True)
class AsItCame:
    """Accuracy estimate that scores an untouched model without training and delegates all others to ``trained``."""

    trained: AccuracyEstimate
    name: ClassVar[str] = "as-it-came"
    kind: ClassVar[AccuracyKind] = AccuracyKind.TORCH

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """The score on the validation split at the candidate's precision. Raises Interrupted."""
        if not candidate.plan.untouched:
            return self.trained.estimate(candidate, context)
        recipe = with_precision(calibrating(context.recipe), candidate.plan.precision)
        found = run_and_score(candidate, recipe, context, self.kind, "as it came")
        student = new_student(context.family, candidate.arch, context.task.spec, context.seed)
        return Estimate(found.accuracy, training_rate(student.module, student.task.input, training_device(), _TIMED))
