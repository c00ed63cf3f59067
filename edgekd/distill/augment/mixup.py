"""`mixup`: weighted means of two samples and their labels (Zhang et al. 2018, "mixup", arXiv 1710.09412)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from edgekd.distill.augment.mixing import MixingAugmentation
from edgekd.distill.augment.random import beta
from edgekd.distill.augment.raw import per_sample

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MixUp"]


class MixUp(MixingAugmentation):
    """MixUp with shares from Beta(``alpha``, ``alpha``), in float32.

    The paper uses 0.2 for ImageNet, 1 for CIFAR-10.
    """

    shorthand: ClassVar[str | None] = "alpha"

    alpha: PositiveFloat = 0.2

    def shares(self, indices: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """Return lambda of the paper (N,)."""
        return beta(seed, "mixup", indices, self.alpha).astype(np.float32)

    def mixed(self, own: Tensor, other: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return weighted means (N, ...) float32, not rounded."""
        share = per_sample(self.shares(indices, seed), own)
        return own.float() * share + other.float() * (1 - share)
