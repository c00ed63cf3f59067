"""Output of the vendors' measuring programs, read strictly: a line that is missing, or says something else, is no time.

``benchmark_model`` is TensorFlow's and LiteRT's, ``onnxruntime_perf_test`` ONNX Runtime's. Their own words are the
source: the last line ``count=... p5=... median=... p95=`` and the line ``Inference timings in us`` of the one, the file
of a run's time a line of the other. An older ``benchmark_model`` tells no quantiles, and is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from edgekd.devices._protocol import ProcessSample

__all__ = ["NotUnderstood", "read_benchmark_model", "read_perf_test"]

_NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)"
_COUNTED = r"([0-9]{1,9})"  # more calls than that were never made
_COUNT = re.compile(
    rf"^(?:INFO: )?count={_COUNTED} first=\d+ curr=\d+ min={_NUMBER} max={_NUMBER} avg={_NUMBER} std={_NUMBER}"
    rf"(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?\s*$",
    re.MULTILINE,
)
_TIMINGS = re.compile(
    rf"^(?:INFO: )?Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER},", re.MULTILINE
)
_SESSION = re.compile(rf"^Session creation time cost: {_NUMBER} s\s*$", re.MULTILINE)
_TOTAL = re.compile(rf"^Total inference requests: {_COUNTED}\s*$", re.MULTILINE)
_ROW = re.compile(rf"^[^,\n]*,{_NUMBER},\d+,-?\d+,{_COUNTED}\s*$", re.MULTILINE)


class NotUnderstood(ValueError):
    """The program says something else than it used to."""


def read_benchmark_model(said: str, began_s: float) -> ProcessSample:
    """Times of one run; its own clock, so they are the runtime's too. Raises NotUnderstood."""
    rows, timings = _COUNT.findall(said), _TIMINGS.search(said)
    if not rows or timings is None:
        raise NotUnderstood("benchmark_model did not tell its times")
    count, least, _, mean, _, low, middle, high = rows[-1]  # the first row is the warm-up's
    if not low:
        raise NotUnderstood("this benchmark_model tells no quantiles: use one of 2024 or later")
    times = {"min_us": least, "p5_us": low, "p50_us": middle, "p95_us": high, "mean_us": mean}
    return _sample(
        {name: float(value) for name, value in times.items()},
        p99_us=None,
        calls=int(count),
        first_us=float(timings.group(2)),
        load_ms=float(timings.group(1)) / 1e3,
        began_s=began_s,
    )


def read_perf_test(said: str, rows: str, began_s: float) -> ProcessSample:
    """Read what it printed, and its file with a time a run, in seconds. Raises NotUnderstood.

    Its first inference is told in whole milliseconds, and so not taken.
    """
    session, total, found = _SESSION.search(said), _TOTAL.search(said), _ROW.findall(rows)
    if session is None or total is None or not found:
        raise NotUnderstood("onnxruntime_perf_test did not tell its times")
    if len(found) != int(total.group(1)) or any(int(number) != at for at, (_, number) in enumerate(found)):
        raise NotUnderstood("onnxruntime_perf_test's file of times is not whole")
    times_us = np.sort(np.array([float(seconds) for seconds, _ in found]) * 1e6)
    low, middle, high, highest = (float(value) for value in np.quantile(times_us, (0.05, 0.5, 0.95, 0.99)))
    return _sample(
        {"min_us": float(times_us[0]), "p5_us": low, "p50_us": middle, "p95_us": high, "mean_us": times_us.mean()},
        p99_us=highest,
        calls=len(times_us),
        first_us=None,
        load_ms=float(session.group(1)) * 1e3,
        began_s=began_s,
    )


def _sample(
    times_us: Mapping[str, float],
    p99_us: float | None,
    calls: int,
    first_us: float | None,
    load_ms: float,
    began_s: float,
) -> ProcessSample:
    ordered = [times_us[name] for name in ("min_us", "p5_us", "p50_us", "p95_us")]
    whole = math.isfinite(load_ms) and (first_us is None or math.isfinite(first_us))
    positive = all(0 < value < math.inf for value in times_us.values())
    if calls < 1 or not whole or not positive or ordered != sorted(ordered):
        times = {**times_us, "first_us": first_us, "load_ms": load_ms}
        raise NotUnderstood(f"the program's times make no sense: {times}")
    return ProcessSample(
        **times_us,
        p99_us=p99_us,
        round_p5_us=(),
        calls=calls,
        first_us=first_us,
        load_ms=load_ms,
        runtime_us=None,
        memory_model_bytes=None,
        memory_process_bytes=None,
        started_at_s=began_s,
    )
