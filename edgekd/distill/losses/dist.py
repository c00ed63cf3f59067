"""Relations, not values: DIST (Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", NeurIPS).

A strong teacher's probabilities are hard to reproduce; what matters is how it ranks. So the student's need only
correlate with them, over the classes of each sample and over the batch's samples for each class (arXiv 2205.10536):

    T^2 * ( beta * (1 - mean_n rho(s_n, t_n)) + gamma * (1 - mean_c rho(s^c, t^c)) )

s, t = softmax(logits / T); rho is Pearson's correlation of two rows, or of two columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIST"]

_TINY = 1e-8  # added to the product of two lengths: a class that nobody distinguishes has length 0


class DIST(Loss):
    """Options of `dist`. ``beta`` weighs the relations within a sample, ``gamma`` those within a class.

    Defaults are the authors' for CIFAR. They add it to the whole cross-entropy: the default weight leaves the labels
    as much. A batch should hold several samples of each class.
    """

    paper: ClassVar[str] = "Huang 2022, Knowledge distillation from a stronger teacher, NeurIPS"
    use: ClassVar[str] = "a teacher much stronger than the student"

    weight: NonNegativeFloat | None = 0.5
    temperature: PositiveFloat = 4.0
    beta: NonNegativeFloat = 2.0
    gamma: NonNegativeFloat = 2.0

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar, near zero where the student answers as the teacher does. Logits (N, C), N >= 2 and C >= 2."""
        import torch

        del labels
        student = torch.softmax(student_logits / self.temperature, dim=1)
        teacher = torch.softmax(teacher_logits / self.temperature, dim=1)
        within_samples = 1 - _correlation(student, teacher)
        within_classes = 1 - _correlation(student.T, teacher.T)
        return self.temperature**2 * (self.beta * within_samples + self.gamma * within_classes)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of each row of one with the same row of the other, mean over the rows."""
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    mean: Tensor = ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1) + _TINY)).mean()
    return mean
