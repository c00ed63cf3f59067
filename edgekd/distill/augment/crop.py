"""`crop`: a random window of the image's own size, cut from the image padded with raw zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import PositiveInt

from edgekd.distill.augment._protocol import ImageAugmentation
from edgekd.distill.augment.random import choices
from edgekd.errors import Problem
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PadCrop"]


class PadCrop(ImageAugmentation):
    """Random shift by up to ``pad`` pixels in each direction, uniform over all (2 pad + 1)^2 shifts."""

    shorthand: ClassVar[str | None] = "pad"

    pad: PositiveInt

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if the border is as wide as the image."""
        problems, (height, width) = super().check(spec), spec.input.shape[-2:]
        if not problems and self.pad >= min(height, width):
            message = f"{self.pad} would crop {height} x {width} images to nothing"
            problems.append(Problem(message, f"use less than {min(height, width)}; about an eighth of it is usual"))
        return problems

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample's window (N, C, H, W)."""
        import torch

        count, _, height, width = batch.shape
        shifts = 2 * self.pad + 1
        top = choices(seed, "crop.top", indices, shifts)
        left = choices(seed, "crop.left", indices, shifts)
        padded = torch.nn.functional.pad(batch, (self.pad,) * 4).numpy()
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # (N, C, shifts, shifts, H, W)
        # numpy copies whole rows here; the same gather in torch goes pixel by pixel, six times slower
        return torch.from_numpy(windows.transpose(0, 2, 3, 1, 4, 5)[np.arange(count), top, left])
