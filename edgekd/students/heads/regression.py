"""Regression head: standardised outputs, converted to the label's own units in the graph.

Standardised numbers of different size can share one encoding when quantized; the conversion stays in float.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.tasks._protocol import HeadSpec

__all__ = ["RegressionDecoder", "standardised"]

_FAR = -1e6  # deviations


class RegressionDecoder(nn.Module):
    """Converts standardised numbers (N, C) to the label's own units (N, C): ``raw * std + mean``."""

    def __init__(self, head: HeadSpec) -> None:
        super().__init__()
        self.mean, self.std = head.mean, head.std

    def forward(self, raw: Tensor) -> tuple[Tensor]:
        """Return the output."""
        # a bound that no output reaches: else a converter would fold both factors into the layer before, whose encoding
        # in an integer file is of its unfolded output
        std, mean = (torch.tensor([values], device=raw.device) for values in (self.std, self.mean))
        return (raw.clamp_min(_FAR) * std + mean,)


def standardised(head: HeadSpec, numbers: Tensor) -> Tensor:
    """Standardise numbers (N, C) from the label's own units, as a student is trained on them. NaN stays NaN."""
    if not any(head.mean) and set(head.std) == {1.0}:
        return numbers
    return (numbers - numbers.new_tensor(head.mean)) / numbers.new_tensor(head.std)
