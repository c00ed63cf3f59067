"""ReviewKD (knowledge review), a feature loss: a shallow stage is fused with all deeper ones before it is compared with
the teacher's (Chen et al. 2021, "Distilling knowledge via knowledge review", CVPR, arXiv 2104.09044). From the deepest
stage to the shallowest, with x a student's map (N, C, H, W) and r the output of the deeper stage:

    x' = norm(conv1x1(x))                                               same channels at every stage
    a  = sigmoid(conv1x1([x', up(r)]))                                  (N, 2, H, W)
    r  = a_1 * x' + a_2 * up(r)                                         attention-based fusion; r = x' at the deepest
    loss += HCL(norm(conv3x3(r)), teacher)                              r at the teacher's resolution, or see below

    HCL(s, t) = sum over l of w_l * mean( (pool_l(s) - pool_l(t))^2 ) / sum of w_l

Hierarchical context loss (HCL): the maps themselves with w = 1, then averaged down to 4, 2 and 1 a side, each with half
the weight of the one before; sides that are not below the map's are left out. up and every change of size take the
nearest pixel. Mean over the batch and each map; stages are summed. If the student's map is the smaller one, the
teacher's is averaged down to it (the authors enlarge the student's): at half the side a quarter of the work, and no
pixel is invented.

Weight: 1 is the default of the authors' CIFAR code, with 0.6 to 1 in its commands for ResNets of 16 to 64 channels and
5 to 8 for wider students, all for 240 epochs. The default here suits short trainings: 15 epochs on CIFAR-10 gained 4.8
points over labels alone with 1, and 12 with 10 or 30 (`benchmarks/distill_losses.py`). The authors raise it from 0 over
the first 20 epochs: ``weight: {from: 0, to: 1, end: 0.083}``. They take the teacher's maps before the last activation,
and its average over the image as one more stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.distill.losses.connect import averaged, smaller_size
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["ReviewKD"]


class ReviewKD(FeatureLoss):
    """Options of `reviewkd`. Maps, from high resolution to low; one pair or more."""

    paper: ClassVar[str] = "Chen 2021, Distilling knowledge via knowledge review, CVPR"
    use: ClassVar[str] = (
        "the strongest of those that match maps; a step of a small student takes three to seven times as long"
    )
    on: ClassVar[tuple[Literal["map", "vector"], ...]] = ("map",)

    weight: NonNegativeFloat = 10.0
    width: PositiveInt = 512  # most channels of the fused maps; otherwise those of the student's deepest stage

    def criterion(self, site: Site) -> Criterion:
        """Return one fusion for each pair."""
        return _Review(site, self.width)


class _Review(Criterion):
    def __init__(self, site: Site, width: int) -> None:
        super().__init__()
        middle = min(width, site.pairs[-1][0].shape[0])
        self.fusions = nn.ModuleList(
            _Fusion(student.shape[0], middle, teacher.shape[0], deepest=at == len(site.pairs) - 1)
            for at, (student, teacher) in enumerate(site.pairs)
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the sum over the stages."""
        del batch
        terms = []
        handed: Tensor | None = None
        for fusion, own, target in reversed(list(zip(self.fusions, student, teacher, strict=True))):
            size = smaller_size(own, target)
            answer, handed = fusion(own, handed, size)
            terms.append(_context(answer, averaged(target, size)))
        return torch.stack(terms).sum()


class _Fusion(nn.Module):
    def __init__(self, before: int, middle: int, after: int, deepest: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(before, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.leave = nn.Sequential(nn.Conv2d(middle, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
        self.attend = None if deepest else nn.Conv2d(2 * middle, 2, 1)
        for part in (self.enter, self.leave):
            nn.init.kaiming_uniform_(part[0].weight, a=1)  # type: ignore[arg-type]  # of a convolution

    def forward(self, own: Tensor, deeper: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the map to compare with the teacher (N, teacher channels, *size), and the map for the next stage."""
        fused: Tensor = self.enter(own)
        if self.attend is not None and deeper is not None:
            weight, middle = self.attend.weight, fused.shape[1]
            above = _nearest(functional.conv2d(deeper, weight[:, middle:]), fused.shape[2:])
            shares = torch.sigmoid(functional.conv2d(fused, weight[:, :middle], self.attend.bias) + above)
            fused = shares[:, :1] * fused + shares[:, 1:] * _nearest(deeper, fused.shape[2:])
        fused = _nearest(fused, size)
        return self.leave(fused), fused


def _nearest(features: Tensor, size: Sequence[int]) -> Tensor:
    return features if features.shape[2:] == size else functional.interpolate(features, tuple(size), mode="nearest")


def _context(own: Tensor, target: Tensor) -> Tensor:
    """Return the hierarchical context loss (HCL above)."""
    total, weight, weights = functional.mse_loss(own, target), 1.0, 1.0
    for side in (4, 2, 1):
        if side < min(own.shape[2:]):
            weight /= 2
            weights += weight
            pooled, other = (functional.adaptive_avg_pool2d(features, side) for features in (own, target))
            total = total + weight * functional.mse_loss(pooled, other)
    return total / weights
