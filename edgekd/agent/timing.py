"""The measuring loop: warm up until the running median settles, then rounds of timed calls.

One clock, ``perf_counter_ns``, read just before and just after each call; everything else happens between calls.
"""

from __future__ import annotations

import time
from array import array
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

__all__ = ["Round", "quantile", "run_closed", "run_periodic", "warm_up"]

_SETTLED = 0.02  # two windows' medians this close
_MIN_WINDOW = 5  # calls


class Round(NamedTuple):
    """Times of a round's calls in ns, times by the runtime's own clock in us, and calls that began too late."""

    calls_ns: array[int]
    runtime_us: array[float]
    missed: int


def quantile(values: Sequence[float], share: float) -> float:
    """Quantile of sorted values, linear between neighbours. Raises ValueError on none."""
    if not values:
        raise ValueError("no value, so no quantile")
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def warm_up(call: Callable[[], object], least_ms: float) -> int:
    """Call for at least that long, then until the median of two windows agrees within 2 %, ten times as long at most.

    Returns how many calls were made.
    """
    clock = time.perf_counter_ns
    start, window_ns = clock(), int(least_ms * 1e6 / 2)
    end, last = start + int(least_ms * 1e7), 0.0
    calls = 0
    while True:
        window: List[int] = []
        opened = clock()
        while True:
            begin = clock()
            call()
            now = clock()
            window.append(now - begin)
            if now >= end or (now - opened >= window_ns and len(window) >= _MIN_WINDOW):
                break
        calls += len(window)
        median = quantile(sorted(window), 0.5)
        settled = last > 0 and abs(median - last) <= _SETTLED * last
        if now >= end or (settled and now - start >= least_ms * 1e6):
            return calls
        last = median


def run_closed(
    call: Callable[[], object], clock_us: Optional[Callable[[], float]], round_ms: float, min_calls: int
) -> Round:
    """Calls back to back for a round's time, and at least that many."""
    times, own = array("q"), array("d")
    clock, keep = time.perf_counter_ns, times.append
    end = clock() + int(round_ms * 1e6)
    while True:
        begin = clock()
        call()
        now = clock()
        keep(now - begin)
        if clock_us is not None:
            own.append(clock_us())
        if now >= end and len(times) >= min_calls:
            return Round(times, own, 0)


def run_periodic(
    call: Callable[[], object],
    clock_us: Optional[Callable[[], float]],
    round_ms: float,
    min_calls: int,
    rate_hz: float,
) -> Round:
    """Calls at a fixed rate, asleep in between. A call that begins more than a period late counts as missed."""
    times, own, missed = array("q"), array("d"), 0
    clock, period = time.perf_counter_ns, int(1e9 / rate_hz)
    start = clock()
    due, end = start, start + int(round_ms * 1e6)
    while True:
        due += period
        wait = due - clock()
        if wait > 0:
            time.sleep(wait * 1e-9)
        elif -wait > period:
            missed += 1
        begin = clock()
        call()
        now = clock()
        times.append(now - begin)
        if clock_us is not None:
            own.append(clock_us())
        if now >= end and len(times) >= min_calls:
            return Round(times, own, missed)


def summary_us(rounds: Sequence[Round]) -> Tuple[List[float], List[float]]:
    """All call times in us, sorted, and the fifth percentile of each round in order."""
    lows = [quantile(sorted(one.calls_ns), 0.05) / 1e3 for one in rounds]
    return sorted(value / 1e3 for one in rounds for value in one.calls_ns), lows
