"""`resized_crop`: a random part of the image enlarged to its own size (Szegedy et al.

2015, arXiv 1409.4842, section 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from edgekd.distill.augment._protocol import ImageAugmentation
from edgekd.distill.augment.box import Areas, Aspects, sides
from edgekd.distill.augment.random import uniform
from edgekd.distill.augment.raw import rounded
from edgekd.distill.augment.warp import warped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ResizedCrop"]


def _up_to_all(value: Any) -> Any:
    return (value, 1.0) if isinstance(value, int | float) else value


class ResizedCrop(ImageAugmentation):
    """Random resized crop.

    ``area``: share of the image, [lowest, highest] or the lowest alone; ``aspect``: width / height.

    The paper's 0.08 is for photographs of 224 pixels; small images, which objects fill, keep more (0.3 to 0.7).
    """

    shorthand: ClassVar[str | None] = "area"

    area: Annotated[Areas, BeforeValidator(_up_to_all)] = (0.08, 1.0)
    aspect: Aspects = (0.75, 1.3333)

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample's part, bilinear (N, C, H, W)."""
        height, width = batch.shape[2:]
        h, w = sides(seed, "resized_crop", indices, (height, width), self.area, self.aspect)
        matrices = np.zeros((len(indices), 2, 3))
        matrices[:, 0, 0], matrices[:, 1, 1] = w / width, h / height
        # the crop's centre is uniform over all positions inside the image
        matrices[:, 0, 2] = uniform(seed, "resized_crop.left", indices, (w - width) / 2, (width - w) / 2)
        matrices[:, 1, 2] = uniform(seed, "resized_crop.top", indices, (h - height) / 2, (height - h) / 2)
        return rounded(warped(batch, matrices, outside="border"), batch.dtype)
