"""One bench a device: what one can't do keeps the others from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Device, Load, MeasurePlan, Outcome
from edgekd.measure.benches.bench import BenchReport, run_bench
from edgekd.measure.benches.devices import BenchReports, bench_devices
from edgekd.testing.fakes import FakeDevice, fake_fingerprint

LITERT = [Backend(runtime="litert", provider="xnnpack")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    return path


def reports(model: Path, *devices: Device) -> BenchReports:
    def bench(name: str) -> BenchReport:
        return run_bench([model], by_name[name], LITERT, 1, MeasurePlan())

    by_name = {device.name: device for device in devices}
    return bench_devices(by_name, bench)


def test_each_device_has_its_report(model: Path) -> None:
    found = reports(model, FakeDevice({"net": 100.0}, name="one"), FakeDevice({"net": 300.0}, name="two"))
    assert [report.device for report in found.reports] == ["one", "two"]
    assert found.exit_code == 0
    lines = found.lines()
    assert [line.split(" . ")[0] for line in lines if " . Fake CPU" in line] == ["one", "two"]
    assert max(map(len, lines)) <= 80
    assert BenchReports.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_a_device_without_the_runtime_is_noted(model: Path) -> None:
    bare = FakeDevice({"net": 1.0}, name="bare", fingerprint=fake_fingerprint(runtimes={}, providers={}))
    found = reports(model, bare, FakeDevice({"net": 300.0}, name="two"))
    assert [report.device for report in found.reports] == ["two"]
    assert found.exit_code == 4
    assert any(line.startswith("bare: not measured: not installed on this device") for line in found.lines())


def test_the_gravest_exit_code_counts(model: Path) -> None:
    refusing = FakeDevice({"net": 1.0}, name="refusing", outcomes={"net": Outcome.REFUSED})
    assert reports(model, refusing, FakeDevice({"net": 300.0})).exit_code == 3


def test_a_device_that_loads_no_such_file_keeps_the_others(model: Path) -> None:
    def bench(name: str) -> BenchReport:
        return run_bench([model], by_name[name], None, 1, MeasurePlan())

    onnx = fake_fingerprint(runtimes={"onnxruntime": "1.32.0"}, providers={"onnxruntime": ("cpu",)})
    by_name = {"one": FakeDevice({"net": 1.0}, name="one"), "two": FakeDevice({}, name="two", fingerprint=onnx)}
    found = bench_devices(by_name, bench)
    assert [report.device for report in found.reports] == ["one"]
    assert "loads tflite files" in found.missing[0].message
    (begin,) = (place for place, line in enumerate(found.lines()) if line.startswith("two: not measured: "))
    first, remedy = found.lines()[begin:]
    assert first.endswith("loads tflite files")
    assert remedy.startswith("  use one of ")


def test_a_device_with_too_few_cores_to_keep_busy_keeps_the_others(model: Path) -> None:
    def bench(name: str) -> BenchReport:
        return run_bench([model], by_name[name], LITERT, 1, MeasurePlan(load=Load(busy=3)))

    small = FakeDevice({"net": 1.0}, name="two", fingerprint=fake_fingerprint(cores=2))
    by_name = {"one": FakeDevice({"net": 1.0}, name="one"), "two": small}
    found = bench_devices(by_name, bench)
    assert ([report.device for report in found.reports], found.exit_code) == (["one"], 4)
    assert found.lines()[-2:] == ["two: not measured: 3 busy cores: two has 2", "  ask for fewer"]
