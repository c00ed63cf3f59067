"""Energy of a call: the power while calls go on, less the power while the same loaded process waits, times the time.

A process is one sample here too. Both windows are as long as the meter needs: it is asked for longer ones as long as it
calls itself too slow, and as long as its steps leave open a third of the difference, up to 16 s. A meter that tells the
very same power with work and without stands still.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

from edgekd.agent.child import Child
from edgekd.agent.limits import Yard
from edgekd.agent.messages import JobRequest, PlanRequest
from edgekd.agent.meters import MeanPower, Meter, MeterError, TooSlow

__all__ = ["sample"]

_LONGEST_S = 16.0
_LEAST_STEPS = 3.0  # of what a mean can be off by for the meter's steps: less is no difference


def sample(job: JobRequest, plan: PlanRequest, meter: Meter, yard: Yard, waiting: Callable[[], None]) -> Dict[str, Any]:
    """Measure a fresh process: joules a call, watts with calls and without. Raises MeterError, Failed."""
    window_s = plan.energy_window_s
    while True:
        try:
            return _sample(job, plan, meter, yard, waiting, window_s)
        except TooSlow:
            if 2 * window_s > _LONGEST_S:
                raise
            window_s *= 2


def _sample(
    job: JobRequest, plan: PlanRequest, meter: Meter, yard: Yard, waiting: Callable[[], None], window_s: float
) -> Dict[str, Any]:
    with Child(job, plan.memory_limit_bytes, yard, waiting) as child:
        child.open(plan.load_deadline_s)
        child.load(plan.load_deadline_s, plan.seed)
        child.first(plan.call_deadline_s)
        child.ask("warm", plan.warmup_ms * 1e-2 + plan.call_deadline_s, warmup_ms=plan.warmup_ms)
        longest_s = window_s + plan.call_deadline_s
        idle, _ = _watched(meter, lambda: child.ask("rest", longest_s, seconds=window_s))
        work = {"round_ms": window_s * 1e3, "min_calls": 1, "rate_hz": plan.rate_hz, "last": False}
        busy, done = _watched(meter, lambda: child.ask("round", longest_s, **work))
    drawn_w = busy.watts - idle.watts
    if not drawn_w:
        raise MeterError("%s stands still: %.6g W with work and without" % (meter.name, busy.watts))
    step_w = min((seen.step_w for seen in (busy, idle) if seen.step_w), default=abs(drawn_w))
    unsure_w = max(seen.unsure_w or step_w for seen in (busy, idle))
    if drawn_w < _LEAST_STEPS * unsure_w:
        figures = (meter.name, busy.watts, idle.watts, unsure_w)
        raise TooSlow("%s is too coarse: %.6g W with work, %.6g W without, each only known to %.2g W" % figures)
    elapsed_s, calls = float(done["elapsed_s"]), int(done["calls"])
    return {
        "joules": drawn_w * elapsed_s / calls,
        "busy_w": busy.watts,
        "idle_w": idle.watts,
        "calls": calls,
        "window_s": elapsed_s,
        "readings": min(busy.readings, idle.readings),
        "unsure_w": unsure_w,
    }


def _watched(meter: Meter, work: Callable[[], Dict[str, Any]]) -> "tuple[MeanPower, Dict[str, Any]]":
    watch = meter.watch()
    try:
        answer = work()
    except BaseException:
        watch.cancel()
        raise
    return watch.stop(), answer
