"""`cutmix`: a rectangle of another image, and as much of its label (Yun et al. 2019, "CutMix", arXiv 1905.04899)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from edgekd.distill.augment._protocol import Bound, only_images
from edgekd.distill.augment.box import inside
from edgekd.distill.augment.mixing import MixingAugmentation
from edgekd.distill.augment.random import beta, uniform
from edgekd.errors import Problem
from edgekd.tasks._protocol import HeadKind, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CutMix"]


class CutMix(MixingAugmentation, Bound):
    """CutMix: a box with the image's aspect ratio and 1 - lambda of its area, lambda from Beta(``alpha``, ``alpha``).

    The centre is uniform over the image; the box is clipped at the border, and the label share is that of the remaining
    pixels.
    """

    shorthand: ClassVar[str | None] = "alpha"
    mixable: ClassVar[tuple[HeadKind, ...]] = ("multilabel",)  # no number is shared out by area

    alpha: PositiveFloat = 1.0

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if the samples are not images."""
        return [*only_images(spec), *super().check(spec)]

    def shares(self, indices: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """Return the share of pixels (N,) that are the sample's own."""
        other = self._box(indices, seed).mean(axis=(1, 2, 3))
        return np.asarray(1 - other, np.float32)

    def mixed(self, own: Tensor, other: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the partner's pixels inside the box, the sample's own outside (N, C, H, W), in their dtype."""
        import torch

        return torch.where(torch.from_numpy(self._box(indices, seed)), other, own)

    def _box(self, indices: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
        size = self.input.shape[1], self.input.shape[2]
        root = np.sqrt(1 - beta(seed, "cutmix", indices, self.alpha))
        edges = []
        for name, length in zip(("row", "column"), size, strict=True):
            centre = uniform(seed, f"cutmix.{name}", indices, 0, length)
            edges.append([np.round(centre + way * root * length / 2).astype(np.int64) for way in (-1, 1)])
        (top, bottom), (left, right) = edges  # beyond the image where they reach it: no pixel is there
        return inside(top, left, bottom, right, size)
