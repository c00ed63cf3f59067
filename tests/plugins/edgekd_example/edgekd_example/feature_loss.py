"""`cosine`: activations point the same way, whatever their size: mean of 1 - cos(connector(student), teacher)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.distill.losses.connect import Connector, same_resolution
from edgekd.distill.losses.criterion import Batch, Criterion


class Cosine(FeatureLoss):
    """Options of `cosine`. Maps or vectors, at any points."""

    def criterion(self, site: Site) -> Criterion:
        """One connector a pair of points."""
        return Directions(site)


class Directions(Criterion):
    """Trained along with the student, dropped with it exported."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.connectors = nn.ModuleList(Connector(student, teacher) for student, teacher in site.pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Over channels, mean over samples and positions, summed over the pairs."""
        total = teacher[0].new_zeros(())
        for connector, own, other in zip(self.connectors, student, teacher, strict=True):
            one, two = same_resolution(own, other)
            total = total + (1 - cosine_similarity(connector(one), two, dim=1)).mean()
        return total
