"""Intervals for what a *fresh* process will see, from the few processes that were measured.

The unit of replication is the process: its calls are not independent of one another. A verdict binds processes that
do not exist yet, so these are prediction intervals for one more process, not intervals for the median.

Estimator, chosen by simulation (``tests/measure/test_interval.py`` repeats it). With n = 5 the range of the processes
covers a sixth one in 4 of 6 cases, and a percentile bootstrap never leaves that range: both are far from 95 %.
So, on the logarithmic scale,

- the upper end is Student's t prediction bound, mean + t s sqrt(1 + 1/n). One degree of freedom is given away (n - 2),
  because what disturbs a process makes heavier tails than the normal's;
- the lower end is that bound too, or the one from the half sample below the median (at half the tail, since the nearer
  of two is taken) where that is nearer: disturbances only ever add time, and one slow process must not make speeds
  plausible that nobody saw;
- neither end ever lies inside the observed range. From n = 2 / (1 - confidence) - 1 on (39 at 95 %) order statistics
  alone give the confidence without any assumption, and are used.

One process gives no spread at all; a between-process spread of 20 % (the largest seen on a shared machine) is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["Interval", "fresh_process_interval", "resampled_medians"]

Interval = tuple[float, float]
"""Lower and upper end, in the values' own unit."""

_SPREAD_OF_ONE = 0.20


def fresh_process_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Prediction interval for the same figure of one more process, at about this confidence.

    ``values`` has one figure a process, all >= 0. Values that include 0 are treated on the linear scale and the lower
    end is cut at 0. Raises ValueError on no values or a confidence outside (0.5, 1).
    """
    if not values:
        raise ValueError("an interval needs at least one process")
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0.5 and 1")
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x[0] < 0.0:
        raise ValueError(f"a figure of a process can't be negative: {x[0]}")
    if x[0] == x[-1] and len(x) > 1:
        return float(x[0]), float(x[-1])
    if x[0] == 0.0:
        low, high = _bounds(x, confidence, spread_of_one=0.0)
        return max(low, 0.0), high
    low, high = _bounds(np.log(x), confidence, spread_of_one=_SPREAD_OF_ONE)
    # exp(log(x)) may round to the inner side of an observed value
    return min(math.exp(low), float(np.median(x))), max(math.exp(high), float(np.median(x)))


def _bounds(x: NDArray[np.float64], confidence: float, spread_of_one: float) -> Interval:
    n = len(x)
    tail = (1.0 - confidence) / 2.0
    rank = math.floor(tail * (n + 1) + 1e-9)
    if rank >= 1:
        return float(x[rank - 1]), float(x[n - rank])
    freedom = max(n - 2, 2) if n > 2 else 1
    reach = float(stdtrit(freedom, 1.0 - tail)) * math.sqrt(1.0 + 1.0 / n)
    centre, spread = float(x.mean()), float(x.std(ddof=1)) if n > 1 else spread_of_one
    low, high = centre - reach * spread, centre + reach * spread
    if n >= 5:
        median, below = float(np.median(x)), (n - 1) // 2
        half = math.sqrt(float(np.square(np.minimum(x - median, 0.0)).sum()) / below)
        half_reach = float(stdtrit(below, 1.0 - tail / 2.0)) * math.sqrt(1.0 + 1.0 / n)
        low = max(low, median - half_reach * half)
    return min(low, float(x[0])), max(high, float(x[-1]))


def resampled_medians(
    values: Sequence[float], size: int, count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Medians (count,) of ``size`` processes drawn with replacement."""
    x = np.asarray(values, dtype=np.float64)
    medians: NDArray[np.float64] = np.median(x[generator.integers(0, len(x), (count, size))], axis=1)
    return medians
