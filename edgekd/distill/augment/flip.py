"""Half of the samples mirrored left to right. Only for tasks whose labels survive it (`TaskSpec.flip`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.augment._protocol import PixelView
from edgekd.distill.augment.random import choices

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Flip"]


class Flip(PixelView):
    """Mirrored with probability one half."""

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Each sample as it is, or with its columns in reverse."""
        import torch

        mirrored = torch.from_numpy(choices(seed, "flip", indices, 2) == 1)
        # mirroring all and choosing is several times faster than gathering the chosen half
        return torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
