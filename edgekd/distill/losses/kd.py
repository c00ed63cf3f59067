"""Knowledge distillation: softened answers are matched (Hinton, Vinyals & Dean 2015, arXiv 1503.02531).

    T^2 * KL( softmax(teacher / T) || softmax(student / T) )

Their cross-entropy of soft targets differs from this by the teacher's own entropy, which has no gradient. T^2 keeps
the gradient's size when the temperature changes (their section 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KD"]


class KD(Loss):
    """Options of `kd`. The default weight leaves 0.1 for the labels."""

    paper: ClassVar[str] = "Hinton 2015, Distilling the knowledge in a neural network"
    use: ClassVar[str] = "the first to try, and often the last"

    weight: NonNegativeFloat | None = 0.9
    temperature: PositiveFloat = 4.0

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar batch mean, zero where the student answers as the teacher does. Logits (N, C), C >= 2."""
        from torch.nn.functional import kl_div, log_softmax

        del labels
        student = log_softmax(student_logits / self.temperature, dim=1)
        teacher = log_softmax(teacher_logits / self.temperature, dim=1)
        return self.temperature**2 * kl_div(student, teacher, reduction="batchmean", log_target=True)
