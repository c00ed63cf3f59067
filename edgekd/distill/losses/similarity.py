"""Similarity-preserving distillation, a feature loss on pairwise similarities of a batch (Tung & Mori 2019,
"Similarity-preserving knowledge distillation", ICCV, arXiv 1907.09682):

    sum over pairs of  1/N^2 * || G_s - G_t ||^2,   G = rows of (A A^T), each divided by its length

A is an activation of the whole batch as a matrix, (N, C * H * W) or (N, C): G is (N, N) for any widths and resolutions,
so no connector is needed. The default weight is the authors' (gamma).

It is not a mean over the batch: rows of length 1 have entries near 1 / sqrt(N), so the loss shrinks as 1 / N. A batch
repeated twice has half the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import normalize

from edgekd.distill.losses._protocol import Choice, FeatureLoss, Site
from edgekd.distill.losses.criterion import Batch, Criterion

__all__ = ["Similarity"]


class Similarity(FeatureLoss):
    """Options of `similarity`. Maps or vectors; a map may be paired with a vector. The paper takes the last maps.

    It compares samples of one batch: a batch of a single sample has no signal.
    """

    mixes: ClassVar[bool] = True
    paper: ClassVar[str] = "Tung 2019, Similarity-preserving knowledge distillation, ICCV"
    use: ClassVar[str] = "a student of another design than its teacher, and batches of 64 or more"

    weight: NonNegativeFloat = 3000.0
    points: Choice = "last stage"

    def criterion(self, site: Site) -> Criterion:
        """Return a criterion without parameters."""
        del site
        return _Similarities()


class _Similarities(Criterion):
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the sum over the pairs; zero if the similarities are equal."""
        del batch
        terms = [
            (_similarities(own) - _similarities(other)).square().mean()
            for own, other in zip(student, teacher, strict=True)
        ]
        return torch.stack(terms).sum()


def _similarities(features: Tensor) -> Tensor:
    """Return similarities (N, N) of features (N, ...), rows of length 1."""
    flat = features.flatten(1)
    return normalize(flat @ flat.T, dim=1)
