"""Matching of tensors by value in a converted graph: converters drop, merge and rename nodes of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.students.graph import Traced, execute

__all__ = ["node_values", "same_tensor"]

_TOLERANCE = 1e-4  # of the tensor's largest magnitude: float32 sums in another order


def node_values(traced: Traced, sample: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    """Value of each keyed node of a program for normalised samples, by the node's name."""
    values: dict[str, NDArray[np.float32]] = {}
    nodes = traced.nodes

    def record(key: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            values[nodes[key]] = value.detach().float().numpy().copy()
        return value

    with torch.no_grad():
        execute(traced, sample, record)
    return values


def same_tensor(ours: NDArray[np.float32], theirs: NDArray[np.float32], *, moved: bool = False) -> bool:
    """Tell whether two values are one tensor, the second maybe channel-first. Converters leave out axes of length 1.

    ``moved``: in any order of the numbers.
    """
    if ours.size != theirs.size:
        return False
    options = [theirs]
    if theirs.ndim in (3, 4):
        options.insert(0, np.moveaxis(theirs, 1, -1))
    limit = _TOLERANCE * float(np.abs(theirs).max(initial=1e-6))
    lean = ours.squeeze()
    if any(
        lean.shape == t.shape and float(np.abs(lean - t).max(initial=0.0)) <= limit
        for t in (option.squeeze() for option in options)
    ):
        return True
    if not moved or not ours.size or max(abs(ours.min() - theirs.min()), abs(ours.max() - theirs.max())) > limit:
        return False
    return float(np.abs(np.sort(ours, axis=None) - np.sort(theirs, axis=None)).max()) <= limit
