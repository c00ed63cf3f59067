"""Quality of a batch: noise mark, tail, drift, throttling, other load, and whether it is unstable.

The noise mark is p50 / p5. A median well above the 5th percentile means that other work took time; a mean far above the
median means quotas or throttling, which the 5th percentile and the median both hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from edgekd.devices._protocol import Measurement
from edgekd.measure import warnings
from edgekd.measure.compare import aa_noise, same_job
from edgekd.measure.conditions import cautions_of_device
from edgekd.measure.sentinel import moved_by, moved_too_far
from edgekd.measure.warnings import Caution
from edgekd.records import Record

__all__ = ["Quality", "assess"]

_NOISY = 1.10
_HELD_UP = 1.5  # mean over p50, above which calls are being held up
_HEATING = 0.05
_SPREAD = 0.02
_UNSTABLE_NOISE = 0.10
_DISTURBED = 0.10  # far beyond differences of identical processes, even on a shared machine
_FEW = 5


class Quality(Record):
    """Quality of a batch. Ratios are medians over processes, the worst of the batch."""

    noise: float  # A/A, relative; without a pair, estimated from the processes of one job
    noise_mark: float  # p50 / p5
    tail: float  # p99 / p5
    mean: float  # mean / p5
    moved: float  # the sentinel's shift, relative
    unstable: bool
    cautions: tuple[Caution, ...]
    drift: float = 0.0  # the spread of the sentinel's processes, relative
    pair: bool = True  # whether a job was timed twice, to measure the noise

    @property
    def noisy(self) -> bool:
        """True if the machine counts as noisy."""
        return self.noise_mark > _NOISY


def assess(measurements: Sequence[Measurement], cores: int | None = None) -> Quality:
    """Judge a batch; ``cores`` are the whole machine's, to compare its load average with.

    A batch is unstable when its sentinel shifted by more than its own noise, or when the A/A noise exceeds 10 %.
    """
    timed = [m for m in measurements if m.is_timed]
    noise = aa_noise(timed)
    mark = _worst(timed, "p50_us", "p5_us")
    tail, mean = _worst(timed, "p99_us", "p5_us"), _worst(timed, "mean_us", "p5_us")
    moved = max((moved_by(m.sentinel, m.plan.rounds) for m in timed if m.sentinel is not None), default=0.0)
    shifted = any(moved_too_far(m.sentinel, m.plan.rounds) for m in timed)
    drift = max((m.sentinel.drift for m in timed if m.sentinel is not None), default=0.0)
    heating = max((_heating(m) for m in timed), default=0.0)
    fewest = min((len(m.processes) for m in timed if m.processes), default=_FEW)
    cautions = [
        *([warnings.moved(moved)] if shifted else [warnings.disturbed(drift)] if drift > _DISTURBED else []),
        *([warnings.spread(noise)] if noise > _SPREAD else []),
        *([warnings.noisy(mark)] if mark > _NOISY else []),
        *([warnings.throttled(mean, tail)] if _worst(timed, "mean_us", "p50_us") > _HELD_UP else []),
        *([warnings.heating(heating)] if heating > _HEATING else []),
        *cautions_of_device(timed, cores),
        *([warnings.too_few(fewest)] if fewest < _FEW else []),
    ]
    return Quality(
        noise=noise,
        noise_mark=mark,
        tail=tail,
        mean=mean,
        moved=moved,
        unstable=shifted or noise > _UNSTABLE_NOISE,
        cautions=tuple(cautions),
        drift=drift,
        pair=any(same_job(a, b) for a, b in combinations(timed, 2)),
    )


def _worst(timed: Sequence[Measurement], over: str, under: str) -> float:
    reported = [[p for p in m.processes if getattr(p, over) is not None] for m in timed]
    ratios = [float(np.median([getattr(p, over) / getattr(p, under) for p in each])) for each in reported if each]
    return max(ratios, default=1.0)


def _heating(measurement: Measurement) -> float:
    """Slowdown from the first to the last third of a process's rounds: the smallest over processes."""
    rises = []
    for process in measurement.processes:
        rounds = process.round_p5_us
        third = len(rounds) // 3
        if third:
            rises.append(float(np.median(rounds[-third:])) / float(np.median(rounds[:third])) - 1.0)
    return min(rises, default=0.0)
