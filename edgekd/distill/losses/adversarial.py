"""Adversarial distillation: a discriminator tells the student's activations from the teacher's, the student fools it.

On logits: Xu, Hsu & Huang 2018, "Training shallow and thin networks for acceleration via knowledge distillation with
conditional adversarial networks", ICLR workshop, arXiv 1709.00513 (see also KDGAN, Wang et al. 2018, NeurIPS). On
feature maps, one discriminator for each stage: Shen, He & Xue 2019, "MEAL", AAAI, arXiv 1812.02425. The game is that of
Goodfellow et al. 2014 (arXiv 1406.2661, equation 1):

    loss = -mean[ log D(teacher) ] - mean[ log(1 - D(student)) ]        D's cross-entropy; 2 log 2 if it only guesses

D minimises it. A gradient reversal layer between D and the student multiplies the gradient by ``-strength`` (Ganin &
Lempitsky 2015, ICML, arXiv 1409.7495), so that one step trains both and the student maximises it. A decreasing loss
therefore means that the discriminator wins. Mean over the batch and over pairs of points. Vectors (N, C) go through
three linear layers, maps (N, C, H, W) through two convolutions of stride 2 and a mean over the map; if channels differ,
a `Connector` comes first and is trained on the student's side.

D compares distributions, not single samples: add `kd` or `ce`. Xu's also predicts the class; MEAL adds a distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.losses._protocol import Choice, FeatureLoss, Site
from edgekd.distill.losses.connect import Connector, same_resolution
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["Adversarial"]


class Adversarial(FeatureLoss):
    """Options of `adversarial`. Maps or vectors, at any points.

    Default weight: with 1 the training diverged on CIFAR-10; with 0.001 to 0.1 it gained less than one point
    (`benchmarks/distill_losses.py`).
    """

    paper: ClassVar[str] = "Xu 2018, Training shallow and thin networks with conditional adversarial networks, ICLR-W"
    use: ClassVar[str] = "beside kd, where the teacher's answers have a shape that a small student misses on average"

    weight: NonNegativeFloat = 0.1
    points: Choice = "logits"
    strength: NonNegativeFloat = 1.0  # of the student's gradient, compared with the discriminator's
    width: PositiveInt = 128  # of the discriminator's layers

    def criterion(self, site: Site) -> Criterion:
        """Return one discriminator for each pair, and a connector if channels differ."""
        return _Game(site, self.strength, self.width)


class _Game(Criterion):
    def __init__(self, site: Site, strength: float, width: int) -> None:
        super().__init__()
        self.strength = strength
        self.connectors = nn.ModuleList(
            Connector(student, teacher) if student.shape[0] != teacher.shape[0] else nn.Identity()
            for student, teacher in site.pairs
        )
        self.discriminators = nn.ModuleList(
            (_of_maps if len(teacher.shape) == 3 else _of_vectors)(teacher.shape[0], width) for _, teacher in site.pairs
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean over the pairs."""
        del batch
        terms = []
        for discriminator, connector, own, target in zip(
            self.discriminators, self.connectors, student, teacher, strict=True
        ):
            own, target = same_resolution(own, target)
            own = _Reversal.apply(connector(own), self.strength)  # type: ignore[no-untyped-call]
            loss_on_teacher = functional.softplus(-discriminator(target)).mean()  # -log D
            loss_on_student = functional.softplus(discriminator(own)).mean()  # -log(1 - D)
            terms.append(loss_on_teacher + loss_on_student)
        return torch.stack(terms).mean()


class _Reversal(torch.autograd.Function):
    """Gradient reversal: identity forward, gradient times ``-strength`` backward."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def _of_vectors(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, 1),
    )


def _of_maps(channels: int, width: int) -> nn.Module:
    """Build a discriminator of maps, without normalisation: the mean of a batch of one network would give it away."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 1),
    )
