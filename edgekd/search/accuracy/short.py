"""Short training: the project's own recipe with few epochs, then the quantized student scored in PyTorch.

A candidate's float32 training is kept by key, so the same arch at another precision trains nothing again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveInt

from edgekd.distill.stage import Distill
from edgekd.evidence import AccuracyKind
from edgekd.ir.plan import Candidate
from edgekd.records import Record
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.accuracy.scoring import run_and_score
from edgekd.search.recipe import epochs_of, shortened, with_precision
from edgekd.stages import Stage

__all__ = ["ShortTraining"]

_STEPS, _FEWEST_EPOCHS = 200, 4


class ShortTraining(Record):
    """Accuracy estimate by at most ``epochs`` epochs of every training stage.

    Default: as many epochs as make 200 steps, and at least 4. On 624 images, 4 epochs in batches of 128 are 20 steps,
    after which every network is still at chance, and none can be ranked.
    """

    name: ClassVar[str] = "short"
    kind: ClassVar[AccuracyKind] = AccuracyKind.TORCH

    epochs: PositiveInt | None = None

    def estimate(self, candidate: Candidate, context: EstimateContext) -> Estimate:
        """Train, quantize, score on the validation split. Raises Interrupted."""
        short = self.shortened(context.recipe, len(context.task.split("train")))
        words = f"{epochs_of(short)} epochs of the recipe"
        return run_and_score(candidate, with_precision(short, candidate.plan.precision), context, self.kind, words)

    def shortened(self, recipe: Sequence[Stage], images: int) -> tuple[Stage, ...]:
        """Return the shortened recipe for a training split of ``images`` samples."""
        if self.epochs is not None:
            return shortened(recipe, self.epochs)
        steps = [stage.steps(images) for stage in recipe if isinstance(stage, Distill)]
        return shortened(recipe, max(_FEWEST_EPOCHS, math.ceil(_STEPS / min(steps))) if steps else _FEWEST_EPOCHS)
