"""The sentinel: a fixed model timed with every batch, whose movement is the machine's and nobody else's.

``drift`` is the spread of its low quantile over the batch, which one disturbed process can set alone. What spoils a
batch is a shift of level, so that is asked for: the median of the later half against that of the earlier half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekd.devices._protocol import SentinelReading

__all__ = ["moved_by", "moved_too_far", "reading"]


def reading(low_us: Sequence[float]) -> SentinelReading:
    """A reading from low quantiles in order of time. Raises ValueError on none."""
    if not low_us:
        raise ValueError("a sentinel reading needs at least one low quantile")
    drift = (max(low_us) - min(low_us)) / float(np.median(low_us))
    return SentinelReading(low_us=tuple(low_us), drift=drift)


def moved_by(sentinel: SentinelReading) -> float:
    """Relative shift of the sentinel's level between the two halves of the batch; 0 with fewer than four readings."""
    lows = sentinel.low_us
    half = len(lows) // 2
    if half < 2:
        return 0.0
    return math.expm1(abs(math.log(float(np.median(lows[-half:])) / float(np.median(lows[:half])))))


def moved_too_far(sentinel: SentinelReading | None, noise: float) -> bool:
    """Whether the machine shifted by more than identical artefacts differ (``noise``, relative).

    Halves hold fewer readings than the batches the noise is known for, so their medians scatter more: twice the noise
    is allowed, and never less than 1 %.
    """
    return sentinel is not None and moved_by(sentinel) > max(2.0 * noise, 0.01)
