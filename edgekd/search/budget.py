"""Wall-clock time of a run: what is spent, what is left, and what the finalists will take.

Time spent is counted on the run's own clock, which stands still while the run is interrupted. Decisions that depend
on it are written down (proposals.json), for a replay has no clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from edgekd.devices._protocol import MeasurePlan
from edgekd.store.records import PlanRecord, TrialRecord

__all__ = ["Budget", "finalists_within", "measure_s", "reserve_s"]

_FINALISTS_SHARE = 0.6  # of the whole budget, at most: a search that only refines has not searched
_PER_FINALIST_S = 15.0  # conversion of the student and its float32 twin, parity, scoring
_PROCESS_S = 1.0  # start of a process, import of a runtime, load
_UNKNOWN_RATE = 500.0  # images a second, until a training was observed


class Budget:
    """How long this run has worked, over all its resumptions."""

    def __init__(self, total_s: float | None, now: Callable[[], float], spent_s: float = 0.0) -> None:
        self.total_s, self._now = total_s, now
        self._start = now() - spent_s

    def spent_s(self) -> float:
        """Seconds worked so far."""
        return self._now() - self._start

    def left_s(self) -> float:
        """Seconds left; infinite without a budget, negative when it is overrun."""
        return float("inf") if self.total_s is None else self.total_s - self.spent_s()


def measure_s(plan: MeasurePlan, jobs: int) -> float:
    """About how long a batch takes."""
    per_process = _PROCESS_S + (plan.warmup_ms + plan.rounds * plan.round_ms) / 1e3
    return (jobs + int(plan.sentinel)) * plan.processes * per_process


def reserve_s(plan: PlanRecord, trials: Sequence[TrialRecord], finalists: int) -> float:
    """What refining, measuring and certifying ``finalists`` will take, from the training speeds observed so far.

    The slower half of the observed speeds counts: finalists are the more accurate ones, hence the larger.
    """
    speeds = sorted(trial.images_per_s for trial in trials if trial.images_per_s)
    speed = statistics.median(speeds[: max(1, (len(speeds) + 1) // 2)]) if speeds else _UNKNOWN_RATE
    refine = finalists * (plan.refine_images / speed + _PER_FINALIST_S)
    return refine + measure_s(plan.certify, 2 * finalists) + measure_s(plan.certify, 1)


def finalists_within(plan: PlanRecord, trials: Sequence[TrialRecord], total_s: float | None) -> int:
    """How many finalists fit in their share of the budget: at least one, at most what was asked for."""
    for count in range(plan.finalists, 1, -1):
        if total_s is None or reserve_s(plan, trials, count) <= _FINALISTS_SHARE * total_s:
            return count
    return 1
