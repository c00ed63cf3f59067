"""DIST: distillation of relations instead of values (Huang et al.

2022, "Knowledge Distillation from A Stronger Teacher", NeurIPS, arXiv 2205.10536).

A strong teacher's probabilities are hard to reproduce; their ranking matters. So the student's need only correlate with
them, over the classes of each sample and over the batch's samples for each class:

    T^2 * ( beta * (1 - mean_n rho(s_n, t_n)) + gamma * (1 - mean_c rho(s^c, t^c)) )

s, t = softmax(logits / T); rho is Pearson's correlation of two rows, or of two columns.

Other heads have such correlations too. Multilabel: s, t = 1 / (1 + exp(-logits / T)); a single label has no relations
within a sample. Regression has none within a sample either, since numbers have no common unit: the loss is gamma * (1 -
mean_c rho(s^c, t^c)), without T. It does not depend on a number's mean and deviation: the labels must determine these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIST"]

_TINY = 1e-8  # added to the product of two lengths: constant rows have length 0


class DIST(Loss):
    """Options of `dist`. ``beta`` weights the correlation within a sample, ``gamma`` that within a class.

    Defaults are the authors' for CIFAR. They add it to the whole cross-entropy: the default weight leaves the labels as
    much. A batch should have several samples of each class.
    """

    paper: ClassVar[str] = "Huang 2022, Knowledge distillation from a stronger teacher, NeurIPS"
    use: ClassVar[str] = "a teacher much stronger than the student"

    weight: NonNegativeFloat | None = 0.5
    temperature: PositiveFloat = 4.0
    beta: NonNegativeFloat = 2.0
    gamma: NonNegativeFloat = 2.0

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar, near zero if student and teacher agree. Logits (N, C), N >= 2 and C >= 2."""
        import torch

        del labels
        student = torch.softmax(student_logits / self.temperature, dim=1)
        teacher = torch.softmax(teacher_logits / self.temperature, dim=1)
        return self._related(student, teacher)

    def of_labels(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return a scalar, near zero if student and teacher agree. Logits (N, C), N >= 2."""
        import torch

        student = torch.sigmoid(student_logits / self.temperature)
        return self._related(student, torch.sigmoid(teacher_logits.detach() / self.temperature))

    def of_numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return a scalar, near zero if numbers (N, C), N >= 2, are an increasing linear function of the teacher's."""
        return self.gamma * (1 - _correlation(student.T, teacher.detach().T))

    def _related(self, student: Tensor, teacher: Tensor) -> Tensor:
        within_classes = self.gamma * (1 - _correlation(student.T, teacher.T))
        if student.shape[1] < 2:
            return self.temperature**2 * within_classes
        return self.temperature**2 * (self.beta * (1 - _correlation(student, teacher)) + within_classes)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of corresponding rows, mean over the rows."""
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    mean: Tensor = ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1) + _TINY)).mean()
    return mean
