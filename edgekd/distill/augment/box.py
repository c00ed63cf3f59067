"""Random rectangles of a given range of area and aspect ratio that fit into an image."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from edgekd.distill.augment.random import uniform

__all__ = ["Areas", "Aspects", "ascending", "inside", "sides"]


def ascending(value: tuple[float, float]) -> tuple[float, float]:
    """Validate a range. Raises PydanticCustomError where its ends are exchanged."""
    if value[0] > value[1]:
        raise PydanticCustomError("range", "should be [lowest, highest]")
    return value


_Share = Annotated[float, Field(gt=0, le=1)]
_Ratio = Annotated[float, Field(gt=0)]
Areas = Annotated[tuple[_Share, _Share], AfterValidator(ascending)]
"""Lowest and highest share of the image's area."""
Aspects = Annotated[tuple[_Ratio, _Ratio], AfterValidator(ascending)]
"""Lowest and highest width over height."""


def sides(
    seed: int,
    stream: str,
    indices: NDArray[np.int64],
    size: tuple[int, int],
    areas: tuple[float, float],
    aspects: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return height and width in pixels for each sample, each (N,), not rounded. ``size`` is the image's (H, W).

    The area is uniform; then the ratio width / height is log-uniform among the ratios with which the area fits.
    Published code draws both and redraws if they don't fit, which makes large areas rarer than configured.
    """
    height, width = size
    area = uniform(seed, f"{stream}.area", indices, *areas)
    fits = area * width / height, width / (height * area)
    low, high = (np.log(np.clip(aspect, *fits)) for aspect in aspects)
    aspect = np.exp(uniform(seed, f"{stream}.aspect", indices, low, high))
    return np.sqrt(area * height * width / aspect), np.sqrt(area * height * width * aspect)


def inside(
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    bottom: NDArray[np.int64],
    right: NDArray[np.int64],
    size: tuple[int, int],
) -> NDArray[np.bool_]:
    """Return the mask (N, 1, H, W) of the pixels in each sample's box. ``bottom`` and ``right`` are exclusive."""
    rows, columns = np.arange(size[0]), np.arange(size[1])
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]
