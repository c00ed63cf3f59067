"""A class for the image: cross-entropy with labels, and logits as they are."""

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
    """Raw: logits (N, classes). Labels (N,) int64, -1 where there is none."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Mean over labelled samples."""
        del head
        known = labels != ABSENT
        if not bool(known.any()):
            return None
        return functional.cross_entropy(raw[0], labels, ignore_index=ABSENT)

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], taught: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Every sample."""
        del head
        known = labels != ABSENT
        return HeadLogits(raw[0], taught[0], torch.where(known, labels, taught[0].argmax(1)), known=known)
