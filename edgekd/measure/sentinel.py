"""The sentinel: a fixed model timed with every batch, whose movement is the machine's and nobody else's.

``drift`` is the spread of its low quantile over the batch, which one disturbed process can set alone. What spoils a
batch is a change of level, so that is asked for: the later half of the sentinel's processes against the earlier half,
by more than identical processes differ among themselves (Welch's t at 90 %, and never less than 1 %).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgekd.devices._protocol import SentinelReading

__all__ = ["moved_by", "moved_too_far"]

_SMALLEST = 0.01
_CONFIDENCE = 0.90


def moved_by(sentinel: SentinelReading, rounds: int) -> float:
    """Relative shift of the level between the two halves of the batch; 0 with fewer than four processes.

    ``rounds`` is the plan's: a reading holds one low quantile a round, process after process.
    """
    early, late = _halves(sentinel, rounds)
    if len(early) < 2:
        return 0.0
    return math.expm1(abs(float(np.median(late)) - float(np.median(early))))


def moved_too_far(sentinel: SentinelReading | None, rounds: int) -> bool:
    """Whether the machine changed by more than its own noise during the batch."""
    if sentinel is None or moved_by(sentinel, rounds) <= _SMALLEST:
        return False
    early, late = _halves(sentinel, rounds)
    error = math.sqrt((float(early.var(ddof=1)) + float(late.var(ddof=1))) / len(early))
    reach = float(stats.t.ppf((1.0 + _CONFIDENCE) / 2.0, 2 * len(early) - 2))
    return abs(float(late.mean()) - float(early.mean())) > reach * error


def _halves(sentinel: SentinelReading, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the processes' levels, the first and the last half of them; the middle one belongs to neither."""
    lows = np.log(np.asarray(sentinel.low_us, dtype=np.float64))
    whole = len(lows) % rounds == 0
    levels: NDArray[np.float64] = np.median(lows.reshape(-1, rounds), axis=1) if whole else lows
    half = len(levels) // 2
    return levels[:half], levels[len(levels) - half :]
