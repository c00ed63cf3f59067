"""FitNet, a feature loss: mean squared difference of inner activations, "hints" (Romero et al.

2015, "FitNets: Hints for thin deep nets", ICLR, arXiv 1412.6550, equation 3):

    1/2 * mean( (teacher - r(student))^2 )

r is a regressor trained with the student, here a 1 x 1 convolution; the paper sums over a map, this takes the mean, so
that one weight fits maps of any size. The paper first trains up to the hint, then the whole network; here both are one
training, as is usual since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.distill.losses.connect import Connector, half_mean_square, same_resolution
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["FitNet"]


class FitNet(FeatureLoss):
    """Options of `fitnet`. Maps or vectors, at any points.

    Default weight: the best of six from 0.3 to 100. A short training on CIFAR-10 gained 0.6 points over labels alone
    with 1, and 9 with 30 or 100 (`benchmarks/distill_losses.py`).
    """

    paper: ClassVar[str] = "Romero 2015, FitNets: hints for thin deep nets, ICLR"
    use: ClassVar[str] = "student and teacher of like design, most of all where data or epochs are few"

    weight: NonNegativeFloat = 30.0

    def criterion(self, site: Site) -> Criterion:
        """Return one regressor for each pair."""
        return _Hints(site)


class _Hints(Criterion):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.connectors = nn.ModuleList(Connector(student, teacher) for student, teacher in site.pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean over the pairs."""
        del batch
        terms = []
        for connector, own, target in zip(self.connectors, student, teacher, strict=True):
            own, target = same_resolution(own, target)
            terms.append(half_mean_square(connector(own), target))
        return torch.stack(terms).mean()
