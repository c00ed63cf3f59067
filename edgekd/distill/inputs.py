"""Input normalisation for training and scoring: ``(raw - mean) / std`` by channel, float32; token ids are unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.tasks._protocol import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Normalisation"]


class Normalisation:
    """Mean and standard deviation of one input, as tensors on a device."""

    def __init__(self, spec: InputSpec, device: torch.device | None = None) -> None:
        import torch

        self._ids = spec.text is not None
        shape = (1, -1, *(1,) * (len(spec.shape) - 1))
        self._mean = torch.tensor(spec.mean, device=device).reshape(shape)
        self._std = torch.tensor(spec.std, device=device).reshape(shape)

    def __call__(self, raw: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
        """Normalise raw inputs (N, C, H, W) of any dtype and device to float32 on the device. ``raw`` is not changed.

        Token ids are moved to the device unchanged.
        """
        import torch

        if self._ids:
            return raw.to(self._mean.device, non_blocking=True)
        keep = torch.preserve_format if memory_format is None else memory_format
        batch = raw.to(self._mean.device, torch.float32, non_blocking=True, copy=True, memory_format=keep)
        return batch.sub_(self._mean).div_(self._std)
