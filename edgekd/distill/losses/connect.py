"""Connectors of student and teacher features: matching resolution and channels, and mean squared difference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.students.points import Point

__all__ = ["Connector", "averaged", "half_mean_square", "same_resolution", "smaller_size"]


def same_resolution(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Average two maps (N, C, H, W) down to the smaller height and the smaller width of both; nothing is upsampled.

    Vectors are returned unchanged.
    """
    if one.ndim != 4 or other.ndim != 4:
        return one, other
    size = smaller_size(one, other)
    return averaged(one, size), averaged(other, size)


def smaller_size(one: Tensor, other: Tensor) -> tuple[int, int]:
    """Return the smaller height and the smaller width of two maps (N, C, H, W)."""
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])


class Connector(nn.Module):
    """Projection from student to teacher channels: a 1 x 1 convolution (FitNets, Romero 2015), or a linear layer.

    Used even if the channel counts are equal: equal widths do not mean the same channels.
    """

    def __init__(self, student: Point, teacher: Point) -> None:
        super().__init__()
        before, after = student.shape[0], teacher.shape[0]
        self.project = nn.Conv2d(before, after, 1) if len(student.shape) == 3 else nn.Linear(before, after)

    def forward(self, features: Tensor) -> Tensor:
        """Project (N, student channels, ...) to (N, teacher channels, ...)."""
        projected: Tensor = self.project(features)
        return projected


def half_mean_square(one: Tensor, other: Tensor) -> Tensor:
    """Return 1/2 * mean( (one - other)^2 ), a scalar; ``other`` gets no gradient."""
    result: Tensor = _HalfMeanSquare.apply(one, other)  # type: ignore[no-untyped-call]  # torch's own annotations
    return result


class _HalfMeanSquare(torch.autograd.Function):
    """Hand-written, it passes over a map three times; with autograd's own operations it takes five times as long."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        difference = one - other
        ctx.save_for_backward(difference)
        return 0.5 * difference.square().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * (gradients[0] / difference.numel()), None


def averaged(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (N, C, H, W) to (N, C, *size)."""
    return features if features.shape[2:] == size else functional.adaptive_avg_pool2d(features, size)
