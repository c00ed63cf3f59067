"""Weights outside an ONNX file: found wherever a tensor may be, part of the artefact, and nowhere but in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError
from edgekd.external_weights import external_files
from edgekd.measure.models import find_models


def outside(name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros((3, 4), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def saved(folder: Path, *locations: str) -> Path:
    """A model with a tensor at each of these locations, those that there can be written; zeros in each."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in "xy")
    weights = [outside(f"w{number}", location) for number, location in enumerate(locations)]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w0"], ["y"])], "net", [x], [y], weights)
    path = folder / "net.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    for location in locations:
        if location and not location.startswith("/") and ".." not in location and location.isprintable():
            (folder / location).parent.mkdir(exist_ok=True)
            (folder / location).write_bytes(bytes(48))
    return path


def test_each_file_once_and_in_order(tmp_path: Path) -> None:
    path = saved(tmp_path, "b.bin", "deep/a.bin", "./b.bin")
    assert external_files(path) == (tmp_path / "b.bin", tmp_path / "deep/a.bin")


def test_wherever_a_tensor_may_be(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=outside("", "constant.bin"))
    sparse = helper.make_node("Constant", [], ["s"])
    within = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    within.sparse_tensor.values.CopyFrom(outside("", "values.bin"))
    within.sparse_tensor.indices.CopyFrom(outside("", "indices.bin"))
    sparse.attribute.append(within)
    branch = helper.make_graph([constant], "then", [], [], [outside("w", "branch.bin")])
    choice = helper.make_node(
        "If", ["on"], ["z"], then_branch=branch, else_branch=helper.make_graph([sparse], "", [], [])
    )
    called = helper.make_function("own", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    called.node[0].attribute[0].t.external_data[1].value = "function.bin"
    model = helper.make_model(helper.make_graph([choice], "net", [], []), functions=[called])
    model.graph.sparse_initializer.append(within.sparse_tensor)
    model.graph.sparse_initializer[0].values.external_data[1].value = "sparse.bin"
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    names = ["branch.bin", "constant.bin", "function.bin", "indices.bin", "sparse.bin", "values.bin"]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in external_files(path)] == names


def test_what_is_kept_inside_names_nothing(tmp_path: Path) -> None:
    tensor = outside("location", "nowhere.bin")
    tensor.data_location = TensorProto.DEFAULT
    graph = helper.make_graph([], "net", [], [], [tensor])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert external_files(tmp_path / "net.onnx") == ()


@pytest.mark.parametrize("content", [b"", b"location", b"\xff" * 40 + b"location", b"\x3a\x7flocation", b"spin=50"])
def test_what_is_no_model_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert external_files(tmp_path / "net.onnx") == ()


def test_a_model_cut_anywhere_is_no_crash(tmp_path: Path) -> None:
    whole = saved(tmp_path, "w.bin").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        assert external_files(tmp_path / "cut.onnx") in ((), (tmp_path / "w.bin",))


def test_digest_and_size_are_of_all_files(tmp_path: Path) -> None:
    path = saved(tmp_path, "w.bin")
    artefact = Artefact.of(path)
    assert artefact.size_bytes == path.stat().st_size + 48
    assert artefact.files == (path, tmp_path / "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(47) + b"\x01")
    assert Artefact.of(path).sha256 != artefact.sha256


def test_names_in_another_folder(tmp_path: Path) -> None:
    artefact = Artefact.of(saved(tmp_path, "deep/w.bin", "model.onnx"))
    weights = {"deep/w.bin": tmp_path / "deep/w.bin", "model.onnx": tmp_path / "model.onnx"}
    assert list(artefact.named("other")) == ["other.onnx", "deep/w.bin", "model.onnx"]
    assert artefact.named("model") == {"model-.onnx": artefact.path, **weights}
    (tmp_path / "net.xml").touch()
    (tmp_path / "net.bin").touch()
    assert list(Artefact.of(tmp_path / "net.xml").named("model")) == ["model.xml", "model.bin"]
    assert Format.ONNX.files(artefact.path) == (artefact.path,)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../w.bin", "`../w.bin` lie outside the model's folder"),
        ("deep/../../w.bin", "outside the model's folder"),
        ("/etc/passwd", "`/etc/passwd` lie outside the model's folder"),
        ("", "no file should have"),
        (".", "no file should have"),
        ("a\nb", "no file should have"),
        ("a\\b", "no file should have"),
        (" a", "no file should have"),
    ],
)
def test_a_place_elsewhere_is_refused(tmp_path: Path, location: str, said: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").touch()
    path = folder / "net.onnx"
    graph = helper.make_graph([], "net", [], [], [outside("w", location)])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ConfigurationError, match=said):
        find_models([path])


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = saved(folder, "w.bin")
    (folder / "w.bin").rename(tmp_path / "w.bin")
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ConfigurationError, match=r"`w\.bin` are a link out of the model's folder"):
        Artefact.of(path)
    (folder / "w.bin").unlink()
    (tmp_path / "w.bin").rename(folder / "real.bin")
    (folder / "w.bin").symlink_to("real.bin")
    assert Artefact.of(path).size_bytes == path.stat().st_size + 48


def test_a_missing_one_is_reported_with_the_model(tmp_path: Path) -> None:
    path = saved(tmp_path, "w.bin")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"its weights `w\.bin` are missing") as caught:
        find_models([path])
    assert caught.value.problems[0].place.file == str(path)
