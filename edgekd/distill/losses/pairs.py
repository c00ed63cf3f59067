"""Binary labels as two-class logits, for losses that are written for classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pairs"]


def pairs(logits: Tensor) -> Tensor:
    """Convert logits (...) to pairs (M, 2) of a logit and 0: their softmax is the logistic function of the logit."""
    import torch

    flat = logits.reshape(-1)
    return torch.stack([flat, torch.zeros_like(flat)], 1)
