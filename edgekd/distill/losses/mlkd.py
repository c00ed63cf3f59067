"""Multi-level logit distillation (Jin, Wang & Lin 2023, "Multi-level logit distillation", CVPR, doi
10.1109/CVPR52729.2023.02325): matches logits of each sample, between samples, and between classes, each at several
temperatures.

    sum over T of  instance_weight * T^2 * mean_n KL( t_n || s_n )
                 + batch_weight * C / N^2 * || s s^T - t t^T ||^2
                 + class_weight * C * || (s^T s - t^T t) / N ||^2

s, t = softmax(logits / T), (N, C). T^2 is for the first term alone, as in the authors' code. They divide the second
term by N and the third by C only, so that a batch of twice the samples weights them twice and four times as much, and
ten classes instead of a hundred ten and a hundred times as much, with which no student learns. Here both are the same
for any N and C: about 1 if the teacher is certain and the student uniform. The default weights equal theirs at batches
of 64 and 100 classes (CIFAR-100). Their code masks uncertain samples and classes after the mean is taken, which is
equivalent to a factor; there is no mask here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MLKD"]


class MLKD(Loss):
    """Options of `mlkd`. The default weight leaves 0.1 for the labels, as in the paper.

    The loss is a sum over temperatures: fewer temperatures make it smaller, as does a lower ``weight``.
    """

    formless: ClassVar[str] = "it compares shares of one choice between samples and between classes"
    every_pair: ClassVar[bool] = True
    paper: ClassVar[str] = "Jin 2023, Multi-level logit distillation, CVPR"
    use: ClassVar[str] = "a teacher of which only answers are known, where kd at one temperature is not enough"

    weight: NonNegativeFloat | None = 0.9
    temperatures: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (2.0, 3.0, 4.0, 5.0, 6.0)
    instance_weight: NonNegativeFloat = 1.0
    batch_weight: NonNegativeFloat = 0.64
    class_weight: NonNegativeFloat = 0.4096

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar, zero if student and teacher agree. Logits (N, C), C >= 2."""
        import torch

        del labels
        terms = [self._level(student_logits / heat, teacher_logits / heat, heat) for heat in self.temperatures]
        return torch.stack(terms).sum()

    def _level(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return the summand of one temperature, from logits already divided by it."""
        from torch.nn.functional import kl_div, log_softmax

        own, other = log_softmax(student, dim=1), log_softmax(teacher, dim=1)
        instance = temperature**2 * kl_div(own, other, reduction="batchmean", log_target=True)
        own, other = own.exp(), other.exp()
        count, classes = own.shape
        samples = classes * (own @ own.T - other @ other.T).square().mean()
        columns = classes * ((own.T @ own - other.T @ other) / count).square().sum()
        return self.instance_weight * instance + self.batch_weight * samples + self.class_weight * columns
