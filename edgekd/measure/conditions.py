"""Conditions reported by the device around each process: swap, clock, throttling, other load, and cooling.

An unreported condition is None, and gives no caution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekd.devices._protocol import Conditions, Measurement, ProcessSample
from edgekd.measure import warnings
from edgekd.measure.warnings import Caution

__all__ = ["busy_when_measured", "cautions_of_device", "cores_of", "load_of", "too_busy"]

_PAGES = 64  # a few pages now and then belong to other programs, and cost a process nothing
_FALL = 0.05
_NOT_COOL = "not cool: "  # as the agent begins (edgekd.agent.cooling)
_PI = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
"""A Raspberry Pi's flags: bits 0 to 3 are now, 16 to 19 the same at some time (its documentation, `get_throttled`)."""


def cautions_of_device(measurements: Sequence[Measurement], cores: int | None = None) -> tuple[Caution, ...]:
    """Cautions for conditions that the device itself reports."""
    return tuple(_cautions(measurements, cores))


def load_of(measurements: Sequence[Measurement]) -> float | None:
    """Load average before the agent began; None where the device doesn't report it."""
    found = [p.load_average for m in measurements for p in m.processes if p.load_average is not None]
    return max(found, default=None)


def cores_of(measurements: Sequence[Measurement]) -> int | None:
    """Cores of the whole machine, as in its load average, even if the work is bound to some; None where unreported."""
    found = [p.machine_cores for m in measurements for p in m.processes if p.machine_cores is not None]
    return max(found, default=None)


def too_busy(load_average: float, cores: int) -> bool:
    """Tell whether the load average matters. ``cores`` are all of the machine's (`cores_of`)."""
    return load_average > 0.5 * cores


def busy_when_measured(load_average: float | None, cores: int | None) -> str:
    """Caution beside a certificate's figures; empty on a machine that was idle, or reports no load."""
    if load_average is None or cores is None or not too_busy(load_average, cores):
        return ""
    return f"measured beside other work: load average {load_average:.1f} on {cores} cores"


def _cautions(measurements: Sequence[Measurement], cores: int | None) -> Iterator[Caution]:
    processes = [process for m in measurements for process in m.processes]
    ends = [(p.before, p.after) for p in processes if p.before is not None and p.after is not None]
    pages = max((_risen(b.swapped_pages, a.swapped_pages) for b, a in ends), default=0)
    if pages >= _PAGES:
        yield warnings.swapped(pages)
    # between calls at a rate a governor lowers the clock by itself
    fall = max((_clock_fall(m.processes) for m in measurements if m.plan.load.pattern == "closed"), default=0.0)
    if fall > _FALL:
        yield warnings.clock_fell(fall)
    reasons = [reason for before, after in ends if (reason := _throttled(before, after))]
    if reasons:
        yield warnings.throttled_by_device(max(set(reasons), key=reasons.count), len(reasons), len(processes))
    load = load_of(measurements)
    if load is not None and cores and too_busy(load, cores):
        yield warnings.busy(load, cores)
    hot = [part for m in measurements for part in m.state.split("; ") if part.startswith(_NOT_COOL)]
    if hot:
        yield warnings.not_cool(hot[0].removeprefix(_NOT_COOL))


def _risen(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before


def _clock_fall(processes: Sequence[ProcessSample]) -> float:
    """Fall of the clock: median within a process, which a move to a slower core can't set, or from first to last."""
    ends = [(_clock(p.before), _clock(p.after)) for p in processes]
    falls = [1.0 - after / before for before, after in ends if before and after]
    first, last = (ends[0][0], ends[-1][1]) if ends else (None, None)
    whole = 1.0 - last / first if first and last else 0.0
    return max(float(np.median(falls)) if falls else 0.0, whole)


def _clock(moment: Conditions | None) -> float | None:
    return moment.clock_mhz if moment is not None else None


def _throttled(before: Conditions, after: Conditions) -> str:
    """Reason for throttling as the device reports it; empty where there was none, or it reports nothing."""
    if _risen(before.throttle_count, after.throttle_count) > 0:
        return "heat"
    was, now = before.throttle_flags or 0, after.throttle_flags or 0
    since = (now & ~was) >> 16 if before.throttle_flags is not None else 0
    bits = (was | now | since) & 0xF
    return ", ".join(word for bit, word in enumerate(_PI) if bits >> bit & 1)
