"""Regression head: distance to the labels and to a teacher's outputs, all standardised.

    mean over known (n, c) of  h( z - (y - mean_c) / std_c )        h: `edgekd/distill/losses/numbers.py`

The mean rather than the sum, for the reasons given in `multilabel`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.distill.heads._protocol import HeadLogits
from edgekd.distill.losses.numbers import distance
from edgekd.students.heads.regression import standardised
from edgekd.tasks._protocol import HeadSpec

__all__ = ["RegressionTraining"]


class RegressionTraining:
    """Raw outputs: standardised numbers (N, C). Labels (N, C) in their own units, NaN if unknown."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the mean over known numbers; None if there are none."""
        known = ~torch.isnan(labels)
        if not bool(known.any()):
            return None
        return distance(raw[0][known], standardised(head, labels)[known])

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return the numbers of every sample, including those with unknown labels."""
        del head
        return HeadLogits(raw[0], teacher_raw[0], labels, of="numbers")
