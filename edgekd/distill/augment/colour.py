"""`colour`: brightness, contrast, saturation and hue jittered, one after the other in this order.

Saturation and hue act about the grey axis: hue turns the two colour axes of YIQ (as TensorFlow's fused
adjust_hsv_in_yiq does), so that brightness stays as it is. Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, model_validator
from pydantic_core import PydanticCustomError

from edgekd.distill.augment._protocol import Bound, ImageAugmentation
from edgekd.distill.augment.random import uniform
from edgekd.distill.augment.raw import as_raw, as_shares, per_sample, sample_means
from edgekd.errors import Problem
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Colour", "brightened", "contrasted", "saturated"]

_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([_GREY, (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955)])


class Colour(ImageAugmentation, Bound):
    """Colour jitter. Each option is the largest distance of a factor from 1 (0.4: 0.6 to 1.4); ``hue`` is in turns.

    Values are clipped to the raw range after each step, and rounded at the end for integer types.
    """

    moves: ClassVar[bool] = False

    brightness: NonNegativeFloat = 0.0
    contrast: NonNegativeFloat = 0.0
    saturation: NonNegativeFloat = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise PydanticCustomError("colour", "give brightness, contrast, saturation or hue")
        return self

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return a problem if saturation or hue is asked of images that are not RGB."""
        problems = super().check(spec)
        channels = spec.input.shape[0]
        if (self.saturation or self.hue) and channels != 3 and not problems:
            message = f"saturation and hue need red, green and blue; task `{spec.name}` has {channels} channel(s)"
            problems.append(Problem(message, "use brightness and contrast alone"))
        return problems

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the batch (N, C, H, W) with separate factors for each sample."""
        images = as_shares(batch, self.input)
        if self.brightness:
            images = brightened(images, _factors(seed, "colour.brightness", indices, self.brightness))
        if self.contrast:
            images = contrasted(images, _factors(seed, "colour.contrast", indices, self.contrast))
        if self.saturation:
            images = saturated(images, _factors(seed, "colour.saturation", indices, self.saturation))
        if self.hue:
            images = _turned(images, uniform(seed, "colour.hue", indices, -self.hue, self.hue))
        return as_raw(images, self.input, batch.dtype)


def brightened(images: Tensor, factors: NDArray[np.float64]) -> Tensor:
    """Multiply values 0..1 by a factor for each sample, clipped to 0..1."""
    return (images * per_sample(factors, images)).clamp_(0, 1)


def contrasted(images: Tensor, factors: NDArray[np.float64]) -> Tensor:
    """Multiply the distance to the image's mean grey by a factor."""
    return _blended(images, per_sample(sample_means(_grey(images)), images), factors)


def saturated(images: Tensor, factors: NDArray[np.float64]) -> Tensor:
    """Multiply the distance to each pixel's grey by a factor."""
    return _blended(images, _grey(images), factors)


def _factors(seed: int, stream: str, indices: NDArray[np.int64], spread: float) -> NDArray[np.float64]:
    return uniform(seed, stream, indices, max(0.0, 1 - spread), 1 + spread)


def _blended(images: Tensor, anchor: Tensor, factors: NDArray[np.float64]) -> Tensor:
    return ((images - anchor) * per_sample(factors, images)).add_(anchor).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Return grey images (N, 1, H, W); the mean of the channels if they are not RGB."""
    channels = [images[:, at : at + 1] for at in range(images.shape[1])]
    weights = _GREY if len(channels) == 3 else [1 / len(channels)] * len(channels)
    grey = channels[0] * weights[0]
    for channel, weight in zip(channels[1:], weights[1:], strict=True):
        grey = grey + channel * weight  # one by one: a sum over the axis may round otherwise in another batch
    return grey


def _turned(images: Tensor, turns: NDArray[np.float64]) -> Tensor:
    import torch

    cosine, sine = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    turn = np.zeros((len(turns), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = cosine
    turn[:, 1, 2], turn[:, 2, 1] = -sine, sine
    matrices = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    # a matrix product in torch rounds otherwise in another batch
    rows = [
        red * per_sample(m[:, 0], red) + green * per_sample(m[:, 1], red) + blue * per_sample(m[:, 2], red)
        for m in (matrices[:, 0], matrices[:, 1], matrices[:, 2])
    ]
    return torch.cat(rows, dim=1).clamp_(0, 1)
