"""The doctor on the fake device."""

from __future__ import annotations

from edgekd.measure.doctor import examine
from edgekd.testing.fakes import FakeDevice, Noise, fake_fingerprint


def states(report):
    return {check.name: check.state for check in report.checks}


def device(noise=Noise(), **fingerprint):
    return FakeDevice({}, noise=noise, fingerprint=fake_fingerprint(**fingerprint))


def test_a_good_machine_is_ready():
    report = examine(device())
    assert set(states(report).values()) == {"ok"}
    assert report.exit_code == 0
    assert report.lines()[0] == "fake-device: ready"


def test_each_trouble_has_its_line_and_its_remedy():
    report = examine(
        device(
            Noise(low=0.08),
            extensions=("avx2",),
            governor="powersave",
            memory_bytes=1 << 29,
            python="3.7.3",
            runtimes={"litert": "2.3.0"},
        )
    )
    found = states(report)
    assert found["onnxruntime"] == found["openvino"] == found["device python"] == "missing"
    assert found["cpu"] == found["governor"] == found["memory"] == found["noise"] == "warn"
    assert all(check.remedy for check in report.checks if check.state != "ok")
    assert "pip install openvino" in "\n".join(report.lines())
    assert report.exit_code == 0


def test_no_runtime_at_all_is_not_ready():
    report = examine(device(runtimes={}, providers={}))
    assert report.exit_code == 4
    assert "not ready" in report.lines()[0]


def test_the_device_is_given_back():
    one = device()
    examine(one)
    assert not one.is_open
