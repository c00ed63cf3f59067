"""The longest a request may take is no less than what the agent allows its parts."""

from __future__ import annotations

import pytest

from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.devices.deadlines import load_s, measure_s, run_s

PLAN = MeasurePlan()


@pytest.mark.parametrize(
    ("plan", "jobs", "size_bytes", "cooling_s", "parts_s"),
    [
        (PLAN, 1, 0, 0.0, 5 * 2 * (60 + 60 + 30 + 10 * 30)),
        (PLAN, 20, 0, 0.0, 20 * 5 * (60 + 60 + 30 + 10 * 30)),
        (PLAN, 1, 3_600 << 20, 0.0, 3_600),
        (PLAN, 2, 0, 3_600.0, 2 * 5 * 3_600),
        (PLAN.but(sentinel=False, load=Load(pattern="periodic", rate_hz=1e-3)), 1, 0, 0.0, 5 * 10 * 5 * 1_000),
        (PLAN.but(processes=1, rounds=1, profile=True), 1, 0, 0.0, 2 * 150 + 20 * 3 * 30),
        (PLAN.but(processes=1, rounds=1, energy=True), 1, 0, 0.0, 4 * (150 + 2 * 16 + 2 * 30)),
        (PLAN.but(processes=1, rounds=1, energy=True, energy_window_s=600.0), 1, 0, 0.0, 150 + 2 * 600),
    ],
)
def test_a_batch(plan: MeasurePlan, jobs: int, size_bytes: int, cooling_s: float, parts_s: float) -> None:
    assert parts_s < measure_s(plan, jobs, size_bytes, cooling_s) < 40 * parts_s


def test_loading_and_running() -> None:
    assert 150 < load_s(PLAN, 0) < 600
    assert load_s(PLAN, 100 << 20) == load_s(PLAN, 0) + 100
    assert run_s(PLAN, 1_000, 0) > load_s(PLAN, 0) + 1_000 * 30


def test_what_is_asked_for_besides_is_added() -> None:
    short = PLAN.but(processes=2, rounds=1)
    plain = measure_s(short, 3, 0)
    assert measure_s(short, 3, 0, cooling_s=3_600.0) - plain == 3 * 2 * 3_600
    # a meter may be too slow three times: each window then has a process of its own
    assert measure_s(short.but(energy=True), 3, 0) - plain >= 3 * 2 * 4 * (150 + 3 * 30 + 2 * (16 + 30))
    assert measure_s(short.but(energy=True, energy_window_s=0.0), 3, 0) < 10 * measure_s(short.but(energy=True), 3, 0)
    assert measure_s(short.but(profile=True), 3, 0) - plain >= 3 * (150 + 20 * 3 * 30)
