"""`shift`: shift a signal in time, along the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from edgekd.distill.augment._protocol import PixelAugmentation
from edgekd.distill.augment.random import choices
from edgekd.errors import Problem
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Shift"]


class Shift(PixelAugmentation):
    """Random shift by whole steps, uniform up to ``share`` of the length in either direction.

    The gap is filled with raw zeros, or (``around``) with the values that left at the other end.
    """

    shorthand: ClassVar[str | None] = "share"

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    around: bool = False

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if the signal is so short that nothing would move."""
        length = spec.input.shape[-1]
        if self._most(length):
            return super().check(spec)
        message = f"{self.share:g} of {length} steps is less than one step"
        return [Problem(message, f"use at least {1 / length:.3g}"), *super().check(spec)]

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample shifted (N, ..., T)."""
        import torch

        length = batch.shape[-1]
        most = self._most(length)
        begin = choices(seed, "shift", indices, 2 * most + 1)
        flat = batch.reshape(len(batch), -1, length)
        before, after = flat[..., length - most :], flat[..., :most]
        if not self.around:
            before, after = torch.zeros_like(before), torch.zeros_like(after)
        padded = torch.cat((before, flat, after), dim=-1).numpy()
        windows = sliding_window_view(padded, length, axis=2).transpose(0, 2, 1, 3)  # (N, begins, rows, T)
        return torch.from_numpy(windows[np.arange(len(batch)), begin]).view_as(batch)

    def _most(self, length: int) -> int:
        return int(self.share * length + 1e-9)  # 0.1 of 30 is 3 in spite of float rounding
