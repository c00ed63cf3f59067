"""Observed ranges of a student's tensors on calibration samples: extremes, and a histogram if a method needs one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.compress.quantization.rules import RoundingPoints
from edgekd.students.graph import Traced, execute

__all__ = ["ObservedRange", "observe"]

BINS = 2048
_BATCH = 64


@dataclass
class ObservedRange:
    """Range of a group of tensors that share an encoding. ``counts`` are over equal bins from ``low`` to ``high``."""

    low: float = 0.0  # zero is always inside: padding and ReLU produce it
    high: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))


def observe(traced: Traced, points: RoundingPoints, inputs: Tensor, *, histogram: bool) -> Mapping[str, ObservedRange]:
    """Return the observation of each group over normalised inputs (N, C, H, W). Two passes for a histogram.

    The program must have a dynamic batch, or N be 1. Raises ValueError for values that aren't finite.
    """
    seen: dict[str, ObservedRange] = {group: ObservedRange() for group in sorted(set(points.group.values()))}

    def extremes(key: str, value: Any) -> Any:
        if key in points.group:
            low, high = (float(bound) for bound in torch.aminmax(value))
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError(f"`{key}` has values that aren't finite")
            entry = seen[points.group[key]]
            entry.low, entry.high = min(entry.low, low), max(entry.high, high)
        return value

    def count(key: str, value: Any) -> Any:
        entry = seen[points.group[key]] if key in points.group else None
        if entry is not None and entry.high > entry.low:
            entry.counts += torch.histc(value.float(), BINS, entry.low, entry.high).numpy()
        return value

    most = min(_BATCH, traced.student.task.input.at_once())
    with torch.no_grad():
        for visit in (extremes, count) if histogram else (extremes,):
            for batch in torch.split(inputs, most):
                execute(traced, batch, visit)
    return seen
