"""Conversion between raw values and shares of their range; statistics of a sample that don't depend on its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["as_raw", "as_shares", "per_sample", "rounded", "sample_means", "sample_variances"]


def as_shares(batch: Tensor, spec: InputSpec) -> Tensor:
    """Convert raw values to float32 shares: 0 at the low end of the raw range, 1 at the high end."""
    low, high = spec.raw_range
    return (batch.float() - low) / (high - low)


def as_raw(shares: Tensor, spec: InputSpec, dtype: torch.dtype) -> Tensor:
    """Convert shares, clipped to 0..1, to raw values of a dtype; rounded for integer types."""
    low, high = spec.raw_range
    return rounded(shares.clamp(0, 1) * (high - low) + low, dtype)


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast float32 values to a dtype that holds their range; rounded for integer types."""
    return values if dtype.is_floating_point else values.round().to(dtype)


def per_sample(numbers: NDArray[np.floating], like: Tensor) -> Tensor:
    """Return the numbers, one for each sample, as float32 (N, 1, 1, ...) to multiply with a batch."""
    import torch

    return torch.from_numpy(numbers.astype(np.float32)).reshape(-1, *[1] * (like.ndim - 1))


def sample_means(batch: Tensor) -> NDArray[np.float64]:
    """Return each sample's mean (N,). Summed row by row: torch splits a sum differently when the batch is small."""
    return np.asarray(_rows(batch).mean(axis=1), np.float64)


def sample_variances(batch: Tensor) -> NDArray[np.float64]:
    """Return each sample's variance about its mean (N,)."""
    return np.asarray(_rows(batch).var(axis=1), np.float64)


def _rows(batch: Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(batch.reshape(len(batch), -1).numpy(), np.float64)
