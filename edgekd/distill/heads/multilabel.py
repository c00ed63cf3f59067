"""Labels that are each there or not: binary cross-entropy with each, and a teacher's logits label by label.

    mean over known (n, c) of  -y log p - (1 - y) log (1 - p),   p = 1 / (1 + exp(-z))

The mean over labels and not their sum: a head is worth the same beside other heads and other losses, and wants the same
learning rate, however many labels it has. Every known label counts alike, whatever else is known of its sample.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from edgekd.distill.heads._protocol import HeadLogits
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.rows import ABSENT

__all__ = ["MultilabelTraining"]


class MultilabelTraining:
    """Raw: logits (N, C). Labels (N, C): 0 or 1, in between where samples are mixed, and -1 where nobody knows."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Mean over known labels."""
        del head
        known = labels != ABSENT
        if not bool(known.any()):
            return None
        return functional.binary_cross_entropy_with_logits(raw[0][known], labels[known].to(raw[0].dtype))

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], taught: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Every sample, whether its labels are known or not."""
        del head
        return HeadLogits(raw[0], taught[0], labels, of="labels")
