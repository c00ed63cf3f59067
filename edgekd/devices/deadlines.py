"""The longest time of a request: the sum of the agent's own deadlines, each of them used to its end.

The agent ends a process that is late, and says meanwhile that it is alive. One that says so for longer than this keeps
no deadline of its own. Hours for a batch are no estimate: a good device needs seconds.
"""

from __future__ import annotations

import math

from edgekd.devices._protocol import MeasurePlan

__all__ = ["load_s", "measure_s", "run_s"]

_SPARE_S = 60.0  # a request: the greeting, other cores made busy, groups made
_PROCESS_S = 60.0  # a process: to tell where operators run, to sum up, and to end
_PROFILED_CALLS = 20
_LONGEST_WINDOW_S = 16.0  # of a meter that is slow
_SLOWEST_READ_BYTES_PER_S = 1 << 20  # a worn card


def load_s(plan: MeasurePlan, size_bytes: int) -> float:
    """Longest time to read a model of that size and load it once, in seconds."""
    return _SPARE_S + size_bytes / _SLOWEST_READ_BYTES_PER_S + _started_s(plan)


def measure_s(plan: MeasurePlan, jobs: int, size_bytes: int, cooling_s: float = 0.0) -> float:
    """Longest time to measure so many models, of that size together; ``cooling_s``: the longest wait until it is cool.

    Beside each process of a model one of the sentinel may run, and one that shows whether a memory limit was the cause.
    """
    call_s = plan.call_deadline_s
    gap_s = max(call_s, 1 / plan.load.rate_hz if plan.load.rate_hz else 0.0)
    ready_s = _started_s(plan) + plan.warmup_ms * 1e-2 + 3 * call_s
    timed_s = ready_s + plan.rounds * (plan.round_ms * 1e-3 + call_s + 2 * plan.min_calls * gap_s)
    each_s = plan.processes * ((1 + plan.sentinel) * timed_s + _started_s(plan) + cooling_s)
    if plan.profile:
        each_s += 2 * _started_s(plan) + (1 + 3 * _PROFILED_CALLS) * call_s + cooling_s
    if plan.energy:
        longest_s, first_s = max(_LONGEST_WINDOW_S, plan.energy_window_s), max(1e-3, plan.energy_window_s)
        windows = 1 + math.ceil(math.log2(longest_s / first_s))
        each_s += plan.processes * (windows * (ready_s + 2 * (longest_s + call_s)) + cooling_s)
    return _SPARE_S + size_bytes / _SLOWEST_READ_BYTES_PER_S + jobs * each_s


def run_s(plan: MeasurePlan, samples: int, size_bytes: int) -> float:
    """Longest time to answer so many samples, models and samples being of that size together, in seconds."""
    return load_s(plan, size_bytes) + (samples + 1) * plan.call_deadline_s


def _started_s(plan: MeasurePlan) -> float:
    """A fresh process: the runtime imported, the model loaded and called once."""
    return _PROCESS_S + 2 * plan.load_deadline_s + plan.call_deadline_s
