"""`rotate`: rotate each image about its centre; pixels from outside the image are raw zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgekd.distill.augment._protocol import ImageAugmentation
from edgekd.distill.augment.random import uniform
from edgekd.distill.augment.raw import rounded
from edgekd.distill.augment.warp import rotation, warped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rotate"]


class Rotate(ImageAugmentation):
    """Rotation by a uniform angle of up to ``degrees`` in either direction; bilinear."""

    shorthand: ClassVar[str | None] = "degrees"

    degrees: Annotated[float, Field(gt=0, le=180)]

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample rotated (N, C, H, W)."""
        angles = uniform(seed, "rotate", indices, -self.degrees, self.degrees)
        return rounded(warped(batch, rotation(angles)), batch.dtype)
