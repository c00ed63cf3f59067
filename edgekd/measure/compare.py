"""Comparison of two measured artefacts: the faster one, or that they can't be told apart.

The figure compared is the 5th percentile: per process the 5th percentile of its calls, then the median over processes
(on a shared machine the median call of a process moves by 12-23 % between identical runs, its 5th percentile by 0.5 %).
The interval on the ratio is Hodges and Lehmann's (1963): all ratios of one process of either side, cut where the exact
rank test of Mann and Whitney (1947) over *processes* would no longer reject. It assumes no shape of the noise, so that
two identical artefacts are told apart in at most 5 of 100 cases. With so few processes that this test can't reject at
all (fewer than four on a side at 95 %), Welch's t interval on logarithms is used. Where the sentinel shows that the
machine as a whole moved during the batch, neighbours in time are paired and a paired t interval is used.

Two artefacts are distinguishable when that interval excludes 1 *and* the ratio exceeds the A/A noise. Among k artefacts
there are k(k - 1)/2 pairs, and the fastest is the luckiest of them: each is then compared at 5 % over that number
(Bonferroni), so that it is one of all tables of identical artefacts, not of all pairs, that may be wrong in 5 of 100
cases. A bench that noise decides looks again after more processes; the error this adds is covered by the A/A noise.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from edgekd.devices._protocol import Measurement
from edgekd.errors import Unstable
from edgekd.measure.interval import resampled_medians
from edgekd.measure.sentinel import moved_too_far
from edgekd.records import Record

__all__ = ["ALPHA", "Comparison", "aa_noise", "alpha_among", "compare", "order", "p5_us", "times"]

ALPHA = 0.05
"""Error rate: share of cases in which two identical artefacts may be told apart."""
_RESAMPLES = 2000
_SMALLEST_NOISE = 0.001  # a clock tick of the fastest models; nothing is claimed below it


class Comparison(Record):
    """Ratio of the latency of ``a`` to that of ``b``, with its interval: of 95 %, or more where many are compared."""

    ratio: float
    low: float
    high: float
    distinguishable: bool

    @property
    def words(self) -> str:
        """Text of the ratio: ``1.40x slower``, ``1.25x faster``, or that they can't be told apart."""
        if not self.distinguishable:
            return "can't be told apart"
        return f"{times(self.ratio)} slower" if self.ratio > 1 else f"{times(1 / self.ratio)} faster"


def times(ratio: float) -> str:
    """Format a ratio: ``1.40x``; with a third digit where it would read ``1.00x``, which is no difference."""
    text = f"{ratio:.2f}x"
    return f"{ratio:.3f}x" if text == "1.00x" else text


def p5_us(measurement: Measurement) -> float:
    """Ranking figure in microseconds. Raises Unstable where there is none.

    The median over processes of the per-process 5th percentile, or a simulated estimate.
    """
    if not measurement.is_timed:
        raise Unstable(
            f"{measurement.backend} has no timings: {measurement.outcome.value} {measurement.detail}".rstrip(),
            "compare only measurements whose outcome is ok",
        )
    if measurement.simulated is not None:
        return measurement.simulated.latency_us
    return float(np.median([process.p5_us for process in measurement.processes]))


def compare(a: Measurement, b: Measurement, noise: float | None = None, alpha: float = ALPHA) -> Comparison:
    """Compare by the 5th percentile. ``noise`` is the batch's A/A noise (relative); by default that of these two.

    ``alpha`` is the rate at which identical artefacts may be told apart. Raises Unstable where either has no timings.
    """
    ratio = p5_us(a) / p5_us(b)
    if a.simulated is not None or b.simulated is not None:
        return _of_estimates(a, b, ratio)
    x, y = _log_lows(a), _log_lows(b)
    if len(x) == len(y) >= 3 and (_moved(a) or _moved(b)) and _interleaved(a, b):
        low, high = _paired(a, b, alpha)
    elif (cut := critical_u(len(x), len(y), alpha)) >= 0:
        low, high = _rank_interval(x, y, cut)
    else:
        low, high = _welch(x, y, alpha)
    low, high = min(math.exp(low), ratio), max(_exp(high), ratio)
    floor = aa_noise([a, b]) if noise is None else noise
    apart = not low <= 1.0 <= high and abs(math.log(ratio)) > math.log1p(floor)
    return Comparison(ratio=ratio, low=low, high=high, distinguishable=apart)


def _of_estimates(a: Measurement, b: Measurement, ratio: float) -> Comparison:
    """Comparison with estimates: exact between two of one simulator; undecided for any other pair with an estimate."""
    if a.simulated is not None and b.simulated is not None and a.fingerprint == b.fingerprint:
        apart = abs(math.log(ratio)) > math.log1p(_SMALLEST_NOISE)
        return Comparison(ratio=ratio, low=ratio, high=ratio, distinguishable=apart)
    return Comparison(ratio=ratio, low=0.0, high=sys.float_info.max, distinguishable=False)


