"""Affine image warps with bilinear interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["rotation", "warped"]


def warped(
    batch: Tensor, matrices: NDArray[np.float64], outside: Literal["zeros", "border"] = "zeros", fill: float = 0.0
) -> Tensor:
    """Warp images: the pixel at (x, y) is sampled at matrix (2, 3) times (x, y, 1).

    Returns float32 (N, C, H, W), not rounded.

    x and y are pixels from the image's centre, to the right and down. With ``outside="zeros"``, pixels from beyond the
    image are ``fill``.
    """
    import torch

    height, width = batch.shape[2:]
    m = torch.from_numpy(matrices.astype(np.float32))[:, :, :, None, None]  # (N, 2, 3, 1, 1)
    x = (torch.arange(width) - (width - 1) / 2)[None, None, :]
    y = (torch.arange(height) - (height - 1) / 2)[None, :, None]
    # written out instead of affine_grid, whose matrix product rounds otherwise in another batch
    to_x = (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) * (2 / width)
    to_y = (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) * (2 / height)
    images = batch.float() - fill if fill else batch.float()
    seen = torch.nn.functional.grid_sample(
        images, torch.stack((to_x, to_y), dim=-1), mode="bilinear", padding_mode=outside, align_corners=False
    )
    return seen + fill if fill else seen


def rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return matrices (N, 2, 3) that rotate an image counter-clockwise."""
    angle = np.deg2rad(degrees)
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack((np.stack((cosine, -sine, zero), axis=1), np.stack((sine, cosine, zero), axis=1)), axis=1)
