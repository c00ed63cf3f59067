"""The base of every view: pixels keep their dtype inside, and become float32 once, at the end."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.records import Digest, Record, digest_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PixelView"]


class PixelView(Record):
    """A `View` (teachers/_protocol.py) that moves pixels about and so never changes their dtype."""

    def digest(self) -> Digest:
        """Identity of the transformation, without its seed."""
        return digest_json({"view": type(self).__name__, "version": 1, "options": self.model_dump(mode="json")})

    def __call__(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Raw samples (N, C, H, W), any dtype, as raw-unit float32 views."""
        return self.pixels(batch, indices, seed).float()

    @abstractmethod
    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """The view (N, C, H, W) in the batch's own dtype. ``batch`` lies on the CPU and is not changed."""
