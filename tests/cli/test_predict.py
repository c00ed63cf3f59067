"""``edgekd predict`` and ``edgekd tables``: what they answer where little is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd import predicting
from edgekd.cli.main import main
from edgekd.errors import ConfigurationError, MissingError
from edgekd.ir import backends
from edgekd.ir.backends import RuntimeSpec
from edgekd.ir.numerics import Precision
from edgekd.ir.shipped_backends import ONNXRUNTIME_CPU
from edgekd.measure.prediction.predict import ModelOnBackend, predict_models
from edgekd.measure.tables import add_rows
from tests.measure.prediction.test_predict import table


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_without_a_table_it_says_how_to_get_one(own_data, capsys):
    assert main(["predict", "m.tflite"]) == 4
    assert "edgekd profile this-computer" in capsys.readouterr().err


def test_a_device_that_is_not_there_offers_the_nearest(own_data, capsys):
    assert main(["predict", "m.tflite", "--device", "this-computr"]) == 3
    assert "this-computer" in capsys.readouterr().err


def test_a_missing_model_is_named(own_data, capsys):
    add_rows(table(30))
    path = next((own_data / "data").rglob("*.json"))
    assert main(["predict", str(own_data / "m.tflite"), "--table", str(path)]) == 3
    assert "no such file" in capsys.readouterr().err


def test_tables_are_listed_sent_and_taken_in(own_data, capsys, monkeypatch):
    assert main(["tables", "list"]) == 0
    assert "no table is kept here" in capsys.readouterr().out
    add_rows(table(8))
    assert main(["tables", "list", "--format", "json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["tables"]
    assert (listed["device"], listed["rows"]) == ("board", 8)
    assert main(["tables", "export", "board", str(own_data / "sent.json")]) == 0
    assert main(["tables", "export", "board", str(own_data / "sent.json")]) == 2
    assert "--force" in capsys.readouterr().err
    monkeypatch.setenv("XDG_DATA_HOME", str(own_data / "elsewhere"))
    assert main(["tables", "import", str(own_data / "sent.json")]) == 0
    assert "8 networks" in capsys.readouterr().out


def test_a_table_that_is_not_kept_offers_the_nearest(own_data, capsys):
    add_rows(table(8))
    assert main(["tables", "export", "bord", str(own_data / "sent.json")]) == 3
    assert "board" in capsys.readouterr().err


def test_what_is_no_table_is_refused_and_nothing_taken_in(own_data, capsys):
    (own_data / "other.json").write_text("{}")
    assert main(["tables", "import", str(own_data / "other.json"), str(own_data / "missing.json")]) == 3
    assert "other.json" in capsys.readouterr().err
    assert not list((own_data / "data").rglob("*.json"))


def test_a_backend_that_is_not_known(own_data, capsys):
    add_rows(table(30))
    path = next((own_data / "data").rglob("*.json"))
    (own_data / "m.onnx").write_bytes(b"\x08\x08")
    assert main(["predict", str(own_data / "m.onnx"), "--table", str(path), "--backend", "nonsense/cpu"]) == 3
    assert "onnxruntime/cpu" in capsys.readouterr().err


def test_tables_of_two_devices_are_not_mixed(own_data, capsys):
    changed = table(30)
    add_rows(changed)
    add_rows(changed.but(fingerprint=changed.fingerprint.but(governor="powersave")))
    words = [word for path in (own_data / "data").rglob("*.json") for word in ("--table", str(path))]
    assert main(["predict", "m.tflite", *words]) == 3
    assert "different devices" in capsys.readouterr().err


def test_tables_of_other_threads_are_named(own_data, capsys):
    add_rows(table(30))
    path = next((own_data / "data").rglob("*.json"))
    assert main(["predict", "m.tflite", "--table", str(path), "--threads", "4"]) == 4
    assert "of 1 threads, not 4" in capsys.readouterr().err


def test_tables_of_other_states_are_offered_as_priors_and_a_torn_one_is_named(own_data, monkeypatch):
    mine = table(10)
    before = table(30).but(fingerprint=mine.fingerprint.but(governor="powersave"))
    add_rows(mine)
    add_rows(before)
    monkeypatch.setattr(predicting, "probe_device", lambda *_: SimpleNamespace(fingerprint=mine.fingerprint))
    known = predicting.tables_for("board", 1)
    assert (known.tables, known.other_devices, known.note) == ((mine,), (before,), "")
    (path,) = (own_data / "data").rglob(before.name)
    path.write_text("{")
    known = predicting.tables_for("board", 1)
    assert (known.tables, known.other_devices) == ((mine,), ())
    assert before.name in known.note


def test_a_device_out_of_reach_is_known_by_its_own_tables_whatever_others_hold(own_data, monkeypatch):
    mine = table(10)
    add_rows(mine)
    torn = mine.but(device="zz-other", fingerprint=mine.fingerprint.but(governor="powersave"))
    add_rows(torn)
    (path,) = (own_data / "data").rglob("zz-other*")
    path.write_text("{")

    def away(*_):
        raise MissingError("no route to it", "switch it on")

    monkeypatch.setattr(predicting, "probe_device", away)
    known = predicting.tables_for("board", 1)
    assert known.tables == (mine,)
    assert "no route to it" in known.note
    assert torn.name in known.note
    changed = mine.fingerprint.but(governor="schedutil")
    monkeypatch.setattr(predicting, "probe_device", lambda *_: SimpleNamespace(fingerprint=changed))
    with pytest.raises(MissingError, match="holds for another state of it"):
        predicting.tables_for("board", 1)
    path.unlink()
    path.symlink_to("nowhere.json")
    monkeypatch.setattr(predicting, "probe_device", lambda *_: SimpleNamespace(fingerprint=mine.fingerprint))
    known = predicting.tables_for("board", 1)
    assert (known.tables, known.other_devices) == ((mine,), ())
    assert "nowhere" in known.note or torn.name in known.note


def test_a_precision_that_is_not_there_offers_the_nearest(own_data, capsys):
    assert main(["profile", "--precision", "dynamic-int"]) == 3
    assert "dynamic-int8" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["my_model.py:build", "a/model.onnx"])
def test_profile_of_a_model_points_to_bench(model, capsys):
    assert main(["profile", model]) == 2
    assert f"edgekd bench {model} --profile" in capsys.readouterr().err


@pytest.mark.slow
def test_one_unfit_file_refuses_none_of_the_others(own_data, monkeypatch):
    estimated = ONNXRUNTIME_CPU.but(runtime=RuntimeSpec(name="npu"), can={"simulate"})
    with_npu = {**backends.BACKENDS, estimated.name: estimated}  # can't be measured, so that it has no row
    monkeypatch.setattr(backends, "_loaded", lambda: with_npu)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)]
    weights = numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 3), ("y", 4))]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), own_data / "net.onnx")
    (own_data / "torn.tflite").write_bytes(b"\xff\xff\xff\x7fTFL3" + bytes(12))
    files = [own_data / "torn.tflite", own_data / "net.onnx"]
    measured = [table(10)]  # of litert/xnnpack
    asked, unfit = predicting.asked_of(files, (), measured)
    assert [(one.model, str(one.backend)) for one in asked] == [("net.onnx", "onnxruntime/cpu")]
    assert [one.model for one in unfit] == ["torn.tflite"]
    with pytest.raises(MissingError, match="no table of onnxruntime/cpu float32 here") as missing:
        predict_models("board", measured[0].fingerprint, 1, measured, asked)
    assert "edgekd profile" in missing.value.remedy
    known = ModelOnBackend("known.tflite", measured[0].backend, Precision.FLOAT32, measured[0].rows[0].kernels)
    report = predict_models("board", measured[0].fingerprint, 1, measured, [*asked, known]).but(unfit=unfit)
    assert ([bool(row.figures) for row in report.rows], report.exit_code) == ([False, True], 3)
    assert any(line.startswith("torn.tflite: not predicted: ") for line in report.lines())
    with pytest.raises(ConfigurationError, match=r"litert/xnnpack can't load onnx files"):
        predicting.asked_of(files[1:], ["litert/xnnpack"], measured)
