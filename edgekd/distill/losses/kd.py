"""Knowledge distillation: KL divergence of softened class probabilities (Hinton, Vinyals & Dean 2015, arXiv
1503.02531).

    T^2 * KL( softmax(teacher / T) || softmax(student / T) )

The paper's cross-entropy of soft targets differs from this by the teacher's own entropy, which has no gradient. T^2
keeps the gradient's size when the temperature changes (their section 2).

Multilabel: every label is a choice between two (Yang et al. 2023, "Multi-label knowledge distillation", ICCV, arXiv
2308.06453: their one-versus-all term, a sum over labels without a temperature):

    mean over labels of  T^2 * KL( (t, 1 - t) || (s, 1 - s) ),   s, t = 1 / (1 + exp(-logit / T))

Regression: `distance` of standardised numbers, without a temperature; for small differences it is KL between two normal
distributions of deviation 2.
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
    use: ClassVar[str] = "the first to try where a teacher gives answers alone; cheap beside anything"

    weight: NonNegativeFloat | None = 0.9
    temperature: PositiveFloat = 4.0

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar batch mean, zero if student and teacher agree. Logits (N, C), C >= 2."""
        from torch.nn.functional import kl_div, log_softmax

        del labels
        student = log_softmax(student_logits / self.temperature, dim=1)
        teacher = log_softmax(teacher_logits / self.temperature, dim=1)
        return self.temperature**2 * kl_div(student, teacher, reduction="batchmean", log_target=True)

    def of_labels(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the scalar mean over samples and labels (N, C), zero if student and teacher agree."""
        from edgekd.distill.losses.pairs import pairs

        student, teacher = pairs(student_logits), pairs(teacher_logits.detach())
        return self.value(student, teacher, teacher.argmax(1))

    def of_numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar mean over samples and numbers (N, C), zero if student and teacher agree."""
        from edgekd.distill.losses.numbers import distance

        return distance(student, teacher)
