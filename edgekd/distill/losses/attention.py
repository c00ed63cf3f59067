"""Attention transfer, a feature loss on spatial attention maps (Zagoruyko & Komodakis 2017, "Paying more attention to
attention", ICLR, arXiv 1612.03928).

An attention map is the mean square of an activation over its channels, as one vector q of H * W numbers for each
sample. It does not depend on the number of channels; the student's should have the teacher's direction (their equation
2, squared as in their code):

    sum over pairs of  b/2 * || q_s / |q_s| - q_t / |q_t| ||^2,   b = 1000 / (N * H * W)

They give b as 1000 divided by the elements of a map and by the samples. Here the division is a mean, and 1000 the
weight:

    sum over pairs of  1/2 * mean over samples and positions of (q_s / |q_s| - q_t / |q_t|)^2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import normalize

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.distill.losses.connect import same_resolution
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["Attention"]


class Attention(FeatureLoss):
    """Options of `attention`. Maps only.

    The paper's weight is 1000 (their code leaves out the half), with which 15 epochs on CIFAR-10 lost 3.6 points; they
    gained 1 with 100, the best of five and the default (`benchmarks/distill_losses.py`).
    """

    on: ClassVar[tuple[Literal["map", "vector"], ...]] = ("map",)
    paper: ClassVar[str] = "Zagoruyko 2017, Paying more attention to attention, ICLR"
    use: ClassVar[str] = "maps of other widths than the teacher's, without layers that are trained along"

    weight: NonNegativeFloat = 100.0

    def criterion(self, site: Site) -> Criterion:
        """Return a criterion without parameters."""
        del site
        return _Looks()


class _Looks(Criterion):
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the sum over pairs of maps (N, C, H, W); 0 if each sample's attention maps differ by a factor only."""
        del batch
        terms = []
        for own, other in zip(student, teacher, strict=True):
            own, other = same_resolution(_energy(own), _energy(other))
            difference = normalize(own.flatten(1), dim=1) - normalize(other.flatten(1), dim=1)
            terms.append(0.5 * difference.square().mean())
        return torch.stack(terms).sum()


class _Energy(torch.autograd.Function):
    """Mean of squares over the channels, with a hand-written gradient: autograd's takes several times as long."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features.square().mean(1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        gradient: Tensor = features * (gradients[0] * (2.0 / features.shape[1]))
        return gradient


def _energy(features: Tensor) -> Tensor:
    """Reduce (N, C, H, W) to (N, 1, H, W).

    Before the resolution changes, so that channels of both signs don't cancel.
    """
    energy: Tensor = _Energy.apply(features)  # type: ignore[no-untyped-call]  # torch's own annotations
    return energy
