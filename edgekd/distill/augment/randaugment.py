"""`randaugment`: random operations of one common magnitude for each image (Cubuk et al. 2020, arXiv 1909.13719).

The paper's fourteen operations with AutoAugment's ranges (Cubuk et al. 2019, arXiv 1805.09501, table 6): at magnitude
10 a rotation of 30 degrees, a shear of 0.3, a translation of 0.45 of the side, factors of 0.1 or 1.9, 4 bits for each
value, and all values solarized. Rotations, shears, translations and factors have a random sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from edgekd.distill.augment._protocol import Bound, ImageAugmentation
from edgekd.distill.augment.colour import brightened, contrasted, saturated
from edgekd.distill.augment.random import choices
from edgekd.distill.augment.raw import as_raw, as_shares, per_sample
from edgekd.distill.augment.warp import rotation, warped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPERATIONS", "RandAugment"]

Strengths = NDArray[np.float64]
"""Signed strength of each sample (N,), -1 to 1: magnitude / 10 times a random sign."""


class RandAugment(ImageAugmentation, Bound):
    """RandAugment. ``operations`` are drawn in turn with replacement; ``magnitude`` is 0 to 10, as in the paper.

    Pixels from outside the image are raw zeros. Values are clipped to the raw range after each operation; operations on
    levels use 256 of them.
    """

    shorthand: ClassVar[str | None] = "magnitude"

    operations: PositiveInt = 2
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return each sample after its own operations (N, C, H, W)."""
        import torch

        low, high = self.input.raw_range
        zero = min(max(-low / (high - low), 0.0), 1.0)
        images, known = as_shares(batch, self.input), tuple(OPERATIONS.values())
        for step in range(self.operations):
            drawn = choices(seed, f"randaugment.{step}", indices, len(known))
            signs = 2 * choices(seed, f"randaugment.{step}.direction", indices, 2) - 1
            strengths = signs.astype(np.float64) * (self.magnitude / 10)
            moved = np.flatnonzero(np.isin(drawn, _MOVING))
            if len(moved):  # all of them in one go: they differ in their matrices alone
                matrices = _matrices(drawn[moved], strengths[moved], (batch.shape[2], batch.shape[3]))
                at = torch.from_numpy(moved)
                images[at] = warped(images[at], matrices, fill=zero)
            for number in np.setdiff1d(drawn, _MOVING):
                rows = np.flatnonzero(drawn == number)
                at = torch.from_numpy(rows)
                images[at] = known[number](images[at], strengths[rows])
        return as_raw(images, self.input, batch.dtype)


def _matrices(drawn: NDArray[np.int64], strengths: Strengths, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return affine matrices (N, 2, 3) for the operations that move pixels."""
    matrices = rotation(np.where(drawn == _MOVING[0], 30 * strengths, 0.0))
    for number, row, column, full in zip(
        _MOVING[1:], (0, 1, 0, 1), (1, 0, 2, 2), (0.3, 0.3, 0.45 * size[1], 0.45 * size[0]), strict=True
    ):
        matrices[:, row, column] += np.where(drawn == number, full * strengths, 0.0)
    return matrices


def _as_it_is(images: Tensor, strengths: Strengths) -> Tensor:
    del strengths
    return images


def _autocontrast(images: Tensor, strengths: Strengths) -> Tensor:
    """Stretch each channel to the whole range; a constant channel is unchanged."""
    del strengths
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return ((images - low) / (high - low)).where(high > low, images)


def _equalize(images: Tensor, strengths: Strengths) -> Tensor:
    """Equalize the histogram of each channel, with the counting of Pillow's ImageOps.equalize."""
    import torch

    del strengths
    channels = images.shape[0] * images.shape[1]
    levels = _levels(images).reshape(channels, -1).numpy()
    at = np.arange(channels)[:, None]
    counts = np.bincount((at * 256 + levels).ravel(), minlength=channels * 256).reshape(channels, 256)
    step = (levels.shape[1] - counts[at[:, 0], levels.max(axis=1)]) // 255
    below = counts.cumsum(axis=1) - counts
    table = np.clip((below + step[:, None] // 2) // np.maximum(step, 1)[:, None], 0, 255)
    table[step == 0] = np.arange(256)  # too few pixels, or all of a level
    return torch.from_numpy((table[at, levels] / 255).astype(np.float32)).view_as(images)


def _posterize(images: Tensor, strengths: Strengths) -> Tensor:
    """Keep only the high bits of each level: 8 down to 4."""
    import torch

    dropped = torch.from_numpy(np.round(4 * np.abs(strengths)).astype(np.int64))[:, None, None, None]
    return ((_levels(images) >> dropped) << dropped).float() / 255


def _solarize(images: Tensor, strengths: Strengths) -> Tensor:
    """Invert values at or above a threshold, which goes from 1 down to 0."""
    return (1 - images).where(images >= per_sample(1 - np.abs(strengths), images), images)


def _sharpness(images: Tensor, strengths: Strengths) -> Tensor:
    """Multiply the distance to a smoothed image (3 x 3, centre 5 of 13) by a factor; the outermost pixels stay."""
    height, width = images.shape[2:]
    if min(height, width) < 3:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    smooth = middle * 4
    for row in range(3):
        for column in range(3):
            smooth = smooth + images[:, :, row : height - 2 + row, column : width - 2 + column]
    smooth = smooth / 13
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] = (smooth + (middle - smooth) * per_sample(1 + 0.9 * strengths, images)).clamp(0, 1)
    return changed


def _levels(images: Tensor) -> Tensor:
    """Return levels 0 to 255, int64."""
    return (images.clamp(0, 1) * 255).round().long()


OPERATIONS: Mapping[str, Callable[[Tensor, Strengths], Tensor]] = {
    "identity": _as_it_is,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "colour": lambda images, strengths: saturated(images, 1 + 0.9 * strengths),
    "contrast": lambda images, strengths: contrasted(images, 1 + 0.9 * strengths),
    "brightness": lambda images, strengths: brightened(images, 1 + 0.9 * strengths),
    "sharpness": _sharpness,
    "rotate": _as_it_is,
    "shear-x": _as_it_is,
    "shear-y": _as_it_is,
    "translate-x": _as_it_is,
    "translate-y": _as_it_is,
}
"""Operations by name, on values 0..1 (N, C, H, W). Those that move pixels are affine matrices instead, listed last."""
_MOVING = np.arange(9, 14)
