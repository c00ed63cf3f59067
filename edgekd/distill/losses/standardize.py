"""Logit standardization (Sun et al. 2024, "Logit Standardization in Knowledge Distillation", CVPR, arXiv 2403.01993).

The student need not reproduce the size of the teacher's logits, only their pattern: each sample's logits become their
Z-score before any temperature, in student and teacher alike (their equations 13 and 14, without tau):

    (z - mean_c z) / (std_c z + e),   std over the classes, divided by their number

``standardize: true`` does this for any loss that uses the teacher. The authors use it with temperature 2 and nine times
the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["standardized"]

_TINY = 1e-7


def standardized(logits: Tensor) -> Tensor:
    """Return logits (N, C) with mean 0 and deviation 1 in each row."""
    centred = logits - logits.mean(1, keepdim=True)
    # a norm has a gradient at 0, and the square root of a mean has none
    deviation: Tensor = centred.norm(dim=1, keepdim=True) / logits.shape[1] ** 0.5
    return centred / (deviation + _TINY)
