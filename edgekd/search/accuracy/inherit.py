"""Inherited weights: a pruned copy of a person's own model, scored with no training, or very little.

Right after pruning, BatchNorm's statistics are those of the wider network; ``recover`` epochs of the recipe's
training repair them and more, at a fraction of a full recovery.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeInt

from edgekd.errors import ConfigurationError
from edgekd.evidence import AccuracyKind
from edgekd.records import Record
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.recipe import shortened, with_precision
from edgekd.students._protocol import Candidate

__all__ = ["Inherited"]


class Inherited(Record):
    """``recover`` epochs of training before scoring; 0 scores the pruned weights as they are."""

    name: ClassVar[str] = "inherit"
    kind: ClassVar[AccuracyKind] = AccuracyKind.INHERITED

    recover: NonNegativeInt = 1

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """Prune, recover a little, quantize, score on the validation split. Raises Interrupted.

        Raises ConfigurationError where the family gives no trained weights.
        """
        if not context.family.inherits:
            raise ConfigurationError.one(
                f"the family `{context.family.name}` has no weights to inherit",
                "use the accuracy estimate `short`, or the family `pruned` with a trained model",
            )
        recipe = shortened(context.recipe, self.recover) if self.recover else ()
        words = f"{self.recover} epochs of recovery" if self.recover else "no recovery"
        stages = with_precision(recipe, candidate.plan.precision)
        return run_and_score(candidate, stages, context, self.kind, f"inherited weights, {words}")
