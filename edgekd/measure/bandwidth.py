"""Memory bandwidth of a device's processor: numbers read and written, timed as any model is, in fresh processes.

Adding one to n bytes of floats reads n and writes n (STREAM, McCalpin 1995); a plain copy is ten times slower at some
alignments on some machines. The working set decides which memory is measured: a student lives mostly in a cache.
Evidence kind: the measurement's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekd.devices._protocol import DeviceSession, MeasurePlan
from edgekd.devices.diagnostic import null_job
from edgekd.evidence import Figure, find_figure
from edgekd.measure.contention import DriftBaseline, measure_uncontended
from edgekd.measure.figures import figures_of
from edgekd.units import format_bytes

__all__ = ["measure_bandwidth"]

_PLAN = MeasurePlan(processes=5, rounds=5, round_ms=12.0, warmup_ms=40.0)
_LEAST = 4096


def measure_bandwidth(
    session: DeviceSession,
    working_bytes: Sequence[int],
    plan: MeasurePlan = _PLAN,
    drift_baseline: DriftBaseline | None = None,
    stop: Callable[[], None] = lambda: None,
    again: bool = True,
) -> tuple[Figure | None, ...]:
    """Bandwidth in bytes a second for each working set (both arrays together), measured side by side.

    None for a working set the device can't hold. ``again``: repeat what a busy machine disturbed. Raises what `stop`
    raises, and what measuring raises.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-stream-") as folder:
        jobs = [null_job(Path(folder), f"stream={max(_LEAST, size)}") for size in working_bytes]
        if again:
            measured = measure_uncontended(session, jobs, plan, drift_baseline or DriftBaseline(), stop=stop)
        else:
            measured = session.measure(jobs, plan)
    lows = [find_figure(figures_of(measurement), "latency.p5") for measurement in measured]
    return tuple(
        None if low is None else _rate(max(_LEAST, size), low) for size, low in zip(working_bytes, lows, strict=True)
    )


def _rate(size: int, low: Figure) -> Figure:
    return low.but(
        metric="memory.bandwidth",
        value=1e6 * size / low.value,
        unit="B/s",
        low=1e6 * size / low.upper,
        high=1e6 * size / low.lower,
        method=f"reading and writing, {format_bytes(size)} in all, by the {low.method}",
    )