def alpha_among(count: int) -> float:
    """Error rate for each pair among ``count`` artefacts (Bonferroni)."""
    return ALPHA / max(1, count * (count - 1) // 2)


def order(measurements: Sequence[Measurement], noise: float) -> tuple[int, ...]:
    """Rank of each measurement, fastest first; those that can't be told from the first of their rank share it.

    After a rank shared by k the next one is k further on (1, 1, 3). A measurement without timings has rank 0.
    """
    timed = sorted(
        (i for i, m in enumerate(measurements) if m.is_timed),
        key=lambda i: p5_us(measurements[i]),
    )
    places, leader, place = [0] * len(measurements), -1, 0
    alpha = alpha_among(len(timed))
    for position, index in enumerate(timed, start=1):
        if leader < 0 or compare(measurements[index], measurements[leader], noise, alpha).distinguishable:
            leader, place = index, position
        places[index] = place
    return tuple(places)


def aa_noise(measurements: Sequence[Measurement]) -> float:
    """A/A noise: relative difference between two measurements of the *same* artefact on this machine, 95th percentile.

    Each measurement's processes are centred on their own median and pooled; two groups as large as the measurements are
    drawn from the pool again and again, and their medians compared. Where the batch holds A/A pairs (the same artefact
    twice on one backend), their observed difference counts too, and the larger one is taken.
    """
    timed = [m for m in measurements if m.is_timed]
    residuals = [value for m in timed if len(m.processes) > 1 for value in _residuals(m)]
    expected = 0.0
    if residuals:
        size = min(len(m.processes) for m in timed if len(m.processes) > 1)
        generator = np.random.default_rng(0)
        # residuals around a median of n are too small by about sqrt(1 - 1/n)
        wider = math.sqrt(size / (size - 1))
        first = resampled_medians(residuals, size, _RESAMPLES, generator)
        second = resampled_medians(residuals, size, _RESAMPLES, generator)
        expected = math.expm1(wider * float(np.quantile(np.abs(first - second), 0.95)))
    pairs = [abs(math.log(p5_us(a) / p5_us(b))) for a, b in combinations(timed, 2) if same_job(a, b)]
    coarsest = max((m.resolution_us / p5_us(m) for m in timed), default=0.0)
    return max(expected, math.expm1(max(pairs, default=0.0)), coarsest, _SMALLEST_NOISE)


def same_job(a: Measurement, b: Measurement) -> bool:
    """Tell whether two measurements are of the same artefact, backend, shapes, threads and load on the same device."""
    first, second = ((m.sha256, m.backend, m.shapes, m.fingerprint, m.plan.threads, m.plan.load) for m in (a, b))
    return first == second


def _log_lows(measurement: Measurement) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log([process.p5_us for process in measurement.processes])
    return logs


def _moved(measurement: Measurement) -> bool:
    """Tell whether the machine is known to have moved during a measurement.

    In fewer than four observations of the sentinel a shift and one disturbed process look alike: a reason to measure
    again, but no test is chosen by it.
    """
    observation, rounds = measurement.sentinel, measurement.plan.rounds
    return observation is not None and len(observation.p5_us) >= 4 * rounds and moved_too_far(observation, rounds)


def _residuals(measurement: Measurement) -> NDArray[np.float64]:
    """Deviation of each process from its measurement's median; from its own half's where the machine changed meanwhile.

    That change is shared by all jobs that are measured side by side.
    """
    logs = _log_lows(measurement)
    parts = np.array_split(logs, 2) if _moved(measurement) and len(logs) >= 4 else [logs]
    return np.concatenate([part - np.median(part) for part in parts])


def _interleaved(a: Measurement, b: Measurement) -> bool:
    """Tell whether the processes of both alternate in time, generation by generation."""
    starts = [sorted(p.started_at_s for p in m.processes) for m in (a, b)]
    generations = zip(*starts, strict=True)
    ends = [(min(pair), max(pair)) for pair in generations]
    return all(before[1] < after[0] for before, after in pairwise(ends))


def _paired(a: Measurement, b: Measurement, alpha: float) -> tuple[float, float]:
    first, second = (sorted(m.processes, key=lambda p: p.started_at_s) for m in (a, b))
    d = np.log([p.p5_us / q.p5_us for p, q in zip(first, second, strict=True)])
    reach = float(stdtrit(len(d) - 1, 1 - alpha / 2) * d.std(ddof=1) / math.sqrt(len(d)))
    return float(d.mean()) - reach, float(d.mean()) + reach


def _rank_interval(x: NDArray[np.float64], y: NDArray[np.float64], cut: int) -> tuple[float, float]:
    differences = np.sort(np.subtract.outer(x, y).ravel())
    return float(differences[cut]), float(differences[len(differences) - 1 - cut])


def critical_u(n: int, m: int, alpha: float = ALPHA) -> int:
    """Largest U at which the two-sided exact rank test rejects; -1 where it never does (at 5 %: fewer than 4 each)."""
    counts = np.zeros(n * m + 1)
    counts[0] = 1.0
    # Gaussian binomial coefficient: the number of arrangements with each value of U
    for i in range(1, n + 1):
        counts = _times_quotient(counts, m + i, i)
    cumulative = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(cumulative, alpha / 2, side="right")) - 1


def _times_quotient(counts: NDArray[np.float64], up: int, down: int) -> NDArray[np.float64]:
    """Multiply a polynomial by (1 - q**up) / (1 - q**down), kept to its length."""
    out = counts.copy()
    if up < len(counts):
        out[up:] -= counts[:-up]
    for k in range(down, len(out)):
        out[k] += out[k - down]
    return out


def _welch(x: NDArray[np.float64], y: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    if min(len(x), len(y)) < 2:
        return -math.inf, math.inf
    parts = [float(values.var(ddof=1)) / len(values) for values in (x, y)]
    total, difference = sum(parts), float(x.mean() - y.mean())
    if total == 0.0:
        return difference, difference
    freedom = total**2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (x, y), strict=True))
    reach = float(stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(total)
    return difference - reach, difference + reach


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else sys.float_info.max
