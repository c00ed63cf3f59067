"""Normalisation from raw units to a model's input: ``(raw - mean) / std``, one value or one for each channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError

__all__ = ["normalised"]


def normalised(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise a raw-unit batch to float32 (N, C, ...). Raises ConfigurationError if channels don't match."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, batch.shape[1]):
            raise ConfigurationError.one(
                f"`{name}` has {len(values)} values, and the input has {batch.shape[1]} channels",
                "give one value, or one a channel",
            )
    shape = (1, -1, *(1,) * (batch.dim() - 2))
    return (batch.float() - torch.tensor(mean, device=batch.device).reshape(shape)) / torch.tensor(
        std, device=batch.device
    ).reshape(shape)
