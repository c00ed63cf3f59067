"""Decoupled knowledge distillation (Zhao et al. 2022, "Decoupled Knowledge Distillation", CVPR, arXiv 2203.08679).

KD is a sum of two terms: the probability of the target class against all others together (TCKD), and the distribution
over the other classes (NCKD), which KD weights by the teacher's uncertainty. Here that weight is constant:

    T^2 * ( alpha * KL(b_teacher || b_student) + beta * KL(q_teacher || q_student) )

b = (p_label, 1 - p_label) of softmax(logits / T); q = softmax(logits / T) over the classes that are not the label.

The authors raise its weight from 0 over the first 20 of 240 epochs: ``weight: {from: 0, to: 0.5, end: 0.083}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DKD"]


class DKD(Loss):
    """Options of `dkd`. The paper adds it to the whole cross-entropy: the default weight leaves the labels as much.

    ``beta``: larger for a more confident teacher: 1 to 10 in the paper's CIFAR-100 experiments (appendix), for 240
    epochs. In 15 epochs on CIFAR-10 it lost 2.6 points with 8 and gained 1.5 with 1 (`benchmarks/distill_losses.py`).
    """

    mixed_labels: ClassVar[bool] = False
    formless: ClassVar[str] = "besides the true class it orders the others, and of a yes or no there are none"
    paper: ClassVar[str] = "Zhao 2022, Decoupled knowledge distillation, CVPR"
    use: ClassVar[str] = "a teacher so sure that plain kd hears little besides the label"

    weight: NonNegativeFloat | None = 0.5
    temperature: PositiveFloat = 4.0
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 1.0

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar batch mean, zero if student and teacher agree. Logits (N, C), C >= 2."""
        from torch.nn.functional import kl_div

        student, student_others = _decoupled(student_logits / self.temperature, labels)
        teacher, teacher_others = _decoupled(teacher_logits / self.temperature, labels)
        of_target = kl_div(student, teacher, reduction="batchmean", log_target=True)
        of_others = kl_div(student_others, teacher_others, reduction="batchmean", log_target=True)
        return self.temperature**2 * (self.alpha * of_target + self.beta * of_others)


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of label and rest (N, 2), and of the other classes among themselves (N, C - 1)."""
    import torch

    every = torch.log_softmax(logits, dim=1)
    is_label = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    others = every[~is_label].view(len(logits), -1)
    both = torch.stack((every[is_label], torch.logsumexp(others, dim=1)), dim=1)
    return both, torch.log_softmax(others, dim=1)
