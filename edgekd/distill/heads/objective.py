"""Objective of several heads: raw outputs, labels and the teacher's raw outputs to one loss for each head.

Each head has its label loss on labelled samples, weighted like the recipe's `ce`; losses between student and teacher
are applied to its logits (`_protocol.HeadLogits`) if it has a teacher. A head without a teacher learns from labels
alone, with a weight of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.distill.heads._protocol import LABELS, BalanceName, HeadTraining
from edgekd.distill.heads.balance import balance_of
from edgekd.distill.heads.classification import ClassificationTraining
from edgekd.distill.heads.detection import DetectionTraining
from edgekd.distill.heads.multilabel import MultilabelTraining
from edgekd.distill.heads.regression import RegressionTraining
from edgekd.distill.heads.segmentation import SegmentationTraining
from edgekd.distill.heads.targets import in_cells
from edgekd.distill.losses._protocol import Loss
from edgekd.distill.losses.combined import Combined
from edgekd.students.heads.many import raw_names
from edgekd.tasks._protocol import HeadKind, HeadSpec, TaskSpec
from edgekd.teachers.packing import Packing, unpacked

__all__ = ["TRAININGS", "HeadsObjective"]

TRAININGS: Mapping[HeadKind, HeadTraining] = {
    "classification": ClassificationTraining(),
    "segmentation": SegmentationTraining(),
    "detection": DetectionTraining(),
    "multilabel": MultilabelTraining(),
    "regression": RegressionTraining(),
}


class HeadsObjective(nn.Module):
    """Loss of all heads.

    A module, since its balance may have buffers, and parameters that are trained with the student.
    """

    def __init__(
        self, spec: TaskSpec, balance: BalanceName, shared: Sequence[Tensor] = (), teacher_packing: Packing = ()
    ) -> None:
        super().__init__()
        self.spec = spec
        self.teacher_packing = teacher_packing  # layout of teacher outputs that come as one tensor
        self.shared = tuple(shared)  # weights that all heads depend on, for gradient balancing
        self.balance = balance_of(balance, len(spec.heads))

    def forward(
        self,
        loss: Combined,
        outputs: Mapping[str, Tensor],
        teacher_raw: Mapping[str, Tensor] | Tensor | None,
        targets: Mapping[str, Tensor],
    ) -> list[Tensor]:
        """Return one scalar for each head, in the task's order.

        ``outputs``: raw outputs by name, float32; ``targets``: labels by head in the layout of `rows`, boxes in pixels;
        ``teacher_raw``: raw outputs of the heads that have a teacher, by name or packed.
        """
        known = unpacked(teacher_raw, self.teacher_packing) if isinstance(teacher_raw, Tensor) else teacher_raw or {}
        losses = [self._of_head(loss, head, outputs, targets[head.name], known) for head in self.spec.heads]
        return [
            self._nothing(head, outputs) if one is None else one
            for head, one in zip(self.spec.heads, self.balance(losses, self.shared), strict=True)
        ]

    @staticmethod
    def _nothing(head: HeadSpec, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return a zero with gradients, for a batch without any label for a head."""
        return torch.stack([outputs[name].sum() * 0 for name in raw_names(head)]).sum()

    def _of_head(
        self,
        loss: Combined,
        head: HeadSpec,
        outputs: Mapping[str, Tensor],
        labels: Tensor,
        teacher_raw: Mapping[str, Tensor],
    ) -> Tensor | None:
        names, training = raw_names(head), TRAININGS[head.kind]
        raw = [outputs[name] for name in names]
        if head.kind == "detection":
            height, width = self.spec.input.shape[1:]
            labels = in_cells(labels, (height, width), (raw[0].shape[2], raw[0].shape[3]))
        by_label = training.label_loss(head, raw, labels)
        if not all(name in teacher_raw for name in names):
            return by_label
        terms = []
        compared = training.comparison(head, raw, [teacher_raw[name].detach() for name in names], labels)
        for name, part in loss.parts:
            if not isinstance(part, Loss) or not part.weight:
                continue
            if name == LABELS:
                terms += [] if by_label is None else [by_label * part.weight]
            elif compared is not None:
                terms.append(compared.by(part) * part.weight)
        return torch.stack(terms).sum() if terms else None
