"""Inherited weights: a pruned copy of the user's own model, scored with no training, or very little.

BatchNorm statistics are recomputed where something was pruned, for those of the wider network are wrong; of the whole
model they are right, and of more samples. ``recover`` epochs of the recipe's own training may follow; a recipe meant
for many epochs can undo more than it repairs in one.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeInt

from edgekd.distill.autotune import training_rate
from edgekd.distill.trainer import training_device
from edgekd.errors import ConfigurationError
from edgekd.evidence import AccuracyKind
from edgekd.ir.plan import Candidate
from edgekd.records import Record
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.accuracy.recalibrate import recalibrated_first
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.recipe import epochs_of, shortened, with_precision
from edgekd.students.student import new_student

__all__ = ["Inherited"]


class Inherited(Record):
    """Accuracy estimate from inherited weights, after ``recover`` epochs of training.

    With 0 epochs the weights that pruning left are scored as they are, which ranks badly.
    """

    name: ClassVar[str] = "inherit"
    kind: ClassVar[AccuracyKind] = AccuracyKind.INHERITED

    recover: NonNegativeInt = 1

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """Prune, recalibrate what was pruned, recover a little, quantize, score on the validation split.

        Raises Interrupted.

        Raises ConfigurationError where the family gives no trained weights.
        """
        if not context.family.inherits:
            raise ConfigurationError.one(
                f"the family `{context.family.name}` has no weights to inherit",
                "use the accuracy estimate `short`, or the family `pruned` with a trained model",
            )
        recovery = shortened(context.recipe, self.recover) if self.recover else ()
        recipe = recalibrated_first(recovery, candidate.arch, context.family, context.task.spec)
        changed = ", BatchNorm recalibrated" if len(recipe) > len(recovery) else ""
        words, epochs = f"inherited weights{changed}", epochs_of(recipe)
        if epochs:
            words += f", {epochs} epoch{'s' if epochs > 1 else ''} of recovery"
        found = run_and_score(candidate, with_precision(recipe, candidate.plan.precision), context, self.kind, words)
        if found.images_per_s is not None:
            return found
        student = new_student(context.family, candidate.arch, context.task.spec, context.seed)
        return Estimate(found.accuracy, training_rate(student.module, student.task.input, training_device()))
