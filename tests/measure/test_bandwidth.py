"""Reading and writing, timed as any model is."""

from __future__ import annotations

import pytest

from edgekd.devices._protocol import MeasurePlan, Outcome
from edgekd.devices.local import LocalDevice
from edgekd.evidence import EvidenceKind
from edgekd.measure.bandwidth import measure_bandwidth
from edgekd.testing.fakes import FakeDevice


def test_bytes_over_time():
    device = FakeDevice({"null-stream-262144": 10.0, "null-stream-16777216": 1000.0}, noise=0.0)
    small, large = measure_bandwidth(device.open(), [256 << 10, 16 << 20])
    assert small.value == pytest.approx((256 << 10) / 10e-6, rel=0.02)
    assert large.value == pytest.approx((16 << 20) / 1000e-6, rel=0.02)
    assert (small.metric, small.unit) == ("memory.bandwidth", "B/s")
    assert small.low <= small.value <= small.high
    assert "256 KiB in all" in small.method


def test_what_a_device_made_smaller_says_is_emulated():
    device = FakeDevice({"null-stream-4096": 10.0}, kind=EvidenceKind.EMULATED)
    (figure,) = measure_bandwidth(device.open(), [4096])
    assert figure.kind is EvidenceKind.EMULATED


def test_a_working_set_the_device_cannot_hold_has_no_figure():
    device = FakeDevice(
        {"null-stream-4096": 1.0, "null-stream-134217728": 1.0},
        outcomes={"null-stream-134217728": Outcome.OUT_OF_MEMORY},
    )
    small, large = measure_bandwidth(device.open(), [4096, 128 << 20])
    assert small is not None
    assert large is None


@pytest.mark.runtime
def test_this_computer_moves_between_a_tenth_and_ten_thousand_gigabytes_a_second():
    with LocalDevice().open() as session:
        plan = MeasurePlan(processes=2, rounds=2, round_ms=5.0, warmup_ms=10.0)
        (figure,) = measure_bandwidth(session, [256 << 10], plan)
    assert figure.kind is EvidenceKind.MEASURED
    assert 1e8 < figure.value < 1e13
