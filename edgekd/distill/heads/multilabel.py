"""Multilabel head: binary cross-entropy with each label; a teacher's logits are distilled label by label.

    mean over known (n, c) of  -y log p - (1 - y) log (1 - p),   p = 1 / (1 + exp(-z))

The mean over labels, not their sum: so a head's weight beside other heads and losses, and its learning rate, don't
depend on its number of labels. Every known label counts the same, whatever else is known of its sample.
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
    """Raw outputs: logits (N, C). Labels (N, C): 0 or 1, in between for mixed samples, -1 if unknown."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the mean over known labels; None if there are none."""
        del head
        known = labels != ABSENT
        if not bool(known.any()):
            return None
        return functional.binary_cross_entropy_with_logits(raw[0][known], labels[known].to(raw[0].dtype))

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return the logits of every sample, including those with unknown labels."""
        del head
        return HeadLogits(raw[0], teacher_raw[0], labels, of="labels")
