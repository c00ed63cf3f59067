"""Relational knowledge distillation: distances and angles between a batch's embeddings (Park et al.

2019, "Relational knowledge distillation", CVPR, arXiv 1904.05068):

      distance * mean over i, j of h( d_s(i, j), d_t(i, j) )
    + angle * mean over i, j, k of h( a_s(i, j, k), a_t(i, j, k) )

    d(i, j) = |x_i - x_j| / mean over all pairs that are apart
    a(i, j, k) = cosine of the angle at x_j = < x_i - x_j, x_k - x_j > / ( |x_i - x_j| * |x_k - x_j| )
    h = Huber's loss: half the squared difference up to 1, then linear

Invariant to rotation, translation and scale of the embeddings, and their widths need not agree. The means are over all
N^2 pairs and N^3 triplets as in the authors' code, with zeros where two samples are the same one: their sums over
distinct ones give no factor. Two embeddings closer than rounding (copies of one sample, for example) are at distance 0,
and have no angle and no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from edgekd.distill.losses._protocol import Choice, FeatureLoss, Site
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["RKD"]

_TOGETHER = 64  # samples whose triplets are compared, as many as the authors' batches have: the work is their cube
_ROUNDING = 64  # times the smallest step of a number near 1: squared distances under it are 0


class RKD(FeatureLoss):
    """Options of `rkd`. Maps are averaged over the image, and may be paired with vectors.

    ``distance`` and ``angle`` are the authors' for CIFAR-100. With their weight of 1, 15 epochs on CIFAR-10 lost 1.6
    points; with 0.3, the default, they gained 0.4 (`benchmarks/distill_losses.py`). A batch of more than 64 is split
    into consecutive parts of equal size, and triplets are taken within each.
    """

    mixes: ClassVar[bool] = True
    paper: ClassVar[str] = "Park 2019, Relational knowledge distillation, CVPR"
    use: ClassVar[str] = "embeddings that are compared with each other afterwards, as in retrieval"

    weight: NonNegativeFloat = 0.3
    points: Choice = "penultimate"
    distance: NonNegativeFloat = 25.0
    angle: NonNegativeFloat = 50.0

    def criterion(self, site: Site) -> Criterion:
        """Return a criterion without parameters."""
        del site
        return _Relations(self.distance, self.angle)


class _Relations(Criterion):
    def __init__(self, distance: float, angle: float) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the sum over pairs of points; zero if one is the other rotated, shifted and scaled."""
        del batch
        terms = []
        for own, other in zip(student, teacher, strict=True):
            own, other = _embeddings(own), _embeddings(other)
            terms.append(self.distance * smooth_l1_loss(_distances(own), _distances(other)))
            if self.angle:
                parts = -(-len(own) // _TOGETHER)
                cut = zip(own.tensor_split(parts), other.tensor_split(parts), strict=True)
                angles = [smooth_l1_loss(_cosines(some), _cosines(others)) for some, others in cut]
                terms.append(self.angle * torch.stack(angles).mean())
        return torch.stack(terms).sum()


def _embeddings(features: Tensor) -> Tensor:
    """Reduce (N, C, H, W) or (N, C) to (N, C)."""
    return features.mean((2, 3)) if features.ndim == 4 else features


def _distances(embeddings: Tensor) -> Tensor:
    """Return distances (N, N) of embeddings (N, C), divided by the mean of those above 0."""
    distances, apart, _ = _geometry(embeddings)
    mean = distances.sum() / apart.sum().clamp(min=1)
    return distances / mean.clamp(min=torch.finfo(mean.dtype).tiny)


def _cosines(embeddings: Tensor) -> Tensor:
    """Return cosines (N, N, N) of embeddings (N, C): at the first sample, between the directions to the other two."""
    distances, apart, products = _geometry(embeddings)
    to_one = products - 0.5 * products.diagonal()[:, None]  # in all: <i, k> - <i, j> - <j, k> + <j, j>
    over = apart / torch.where(apart, distances, 1)
    return (products - to_one[:, :, None] - to_one[:, None, :]) * over[:, :, None] * over[:, None, :]


def _geometry(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances, whether they are above 0, and inner products around the mean, all (N, N).

    The square root of 0, whose gradient is infinite, is never taken.
    """
    centred = embeddings - embeddings.mean(0)
    products = centred @ centred.T
    lengths = products.diagonal()
    sums = lengths[:, None] + lengths
    squares = sums - 2 * products
    apart = squares > _ROUNDING * torch.finfo(squares.dtype).eps * sums
    return torch.where(apart, squares, 1).sqrt() * apart, apart, products
