"""`logit-mse`: the student's logits are drawn to the teacher's (Ba & Caruana 2014, arXiv 1312.6184)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import mse_loss

from edgekd.distill.losses._protocol import Loss


class LogitMSE(Loss):
    """Options of `logit-mse`. The default weight leaves half for the labels."""

    paper: ClassVar[str] = "Ba 2014, Do deep nets really need to be deep?, NeurIPS"
    use: ClassVar[str] = "logits whose size matters as much as their order"

    weight: NonNegativeFloat | None = 0.5

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar batch mean, zero where the student answers as the teacher does. Logits (N, C)."""
        return mse_loss(student_logits, teacher_logits)
