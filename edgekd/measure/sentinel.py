"""Sentinel: a fixed model timed with every batch, whose movement is the machine's alone.

A batch is spoilt by a change of level, so that is tested: the later half of the sentinel's processes against the
earlier half; the middle one belongs to neither.

- From four processes on, by more than identical processes differ among themselves (Welch's t at 90 %), and never less
  than 1 %.
- Two or three processes can't show how far identical processes differ. The last is compared with the first: by more
  than 3 %, and by more than their own rounds differ (Welch's t at 90 % over rounds). A last process that was disturbed
  alone looks the same; measuring again is then cheap, and right in either case.

The spread over all processes, which one disturbed process can set alone, is the sentinel's ``drift``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from edgekd.devices._protocol import Measurement, SentinelReading
from edgekd.evidence import Figure
from edgekd.targets.target import Target
from edgekd.targets.verdict import Verdict, judge

__all__ = ["is_unstable", "judge_measured", "moved_by", "moved_too_far"]

_SMALLEST = 0.01
# Between identical processes of a shared machine the sentinel's level varies by about 0.7 % (one standard deviation),
# so that two of them differ by about 1 %: three times that is reached by a few batches in a thousand.
_SMALLEST_OF_TWO = 0.03
_CONFIDENCE = 0.90


def moved_by(sentinel: SentinelReading, rounds: int) -> float:
    """Relative shift of the level between the two halves of the batch; 0 with a single process.

    ``rounds`` is the plan's: the sentinel holds one 5th percentile a round, process after process.
    """
    early, late = _halves(sentinel, rounds)
    if not len(early):
        return 0.0
    return math.expm1(abs(float(np.median(np.median(late, axis=1))) - float(np.median(np.median(early, axis=1)))))


def moved_too_far(sentinel: SentinelReading | None, rounds: int) -> bool:
    """Tell whether the machine changed by more than its own noise during the batch."""
    if sentinel is None:
        return False
    early, late = _halves(sentinel, rounds)
    few = len(early) < 2
    if moved_by(sentinel, rounds) <= (_SMALLEST_OF_TWO if few else _SMALLEST):
        return False
    # one process a half: only its rounds show how certain its level is
    return _differ(early[0], late[0]) if few else _differ(np.median(early, axis=1), np.median(late, axis=1))


def is_unstable(measurement: Measurement) -> bool:
    """Tell whether the machine changed under this measurement, so that a verdict on it is `unstable`.

    For a result of `edgekd.measure.sequential` this is True only where every repetition was disturbed too.
    """
    return moved_too_far(measurement.sentinel, measurement.plan.rounds)


def judge_measured(target: Target, figures: Sequence[Figure], measurement: Measurement | None) -> Verdict:
    """Verdict on a measurement, less certain where the machine changed under it: by as much as the sentinel moved."""
    verdict = judge(target, figures)
    if measurement is None or measurement.sentinel is None or not is_unstable(measurement):
        return verdict
    return verdict.unsure(moved_by(measurement.sentinel, measurement.plan.rounds))


def _differ(early: NDArray[np.float64], late: NDArray[np.float64]) -> bool:
    """Welch's t test on two equal groups. A group of one has no spread to compare the difference with."""
    if len(early) < 2:
        return True
    error = math.sqrt((float(early.var(ddof=1)) + float(late.var(ddof=1))) / len(early))
    reach = float(stdtrit(2 * len(early) - 2, (1.0 + _CONFIDENCE) / 2.0))
    return abs(float(late.mean()) - float(early.mean())) > reach * error


def _halves(sentinel: SentinelReading, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the rounds, a row a process, of the first and of the last half of the processes."""
    lows = np.log(np.asarray(sentinel.p5_us, dtype=np.float64))
    whole = len(lows) % rounds == 0
    processes: NDArray[np.float64] = lows.reshape(-1, rounds if whole else 1)
    half = len(processes) // 2
    return processes[:half], processes[len(processes) - half :]
