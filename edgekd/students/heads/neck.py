"""Neck: merges a trunk's stages into one map with the finest resolution.

Top-down with lateral 1 x 1 convolutions (FPN: Lin et al. 2017, "Feature pyramid networks", arXiv 1612.03144), one
level.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Neck"]


class Neck(nn.Module):
    """Maps features of stages, finest first, each half as large as the one before, to one map (N, width, h, w)."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1, bias=False) for before in widths)
        self.lateral_norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in widths)
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        for layer in (*self.lateral, self.conv):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Return the merged map."""
        merged: Tensor | None = None
        for lateral, norm, features in reversed(list(zip(self.lateral, self.lateral_norm, stages, strict=True))):
            here = norm(lateral(features))
            merged = here if merged is None else here + functional.interpolate(merged, scale_factor=2.0, mode="nearest")
        assert merged is not None
        return functional.relu(self.norm(self.conv(merged)))
