"""The doctor on the fake device."""

from __future__ import annotations

from edgekd.devices._protocol import Conditions
from edgekd.measure.converters import CONVERTERS, LATE, FoundConverter
from edgekd.measure.doctor import examine as examine_with
from edgekd.testing.fakes import FakeDevice, TimingNoise, fake_fingerprint

WHOLE = tuple(FoundConverter(name, "1.0", "") for name in CONVERTERS)


def examine(one, converters=WHOLE):
    return examine_with(one, lambda: converters)


def states(report):
    return {check.name: check.state for check in report.checks}


def device(noise=TimingNoise(), **fingerprint):
    return FakeDevice({}, noise=noise, fingerprint=fake_fingerprint(**fingerprint))


def test_a_good_machine_is_ready():
    report = examine(device())
    assert set(states(report).values()) == {"ok"}
    assert report.exit_code == 0
    assert report.lines()[0] == "fake-device: ready"


def test_each_trouble_has_its_line_and_its_remedy():
    report = examine(
        device(
            TimingNoise(low=0.08),
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


class Board(FakeDevice):
    folder, python = "~/edgekd", None

    def shell(self):
        raise NotImplementedError


def test_a_runtime_that_is_missing_has_the_way_that_the_device_goes():
    remedies = []
    for python in (None, "/opt/python/bin/python"):
        board = Board({}, fingerprint=fake_fingerprint(runtimes={"litert": "2.3.0"}), name="board")
        board.python = python
        (check,) = (check for check in examine(board).checks if check.name == "openvino")
        remedies.append(check.remedy)
    ours, theirs = remedies
    assert ours == "edgekd devices install board --runtime openvino"
    assert theirs.endswith(": /opt/python/bin/python -m pip install openvino")


def test_no_runtime_at_all_is_not_ready():
    report = examine(device(runtimes={}, providers={}))
    assert report.exit_code == 4
    assert "not ready" in report.lines()[0]


def test_converters_are_looked_at_with_what_to_do():
    report = examine(device())
    assert {name: states(report)[name] for name in CONVERTERS} == dict.fromkeys(CONVERTERS, "ok")
    first, second, third = WHOLE[:3]
    poor = (first._replace(version="", problem="not installed"), second._replace(version="", problem="it needs x"))
    poor += (third._replace(version="", problem=LATE),)
    report = examine(device(), poor)
    text = "\n".join(report.lines())
    assert states(report)[first.name] == states(report)[second.name] == "missing"
    assert states(report)[third.name] == "warn"
    assert "close other programs, and run edgekd doctor again" in text
    assert "pip install litert-torch\n" in text
    assert "pip install --force-reinstall ai-edge-quantizer" in text
    assert report.exit_code == 0  # measuring needs none of them
    assert report.lines()[0] == "fake-device: ready, with 2 missing and 1 to look at"


def test_the_device_is_given_back():
    one = device()
    examine(one)
    assert not one.is_open


def test_any_device_is_judged_by_what_it_reports():
    calm = Conditions(swapped_pages=3, throttle_flags=0)
    report = examine(FakeDevice({}, conditions=(calm, calm), load_average=0.4))
    assert states(report)["load"] == "ok"
    assert report.lines()[0] == "fake-device: ready"
    throttled = (calm, calm.but(throttle_flags=0x4, swapped_pages=3000))
    found = states(examine(FakeDevice({}, conditions=throttled, load_average=2.4)))
    assert found["load"] == found["swapped"] == found["throttled-by-device"] == "warn"
    bound = examine(FakeDevice({}, load_average=2.4, machine_cores=64))  # to four of them
    assert [check.found for check in bound.checks if check.name == "load"] == ["load average 2.40 on 64 cores"]
    assert states(bound)["load"] == "ok"


def governor(name, **fingerprint):
    (check,) = (c for c in examine(device(governor=name, **fingerprint)).checks if c.name == "governor")
    return check


def test_a_governor_that_scales_has_the_advice_of_its_system():
    assert {name: governor(name).state for name in ("performance", "userspace", None)} == {
        "performance": "ok",
        "userspace": "ok",
        None: "ok",
    }
    for name in ("walt", "sched_pixel", "schedutil", "performance, walt"):
        assert governor(name).state == "warn"
    assert "cpupower" in governor("schedutil").remedy
    phone = governor("walt", os="unknown, Linux 5.10.157-android13-4").remedy
    assert "cpupower" not in phone
    assert "cooling" in phone


def test_a_device_in_use_is_reported_without_measuring():
    board = device()
    board.open()  # another run
    report = examine(board)
    assert board.batches == 0
    assert report.exit_code == 0
    assert states(report) == {"in use": "warn", **dict.fromkeys(CONVERTERS, "ok")}
    board.describe = lambda: fake_fingerprint(governor="powersave")
    found = states(examine(board))
    assert (found["in use"], found["onnxruntime"], found["governor"]) == ("warn", "ok", "warn")
    assert "noise" not in found
