"""Segmentation head: cross-entropy at the mask's resolution; for distillation each cell counts as a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.distill.heads._protocol import HeadLogits
from edgekd.students.heads.segmentation import enlarged
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.rows import IGNORED

__all__ = ["SegmentationTraining"]


class SegmentationTraining:
    """Raw outputs: logits (N, classes, h, w). Labels (N, H, W) uint8, 255 for ignored pixels."""

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the mean over labelled pixels, None without any; logits are upsampled as in the exported file."""
        del head
        if not bool((labels != IGNORED).any()):
            return None
        logits = enlarged(raw[0], (labels.shape[1], labels.shape[2]))
        return functional.cross_entropy(logits, labels.long(), ignore_index=IGNORED)

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return the logits of all cells (N * h * w, classes).

        A teacher of another stride is resampled to the student's.
        """
        own, teacher = raw[0], teacher_raw[0]
        if own.shape[2:] != teacher.shape[2:]:
            teacher = functional.interpolate(teacher, own.shape[2:], mode="bilinear", align_corners=False)
        height, width = own.shape[2:]
        rows = (torch.arange(height, device=labels.device) * 2 + 1) * labels.shape[1] // (2 * height)
        columns = (torch.arange(width, device=labels.device) * 2 + 1) * labels.shape[2] // (2 * width)
        of_cell = labels[:, rows][:, :, columns].long()  # the pixel in the middle of each
        known = of_cell != IGNORED
        true = torch.where(known, of_cell, teacher.argmax(1)).reshape(-1)
        return HeadLogits(_cells(own, head.classes), _cells(teacher, head.classes), true, known=known.reshape(-1))


def _cells(logits: Tensor, classes: int) -> Tensor:
    return logits.permute(0, 2, 3, 1).reshape(-1, classes)
