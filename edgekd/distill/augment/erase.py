"""`erase`: a rectangle of random values over some images (Zhong et al. 2017, "Random Erasing", arXiv 1708.04896)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgekd.distill.augment._protocol import Bound, ImageAugmentation
from edgekd.distill.augment.box import Areas, Aspects, inside, sides
from edgekd.distill.augment.random import many_bytes, uniform
from edgekd.distill.augment.raw import as_raw

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Erase"]


class Erase(ImageAugmentation, Bound):
    """Random erasing of a box with ``probability``; ``area`` is [lowest, highest] share, ``aspect`` width / height.

    ``fill``: a random value within the raw range for each pixel and channel (best in the paper), or raw zeros.
    """

    shorthand: ClassVar[str | None] = "probability"
    moves: ClassVar[bool] = False

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    area: Areas = (0.02, 0.4)
    aspect: Aspects = (0.3, 3.3333)
    fill: Literal["random", "zero"] = "random"

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the batch (N, C, H, W), some samples with an erased box."""
        import torch

        rows = np.flatnonzero(uniform(seed, "erase", indices) < self.probability)
        some, (_, channels, height, width) = indices[rows], batch.shape
        h, w = sides(seed, "erase", some, (height, width), self.area, self.aspect)
        tall, wide = (np.maximum(np.round(side), 1).astype(np.int64) for side in (h, w))
        top = (uniform(seed, "erase.top", some) * (height - tall + 1)).astype(np.int64)
        left = (uniform(seed, "erase.left", some) * (width - wide + 1)).astype(np.int64)
        box = torch.from_numpy(inside(top, left, top + tall, left + wide, (height, width)))
        at, seen = torch.from_numpy(rows), batch.clone()
        seen[at] = torch.where(box, self._filling(some, seed, (channels, height, width), batch.dtype), batch[at])
        return seen

    def _filling(
        self, indices: NDArray[np.int64], seed: int, shape: tuple[int, int, int], dtype: torch.dtype
    ) -> Tensor:
        import torch

        if self.fill == "zero":
            return torch.zeros((), dtype=dtype)
        values = many_bytes(seed, "erase.fill", indices, int(np.prod(shape)))
        return as_raw(torch.from_numpy(values).reshape(-1, *shape).float() / 255, self.input, dtype)
