"""The last images that a generator drew, a byte a value: what the student has seen it must not forget.

A generator that is pushed on moves away from what it drew before, and a student taught by its newest images alone
follows it (CMI, Fang et al. 2021, arXiv 2105.08584, and arXiv 2112.06253 keep such a bank).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgekd.tasks._protocol import InputSpec

__all__ = ["Bank", "to_bytes", "to_raw"]


class Bank:
    """At most ``limit`` images as codes 0..255 over the raw range; a new one takes the place of the oldest."""

    def __init__(self, spec: InputSpec, limit: int) -> None:
        self.codes = torch.zeros((limit, *spec.shape), dtype=torch.uint8)
        self.added = 0  # images ever added
        self._spec = spec

    def __len__(self) -> int:
        return min(self.added, len(self.codes))

    def add(self, raw: Tensor) -> None:
        """Raw-unit images (N, C, H, W), on any device."""
        codes = to_bytes(raw[-len(self.codes) :], self._spec).cpu()
        places = (self.added + torch.arange(len(codes))) % len(self.codes)
        self.codes.index_copy_(0, places, codes)
        self.added += len(codes)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"codes": self.codes[: len(self)], "added": torch.tensor(self.added)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from such tensors."""
        self.codes[: len(tensors["codes"])] = tensors["codes"]
        self.added = int(tensors["added"])

    def draw(self, count: int) -> Tensor:
        """Places (count,) int64 of different images, from torch's global generator; fewer where there are fewer."""
        return torch.randperm(len(self))[:count]


def to_bytes(raw: Tensor, spec: InputSpec) -> Tensor:
    """Raw units to uint8, the range's ends at 0 and 255. Nearest value."""
    low, high = spec.raw_range
    return ((raw.detach() - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def to_raw(codes: Tensor, spec: InputSpec) -> Tensor:
    """uint8 to raw units, float32."""
    low, high = spec.raw_range
    return codes.float() * ((high - low) / 255.0) + low
