"""Loss terms of a generator that has a teacher but no data. Each is a scalar; lower is better.

Logits are the teacher's or the student's (N, C), raw; features (N, D) are the inputs of the teacher's last linear
layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["activation", "balance", "disagreement", "distance", "one_hot"]


def one_hot(teacher: Tensor) -> Tensor:
    """Return cross-entropy with the teacher's top class: its outputs should be confident (DAFL, arXiv 1904.01186)."""
    return functional.cross_entropy(teacher, teacher.detach().argmax(1))


def activation(features: Tensor) -> Tensor:
    """Return minus the mean absolute feature: images like the training data activate the filters (DAFL)."""
    return -features.abs().mean()


def balance(teacher: Tensor) -> Tensor:
    """Return minus the entropy (nats) of the batch's mean probabilities: classes should be equally frequent (DAFL)."""
    share = functional.softmax(teacher, 1).mean(0)
    negative: Tensor = torch.special.xlogy(share, share).sum()
    return negative


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean absolute difference of logits, which the generator raises (DFAD, arXiv 1912.11006)."""
    return functional.l1_loss(student, teacher)


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) in nats over images on whose class both agree, else 0; mean over the batch.

    Where they already disagree there is nothing to search for; if counted there, the term leads to images that no
    student could learn (the decision-aware form of DeepInversion and CMI: arXiv 1912.08795, 2105.08584).
    """
    apart = functional.kl_div(
        functional.log_softmax(student, 1), functional.log_softmax(teacher, 1), reduction="none", log_target=True
    )
    agreed = student.detach().argmax(1) == teacher.detach().argmax(1)
    return (apart.sum(1) * agreed).mean()
