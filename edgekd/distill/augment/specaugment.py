"""`specaugment`: mask bands of frequency and spans of time (Park et al. 2019, "SpecAugment", arXiv 1904.08779).

Without the paper's time warp, which its authors found to matter least. Frequency is the axis before the last, time the
last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from edgekd.distill.augment._protocol import PixelAugmentation
from edgekd.distill.augment.random import uniform
from edgekd.distill.augment.raw import per_sample, rounded, sample_means
from edgekd.errors import Problem
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SpecAugment"]


class SpecAugment(PixelAugmentation):
    """SpecAugment. ``frequency`` and ``time``: widest mask in bins and steps; default a quarter of the axis.

    Widths are uniform from 0. Masked values become the sample's mean. A signal without a frequency axis is masked in
    time only.
    """

    moves: ClassVar[bool] = False

    frequency: NonNegativeInt | None = None  # F in the paper
    time: NonNegativeInt | None = None  # T
    frequency_masks: NonNegativeInt = 1  # m_F
    time_masks: NonNegativeInt = 1  # m_T

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return the masks that are wider than their axis, or whose axis does not exist."""
        problems, shape = super().check(spec), spec.input.shape
        if not spec.input.is_image and self.frequency:
            problems.append(Problem(f"task `{spec.name}` has no frequency axis", "leave frequency out"))
        axes = (("frequency", self.frequency, shape[-2]), ("time", self.time, shape[-1]))
        for name, width, length in axes if spec.input.is_image else axes[1:]:
            if width is not None and width > length:
                message = f"{name}: {width} is wider than the axis, which is {length}"
                problems.append(Problem(message, f"use at most {length}; about a quarter of it is usual"))
        return problems

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample with its masks (N, C, F, T), or (N, C, T)."""
        import torch

        masked = _masked(seed, "time", indices, batch.shape[-1], self.time, self.time_masks)[:, None, :]
        if batch.ndim == 4 and batch.shape[2] > 1:
            bands = _masked(seed, "frequency", indices, batch.shape[2], self.frequency, self.frequency_masks)
            masked = masked | bands[:, :, None]
        mask = torch.from_numpy(masked)
        filling = rounded(per_sample(sample_means(batch), batch), batch.dtype)
        return torch.where(mask[:, None] if batch.ndim == 4 else mask, filling, batch)


def _masked(
    seed: int, axis: str, indices: NDArray[np.int64], length: int, widest: int | None, masks: int
) -> NDArray[np.bool_]:
    """Return the mask (N, length) of an axis for each sample."""
    most = length // 4 if widest is None else widest
    places, masked = np.arange(length), np.zeros((len(indices), length), np.bool_)
    for number in range(masks):
        stream = f"specaugment.{axis}.{number}"
        width = np.floor(uniform(seed, f"{stream}.width", indices, 0, most + 1))[:, None]
        start = np.floor(uniform(seed, f"{stream}.start", indices)[:, None] * (length - width + 1))
        masked |= (places >= start) & (places < start + width)
    return masked
