"""Running average of a module's weights (Polyak & Juditsky 1992): more accurate than the last step's.

BatchNorm's running statistics are averaged with the weights. The decay grows with the steps, so that the first steps
don't dominate a short training: ``min(decay, (1 + t) / (10 + t))``.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of a module. ``module`` is the averaged copy, in eval mode; it shares no tensors."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay
        live, kept = _tensors(module), _tensors(self.module)
        self._live = [live[name] for name in kept if kept[name].is_floating_point()]
        self._kept = [tensor for tensor in kept.values() if tensor.is_floating_point()]
        self._counters = [(tensor, live[name]) for name, tensor in kept.items() if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the module's weights after ``step``, counted from 0."""
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(self._kept, self._live, 1.0 - decay)

    @torch.no_grad()
    def settle(self) -> None:
        """Copy buffers that can't be averaged: counters such as ``num_batches_tracked``."""
        for kept, live in self._counters:
            kept.copy_(live)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
