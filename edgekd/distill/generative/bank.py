"""Bank of the last generated images, one byte a value, so that the student does not forget earlier ones.

A generator that keeps training moves away from what it drew before, and a student taught by its newest images alone
follows it (CMI, Fang et al. 2021, arXiv 2105.08584, and arXiv 2112.06253 keep such a bank).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgekd.tasks._protocol import InputSpec

__all__ = ["Bank", "to_bytes", "to_raw"]


class Bank:
    """At most ``limit`` images as codes 0..255 over the raw range; a new image replaces the oldest."""

    def __init__(self, spec: InputSpec, limit: int) -> None:
        self.codes = torch.zeros((limit, *spec.shape), dtype=torch.uint8)
        self.added = 0  # images ever added
        self._spec = spec

    def __len__(self) -> int:
        return min(self.added, len(self.codes))

    def add(self, raw: Tensor) -> None:
        """Add images (N, C, H, W) in raw units, on any device."""
        codes = to_bytes(raw[-len(self.codes) :], self._spec).cpu()
        places = (self.added + torch.arange(len(codes))) % len(self.codes)
        self.codes.index_copy_(0, places, codes)
        self.added += len(codes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint."""
        return {"codes": self.codes[: len(self)], "added": torch.tensor(self.added)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from a checkpoint's tensors."""
        self.codes[: len(tensors["codes"])] = tensors["codes"]
        self.added = int(tensors["added"])

    def draw(self, count: int) -> Tensor:
        """Return places (count,) int64 of different images, from torch's global generator; fewer if there are fewer."""
        return torch.randperm(len(self))[:count]


def to_bytes(raw: Tensor, spec: InputSpec) -> Tensor:
    """Quantize raw units to uint8, nearest value; 0 and 255 are the ends of the raw range."""
    low, high = spec.raw_range
    return ((raw.detach() - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def to_raw(codes: Tensor, spec: InputSpec) -> Tensor:
    """Convert uint8 codes to raw units, float32."""
    low, high = spec.raw_range
    return codes.float() * ((high - low) / 255.0) + low
