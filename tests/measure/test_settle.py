"""Measuring until decided, on the fake device."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome, SentinelReading
from edgekd.measure.sentinel import moved_by, moved_too_far
from edgekd.measure.settle import measure_steadily, measure_until, merge
from edgekd.testing.fakes import FakeDevice, Noise

PLAN = MeasurePlan(processes=5)


def job(name):
    artefact = Artefact(path=Path(f"{name}.tflite"), format=Format.TFLITE, sha256=f"{name:0>64}", size_bytes=1000)
    return Job(artefact=artefact, backend=Backend(runtime="litert", provider="xnnpack"))


def test_processes_are_added_until_decided_or_the_limit():
    device = FakeDevice({"a": 100.0, "b": 120.0})
    session, jobs = device.open(), [job("a"), job("b")]
    enough = measure_until(session, jobs, PLAN, lambda known: len(known[0].processes) >= 12, limit=100)
    assert [len(m.processes) for m in enough] == [15, 15]
    assert enough[0].plan.processes == 15
    assert len({p.low_us for p in enough[0].processes}) == 15  # no batch was drawn twice
    never = measure_until(session, jobs, PLAN, lambda known: False, limit=12)
    assert [len(m.processes) for m in never] == [12, 12]
    once = measure_until(session, jobs, PLAN, lambda known: True, limit=12)
    assert [len(m.processes) for m in once] == [5, 5]


def test_what_failed_is_not_measured_again_and_keeps_its_outcome():
    device = FakeDevice({"a": 100.0, "b": 120.0}, outcomes={"b": Outcome.CRASHED})
    asked = []
    session = device.open()
    measure, session.measure = session.measure, lambda jobs, *rest: asked.append(len(jobs)) or measure(jobs, *rest)
    good, bad = measure_until(session, [job("a"), job("b")], PLAN, lambda known: False, limit=10)
    assert asked == [2, 1]
    assert (good.outcome, bad.outcome, len(good.processes), bad.processes) == (Outcome.OK, Outcome.CRASHED, 10, ())


def test_a_batch_in_which_the_machine_shifted_is_repeated():
    throttling = FakeDevice({"a": 100.0}, noise=Noise(low=0.001, throttle_after_s=0.9, throttle_by=0.3))
    measured = measure_steadily(throttling.open(), [job("a")], PLAN.but(processes=6))[0]
    assert throttling.batches == 2  # from the second batch on all of it was equally slow
    assert not moved_too_far(measured.sentinel, PLAN.rounds)


def test_repeating_ends_with_the_calmest():
    slowing = FakeDevice({"a": 100.0}, noise=Noise(low=0.0005, drift=400.0))
    measured = measure_steadily(slowing.open(), [job("a")], PLAN.but(processes=8))[0]
    assert slowing.batches == 3
    assert moved_by(measured.sentinel, PLAN.rounds) > 0.01


def test_quiet_batches_are_hardly_ever_repeated():
    device = FakeDevice({"a": 100.0, "b": 130.0}, noise=Noise(low=0.003))
    session = device.open()
    for seed in range(100):
        measure_steadily(session, [job("a"), job("b")], PLAN.but(seed=seed))
    assert device.batches <= 105


def test_merging_keeps_order_and_refuses_strangers():
    device = FakeDevice({"a": 100.0, "b": 120.0})
    session = device.open()
    first, other = session.measure([job("a"), job("b")], PLAN)
    second = session.measure([job("a")], PLAN)[0]
    both = merge(first, second)
    assert both.processes == first.processes + second.processes
    assert both.sentinel.low_us == first.sentinel.low_us + second.sentinel.low_us
    with pytest.raises(ValueError, match="different jobs"):
        merge(first, other)


def test_a_shift_is_of_levels_not_of_one_process():
    def moved(*levels):
        sentinel = SentinelReading(low_us=tuple(level for level in levels for _ in range(3)), drift=0.0)
        return moved_by(sentinel, 3), moved_too_far(sentinel, 3)

    assert moved(50.0, 50.0, 80.0, 50.0, 50.0, 50.0) == (0.0, False)
    assert moved(50.0, 50.1, 50.0, 60.0, 60.1, 60.0) == (pytest.approx(0.2), True)
    assert moved(50.0, 51.0, 52.0, 53.0, 54.0)[1]
    assert not moved(50.0, 50.1, 50.2, 50.3, 50.4)[1]  # less than anybody could see
    assert moved(50.0, 70.0, 90.0) == (0.0, False)  # too few to tell
    assert not moved_too_far(None, 3)
