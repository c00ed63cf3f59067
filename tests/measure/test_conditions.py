"""What a device reports of itself around each process, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Conditions, Job, Load, MeasurePlan
from edgekd.measure.conditions import cautions_of_device, cores_of
from edgekd.testing.fakes import FakeDevice

JOB = Job(
    artefact=Artefact(path=Path("m.tflite"), format=Format.TFLITE, sha256="1" * 64, size_bytes=5000),
    backend=Backend(runtime="litert", provider="xnnpack"),
)


def batch(before, after, **options):
    conditions = (Conditions(**before), Conditions(**after))
    device = FakeDevice({"m": 100.0}, conditions=conditions, **options)
    return device.open().measure([JOB], MeasurePlan(processes=4))


def codes(before, after, **options):
    return {caution.code for caution in cautions_of_device(batch(before, after, **options), 4)}


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ({"swapped_pages": 100}, {"swapped_pages": 164}, "swapped"),
        ({"clock_mhz": 2400.0}, {"clock_mhz": 2270.0}, "clock-fell"),
        ({"throttle_count": 7}, {"throttle_count": 8}, "throttled-by-device"),
        ({"throttle_flags": 0}, {"throttle_flags": 0x2}, "throttled-by-device"),
        ({"throttle_flags": 0x1}, {"throttle_flags": 0}, "throttled-by-device"),
        ({"throttle_flags": 0x10000}, {"throttle_flags": 0x50000}, "throttled-by-device"),
    ],
)
def test_each_thing_that_is_wrong_has_its_caution(before, after, code):
    assert codes(before, after) == {code}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"swapped_pages": 100}, {"swapped_pages": 163}),
        ({}, {"swapped_pages": 10**6}),
        ({"clock_mhz": 2400.0}, {"clock_mhz": 2300.0}),
        ({"clock_mhz": 2400.0}, {"clock_mhz": 3600.0}),
        ({}, {"clock_mhz": 600.0}),
        ({"throttle_count": 7}, {"throttle_count": 7}),
        ({}, {"throttle_count": 7}),
        ({"throttle_flags": 0x50000}, {"throttle_flags": 0x50000}),  # at some time before
        ({}, {"throttle_flags": 0x50000}),
    ],
)
def test_what_is_in_order_or_not_reported_has_none(before, after):
    assert codes(before, after) == set()


def test_one_process_that_moved_to_a_slower_core_is_no_fall_of_the_clock():
    (calm,) = batch({"clock_mhz": 2400.0}, {"clock_mhz": 2400.0})
    first, second, *others = calm.processes
    moved = second.but(after=Conditions(clock_mhz=1800.0))
    assert cautions_of_device([calm.but(processes=(first, moved, *others))]) == ()


def test_a_fall_from_the_first_process_to_the_last_is_one():
    (calm,) = batch({"clock_mhz": 2400.0}, {"clock_mhz": 2400.0})
    *others, last = calm.processes
    slow = last.but(before=Conditions(clock_mhz=1800.0), after=Conditions(clock_mhz=1800.0))
    (caution,) = cautions_of_device([calm.but(processes=(*others, slow))])
    assert (caution.code, "25%" in caution.message) == ("clock-fell", True)


def test_a_clock_that_follows_a_load_with_pauses_is_no_fall():
    (slept,) = batch({"clock_mhz": 2400.0}, {"clock_mhz": 600.0})
    plan = slept.plan.but(load=Load(pattern="periodic", rate_hz=30.0))
    assert cautions_of_device([slept.but(plan=plan)]) == ()


def test_why_it_throttled_and_how_often():
    (calm,) = batch({"throttle_flags": 0}, {"throttle_flags": 0})
    held = calm.processes[0].but(after=Conditions(throttle_flags=0x5))
    (caution,) = cautions_of_device([calm.but(processes=(held, *calm.processes[1:]))])
    assert "(under-voltage, throttled) in 1 of 4 processes" in caution.message


@pytest.mark.parametrize(("load", "expected"), [(None, set()), (2.0, set()), (2.1, {"busy"})])
def test_others_work_on_any_device(load, expected):
    assert codes({}, {}, load_average=load) == expected
    assert cautions_of_device(batch({}, {}, load_average=load)) == ()  # of so many cores: not known


def test_all_cores_are_those_of_the_machine():
    assert cores_of(batch({}, {}, machine_cores=64)) == 64
    assert cores_of([]) is None


def test_a_device_that_did_not_cool_down():
    (calm,) = batch({}, {})
    (caution,) = cautions_of_device([calm.but(state="screen on, charging; not cool: 61 C after 300 s")])
    assert caution.code == "not-cool"
    assert "(61 C after 300 s)" in caution.message
    assert cautions_of_device([calm.but(state="screen on, charging")]) == ()
