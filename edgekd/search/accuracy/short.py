"""Short training: the project's own recipe with few epochs, then the quantized student scored in PyTorch.

A candidate's float32 training is kept by key, so that the same arch at another precision trains nothing again.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from edgekd.evidence import AccuracyKind
from edgekd.records import Record
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.recipe import epochs_of, shortened, with_precision
from edgekd.students._protocol import Candidate

__all__ = ["ShortTraining"]


class ShortTraining(Record):
    """At most ``epochs`` epochs of every stage that trains."""

    name: ClassVar[str] = "short"
    kind: ClassVar[AccuracyKind] = AccuracyKind.TORCH

    epochs: PositiveInt = 4

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """Train, quantize, score on the validation split. Raises Interrupted."""
        short = shortened(context.recipe, self.epochs)
        words = f"{epochs_of(short)} epochs of the recipe"
        return run_and_score(candidate, with_precision(short, candidate.plan.precision), context, self.kind, words)
