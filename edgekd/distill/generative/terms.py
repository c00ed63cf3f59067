"""What a generator is asked for when all there is, is a teacher. Each term is a scalar, and less is better.

Logits are the teacher's or the student's (N, C), raw; features (N, D) are what the teacher's last linear layer takes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["activation", "balance", "disagreement", "distance", "one_hot"]


def one_hot(teacher: Tensor) -> Tensor:
    """Cross-entropy with the teacher's own first choice: it should be sure (DAFL, arXiv 1904.01186)."""
    return functional.cross_entropy(teacher, teacher.detach().argmax(1))


def activation(features: Tensor) -> Tensor:
    """Minus the mean size of a feature: what was learned from should stir the filters (DAFL)."""
    return -features.abs().mean()


def balance(teacher: Tensor) -> Tensor:
    """Minus the entropy (nats) of the batch's mean answer: all classes should come equally often (DAFL)."""
    share = functional.softmax(teacher, 1).mean(0)
    negative: Tensor = torch.special.xlogy(share, share).sum()
    return negative


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of logits: the student lessens it, the generator raises it (DFAD, arXiv 1912.11006)."""
    return functional.l1_loss(student, teacher)


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) in nats over the images on whose class both agree; 0 for the others. Mean over the batch.

    Where they disagree already there is nothing to search for; counted there, the term runs off into images that no
    student could learn (the decision-aware form of DeepInversion and CMI: arXiv 1912.08795, 2105.08584).
    """
    apart = functional.kl_div(
        functional.log_softmax(student, 1), functional.log_softmax(teacher, 1), reduction="none", log_target=True
    )
    agreed = student.detach().argmax(1) == teacher.detach().argmax(1)
    return (apart.sum(1) * agreed).mean()
