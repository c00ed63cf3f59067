"""``edgekd bench``: the arguments and the exit codes of what can't be measured."""

from __future__ import annotations

import pytest

from edgekd import api
from edgekd.artefacts import Backend
from edgekd.cli.main import main
from edgekd.devices._protocol import MeasurePlan
from edgekd.errors import Interrupted
from edgekd.measure.benches.bench import run_bench
from edgekd.testing.fakes import FakeDevice


def test_a_missing_model_offers_the_nearest(tmp_path, capsys):
    (tmp_path / "resnet.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    assert main(["bench", str(tmp_path / "resnt.tflite")]) == 3
    said = capsys.readouterr()
    assert "resnet.tflite" in said.err
    assert said.out == ""


@pytest.mark.parametrize("twin", ["a.onnx", "=b.onnx", "a.onnx="])
def test_a_twin_needs_two_names(twin, capsys):
    assert main(["bench", "a.onnx", "--twin", twin]) == 2
    assert "--twin a.onnx=b.onnx" in capsys.readouterr().err


def test_no_model_is_a_usage_error(capsys):
    assert main(["bench"]) == 2
    assert "MODELS" in capsys.readouterr().err


def test_an_unknown_backend_names_those_that_are(tmp_path, capsys):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    assert main(["bench", str(tmp_path / "a.tflite"), "--backend", "litert/xnpack"]) == 3
    assert "litert/xnnpack" in capsys.readouterr().err


def test_verbose_adds_what_the_machine_reported(tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    backend = Backend(runtime="litert", provider="xnnpack")
    report = run_bench([path], FakeDevice(lambda job: 100.0), [backend], 1, MeasurePlan())
    monkeypatch.setattr(api, "bench", lambda *_, **__: report)
    assert main(["bench", str(path)]) == 0
    assert "temperature" not in capsys.readouterr().err
    assert main(["bench", str(path), "-v"]) == 0
    assert "a.tflite on litert/xnnpack: neither temperature nor clock is reported here" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["1x3x", "1,3", "x=", "0x3", "x=1x-3"])
def test_a_shape_is_sizes(shape, capsys):
    assert main(["bench", "a.onnx", "--shape", shape]) == 2
    assert "--shape 1x3x224x224" in capsys.readouterr().err


def test_a_twin_is_named_by_its_path_or_as_the_table_names_it(monkeypatch, tmp_path):
    asked = {}

    def bench(_models, **given):
        asked.update(given)
        raise Interrupted("that was all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "bench", bench)
    typed = [
        "p/old/m/net.onnx=q/small.onnx",
        f"{tmp_path}/p/new/m/net.onnx=elsewhere/small.onnx",
        "old/m/net.onnx=x/none.onnx",
    ]
    models = ["p/old/m/net.onnx", "p/new/m/net.onnx", "q/small.onnx"]
    main(["bench", *models, *(word for twin in typed for word in ("--twin", twin))])
    assert asked["twins"] == [
        ("old/m/net.onnx", "small.onnx"), ("new/m/net.onnx", "small.onnx"), ("old/m/net.onnx", "x/none.onnx"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--backend", "litert/xnpack"), "litert/xnnpack"),
        (("--twin", "a.tflite=b.tflit"), "did you mean `b.tflite`?"),
    ],
)
def test_what_no_device_could_do_is_reported_as_with_one(option, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edgekd.devices.catalogue.open_device", lambda _, **__: FakeDevice(lambda job: 100.0))
    models = [tmp_path / name for name in ("a.tflite", "b.tflite")]
    for model in models:
        model.write_bytes(b"\x1c\0\0\0TFL3")
    for devices in (["--device", "one"], ["--device", "one", "--device", "two"]):
        assert main(["bench", *map(str, models), *devices, *option]) == 3
        output = capsys.readouterr()
        assert said in output.err
        assert output.out == ""


def test_one_device_is_held_against_an_earlier_report(capsys):
    assert main(["bench", "a.onnx", "--device", "a", "--device", "b", "--against", "then.json"]) == 2
    assert "name one --device" in capsys.readouterr().err


def test_an_unknown_device_is_reported_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    monkeypatch.setattr("edgekd.measure.benches.bench.run_bench", lambda *_: pytest.fail("measured"))
    asked = ["bench", str(tmp_path / "a.tflite"), "--device", "this-computer", "--device", "this-komputer"]
    assert main(asked) == 3
    assert "did you mean `this-computer`?" in capsys.readouterr().err


def test_what_is_asked_for_arrives(monkeypatch):
    asked = {}

    def bench(_models, **given):
        asked.update(given)
        raise Interrupted("that was all")

    monkeypatch.setattr(api, "bench", bench)
    main(["bench", "a.onnx", "--shape", "x=1x3x8x8", "--shape", "2", "--threads", "1", "--threads", "4", "--busy", "2"])
    assert asked["shapes"] == {"x": (1, 3, 8, 8), "": (2,)}
    assert asked["threads"] == (1, 4)
    assert (asked["plan"].load.busy, asked["plan"].load.pattern) == (2, "closed")
