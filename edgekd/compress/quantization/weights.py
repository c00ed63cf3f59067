"""Weight encodings: symmetric, one scale for each output channel (Jacob et al. 2018; Krishnamoorthi 2018, section 3.1).

Biases have no own encoding: they are int32 with ``scale(input) * scale(weight)``; `floors` keeps them in range.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekd.ir.encoding import Encoding

__all__ = ["floors", "weight_encoding", "weight_integers", "weight_scales"]

_FEW = 15  # integers on each side: with more, clipping lessens the error by next to nothing
_LARGEST_BIAS = 2.0**30  # in int32 units, half of the range
_SMALLEST = 2.0**-100  # far from subnormal numbers, which kernels refuse or round to zero
_SMALLEST_RATIO = 2.0**-31  # of scale(input) * scale(weight) to scale(output): kernels' multipliers end at 2**-32


def weight_encoding(weight: Tensor, limit: int, floor: Tensor | None = None, axis: int = 0, bits: int = 8) -> Encoding:
    """Return the encoding of a weight whose largest magnitude in each output channel becomes ``limit``.

    With few integers the largest weights are clipped if that reduces the squared error. ``axis`` is that of the output
    channels; ``floor`` (out,) is the least scale of each.
    """
    values = weight.detach().double().movedim(axis, 0).flatten(1)
    largest = values.abs().amax(1)
    scale = torch.where(largest > 0, (largest / limit).clamp_min(_SMALLEST), 1.0 / limit)
    if limit <= _FEW:
        scale = _least_error(values, scale, limit)
    if floor is not None:
        scale = torch.maximum(scale, floor)
    return Encoding(
        bits=bits,
        scale=tuple(map(float, scale.numpy().astype(np.float32))),
        zero_point=(0,) * len(scale),
        axis=axis,
        limit=limit,
    )


def _least_error(values: Tensor, widest: Tensor, limit: int) -> Tensor:
    """Return each channel's scale (out,) with the least squared error, from ``widest`` down to 0.4 of it."""
    best, least = widest, torch.full_like(widest, torch.inf)
    for share in np.linspace(1.0, 0.4, 61):
        scale = (widest * share)[:, None]
        error = ((values / scale).round().clamp(-limit, limit) * scale - values).square().sum(1)
        best, least = torch.where(error < least, scale[:, 0], best), torch.minimum(error, least)
    return best


def floors(bias: Tensor | None, channels: int, input_scale: float, output_scale: float) -> Tensor:
    """Return the least scale of each channel (out,) for its bias to fit int32 and its products to be rescalable.

    It matters for channels that training or pruning left almost empty.
    """
    least = torch.full((channels,), _SMALLEST_RATIO * output_scale / input_scale, dtype=torch.float64)
    if bias is not None:
        least = torch.maximum(least, bias.detach().double().abs() / (_LARGEST_BIAS * input_scale))
    return least


def weight_integers(weight: Tensor, encoding: Encoding) -> Tensor:
    """Return a weight's integers as float32, rounded half to even and clamped."""
    steps = weight.detach().float() / weight_scales(weight, encoding)
    return torch.round(steps).clamp(encoding.lowest, encoding.highest)


def weight_scales(weight: Tensor, encoding: Encoding) -> Tensor:
    """Return the scales of a weight's encoding, float32, broadcastable to the weight."""
    along = [1] * weight.dim()
    along[encoding.axis or 0] = -1
    return torch.tensor(encoding.scale, dtype=torch.float32).view(along)
