"""`logit-mse`: the student's logits are drawn to the teacher's (Ba & Caruana 2014, arXiv 1312.6184)."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import mse_loss

from edgekd.distill.losses._protocol import Loss


class LogitMSE(Loss):
    """Options of `logit-mse`. The default weight leaves half for the labels."""

    weight: NonNegativeFloat | None = 0.5

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> Tensor:
        """Scalar batch mean, zero where the student answers as the teacher does. Logits (N, C)."""
        if teacher_logits is None:
            raise ValueError("logit-mse needs the teacher's logits, found None")
        return mse_loss(student_logits, teacher_logits.detach())
