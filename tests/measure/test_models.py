"""Model files: found, recognised, paired."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.measure.models import _LAST_FIELD, find_models, names_of, pair_twins


def tflite(path):
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 24)
    return path


def onnx_bytes():
    graph = b"\x0a\x03abc"
    return b"\x08\x0a" + b"\x3a" + bytes([len(graph)]) + graph + b"\x42\x04\x0a\x00\x10\x11"


def test_good_files_are_found(tmp_path):
    (tmp_path / "a.onnx").write_bytes(onnx_bytes())
    found = find_models([tflite(tmp_path / "a.tflite"), tmp_path / "a.onnx"])
    assert [a.format for a in found] == [Format.TFLITE, Format.ONNX]


def test_a_field_of_any_number_that_onnx_has_is_taken(tmp_path):
    configured = onnx.ModelProto(configuration=[onnx.DeviceConfigurationProto(name="two cards", num_devices=2)])
    (tmp_path / "a.onnx").write_bytes(onnx_bytes() + configured.SerializeToString())
    assert len(find_models([tmp_path / "a.onnx"])) == 1
    assert max(field.number for field in onnx.ModelProto.DESCRIPTOR.fields) == _LAST_FIELD


def test_a_file_given_twice_is_one_model(tmp_path, monkeypatch):
    path = tflite(tmp_path / "a.tflite")
    monkeypatch.chdir(tmp_path)
    assert len(find_models([path, Path("a.tflite")])) == 1


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("a/x.onnx", "b/y.onnx"), ("x.onnx", "y.onnx")),
        (("old/net.onnx", "new/net.onnx", "new/other.onnx"), ("old/net.onnx", "new/net.onnx", "other.onnx")),
        (("p/old/m/net.onnx", "p/new/m/net.onnx"), ("old/m/net.onnx", "new/m/net.onnx")),
        (("/net.onnx", "/m/net.onnx"), ("/net.onnx", "m/net.onnx")),
    ],
)
def test_files_of_one_name_are_told_apart_by_their_folders(paths, names):
    assert names_of([Path(path) for path in paths]) == names


def test_every_bad_file_is_named_at_once(tmp_path):
    tflite(tmp_path / "resnet8.tflite")
    (tmp_path / "cut.onnx").write_bytes(onnx_bytes()[:-3])
    (tmp_path / "junk.tflite").write_bytes(b"hello, this is text")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "alone.xml").write_bytes(b"<?xml version='1.0'?><net name='m'></net>")
    (tmp_path / "model.pt").write_bytes(b"x")
    names = ["resnet9.tflite", "cut.onnx", "junk.tflite", "empty.onnx", "alone.xml", "model.pt"]
    with pytest.raises(ConfigurationError) as caught:
        find_models([tmp_path / name for name in names])
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    assert f"did you mean `{tmp_path / 'resnet8.tflite'}`?" in text
    for words in (
        "part of one",
        "TFL3 is missing",
        "is empty",
        "alone.bin` are missing",
        "`.pt` files",
        "my_model.py:build",
        "edgekd export",
    ):
        assert words in text


def artefacts(*names):
    return [Artefact(path=Path(n), format=Format(n.rsplit(".", 1)[1]), sha256="0" * 64, size_bytes=1) for n in names]


def test_twins_are_paired_by_their_names():
    models = artefacts("r_f32.tflite", "r_int8.tflite", "net.onnx", "net.int8.onnx", "point8.tflite")
    assert pair_twins(models) == ((0, 1), (2, 3))


def test_formats_are_not_mixed_and_named_twins_count():
    models = artefacts("r.onnx", "r_int8.tflite")
    assert pair_twins(models) == ()
    assert pair_twins(models, [("r.onnx", "r_int8.tflite")]) == ((0, 1),)
    with pytest.raises(UnknownName, match="did you mean"):
        pair_twins(models, [("r.onx", "r_int8.tflite")])


def test_twins_are_looked_for_in_the_same_folder_first():
    models = artefacts("old/r.onnx", "old/r_int8.onnx", "new/r.onnx", "new/r_int8.onnx")
    assert pair_twins(models) == ((0, 1), (2, 3))
    assert pair_twins(artefacts("f/r.onnx", "i/r_int8.onnx")) == ((0, 1),)


def test_a_name_that_several_share_needs_its_folder():
    models = artefacts("old/r.onnx", "new/r.onnx", "small.onnx")
    with pytest.raises(UnknownName, match=r"known: new/r.onnx, old/r.onnx, small.onnx"):
        pair_twins(models, [("r.onnx", "small.onnx")])
    assert pair_twins(models, [("new/r.onnx", "small.onnx")]) == ((1, 2),)
