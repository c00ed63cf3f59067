"""Classification head: cross-entropy with labels; logits are distilled as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.distill.heads._protocol import HeadLogits
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.rows import ABSENT

__all__ = ["ClassificationTraining"]


class ClassificationTraining:
    """Raw outputs: logits (N, classes). Labels (N,) int64, -1 if unknown."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the mean over labelled samples; None if there are none."""
        del head
        known = labels != ABSENT
        if not bool(known.any()):
            return None
        return functional.cross_entropy(raw[0], labels, ignore_index=ABSENT)

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return the logits of every sample."""
        del head
        known = labels != ABSENT
        return HeadLogits(raw[0], teacher_raw[0], torch.where(known, labels, teacher_raw[0].argmax(1)), known=known)
