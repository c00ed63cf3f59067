"""Facts inside files: what is written is read back, and the model stays the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.export._protocol import ExportOptions
from edgekd.export.metadata import read_facts, write_facts
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student

FACTS = {"target": "pi5-30fps", "note": 'é < & > " \n end'}


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("exporter", "backend", "name"),
    [
        (OnnxExporter, "onnxruntime/cpu", "model.onnx"),
        (TfliteExporter, "litert/xnnpack", "model.tflite"),
        (OpenvinoExporter, "openvino/cpu", "model.xml"),
    ],
)
def test_facts_are_read_back_and_replaced(
    calibrated: dict[Precision, Student],
    tmp_path: Path,
    exporter: type[OnnxExporter | TfliteExporter | OpenvinoExporter],
    backend: str,
    name: str,
) -> None:
    path = tmp_path / name
    student = calibrated[Precision.FLOAT32]
    plain = exporter().export(student, ExportOptions(), Backend.model_validate(backend), None, path)
    assert read_facts(path) == {}
    written = write_facts(path, FACTS)
    assert written == Artefact.of(path)
    assert written.sha256 != plain.sha256
    assert read_facts(path) == FACTS
    write_facts(path, {"target": "other"})
    assert read_facts(path) == {"target": "other"}


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.xml"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model at all", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 40])
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if name == "model.onnx" and content == b"":
        assert read_facts(path) == {}  # protobuf reads nothing as an empty model
        return
    with pytest.raises(ConfigurationError, match="is not a readable"):
        read_facts(path)


def test_other_suffixes_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UnknownName):
        read_facts(tmp_path / "model.pt")
