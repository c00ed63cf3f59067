"""What a file still computes in float is what ONNX Runtime leaves in float, and what TFLite's own types say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest

from edgekd.artefacts import Backend, Precision
from edgekd.export._protocol import ExportOptions
from edgekd.export.integer import float_operators
from edgekd.export.onnx import OnnxExporter
from edgekd.export.tflite import TfliteExporter
from edgekd.students._protocol import Student

pytestmark = pytest.mark.runtime

ORT, LITERT = Backend.model_validate("onnxruntime/cpu"), Backend.model_validate("litert/xnnpack")
CHANGING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Add", "Conv", "Gemm", "GlobalAveragePool")
ENDS = ("float32", "uint8", "int8")


def kinds(operators: tuple[str, ...] | None) -> list[str]:
    assert operators is not None
    return [operator.split(" (")[0] for operator in operators]


@pytest.mark.parametrize("given", ENDS)
@pytest.mark.parametrize("given_back", ENDS)
@pytest.mark.parametrize("channels", ["alike", "apart"])
def test_onnx_runtime_leaves_in_float_what_is_said(
    calibrated: dict[Precision, Student],
    coloured: Student,
    tmp_path: Path,
    given: str,
    given_back: str,
    channels: str,
) -> None:
    student = calibrated[Precision.INT8] if channels == "alike" else coloured
    options = ExportOptions.model_validate({"input": given, "output": given_back, "layout": "nchw"})
    path = tmp_path / "model.onnx"
    OnnxExporter().export(student, options, ORT, None, path)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "fused.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    fused = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert Counter(kinds(float_operators(path))) == Counter({kind: fused[kind] for kind in CHANGING if fused[kind]})


def test_a_float_file_is_float_throughout(calibrated: dict[Precision, Student], tmp_path: Path) -> None:
    student = calibrated[Precision.FLOAT32]
    OnnxExporter().export(student, ExportOptions(), ORT, None, tmp_path / "model.onnx")
    TfliteExporter().export(student, ExportOptions(), LITERT, None, tmp_path / "model.tflite")
    assert kinds(float_operators(tmp_path / "model.onnx")).count("Conv") == 9
    assert kinds(float_operators(tmp_path / "model.tflite")).count("CONV_2D") == 9


def test_a_layer_whose_weights_stayed_float_is_float(calibrated: dict[Precision, Student], tmp_path: Path) -> None:
    """Between integer tensors, too: the pair around it is then at work."""
    student = calibrated[Precision.INT8]
    fewer = {name: found for name, found in student.annotations.weights.items() if name != "blocks.1.conv2.weight"}
    OnnxExporter().export(
        student.but(annotations=student.annotations.but(weights=fewer)),
        ExportOptions(input="uint8", output="uint8"),
        ORT,
        None,
        tmp_path / "model.onnx",
    )
    assert kinds(float_operators(tmp_path / "model.onnx")) == ["DequantizeLinear", "Conv", "QuantizeLinear"]


@pytest.mark.parametrize(
    ("given", "given_back", "left"),
    [
        ("int8", "int8", []),
        ("uint8", "uint8", []),
        ("float32", "uint8", ["MUL", "ADD", "QUANTIZE"]),
        ("uint8", "float32", ["DEQUANTIZE"]),
    ],
)
def test_tflite_counts_what_a_float_end_takes(
    calibrated: dict[Precision, Student], tmp_path: Path, given: str, given_back: str, left: list[str]
) -> None:
    options = ExportOptions.model_validate({"input": given, "output": given_back})
    TfliteExporter().export(calibrated[Precision.INT8], options, LITERT, None, tmp_path / "model.tflite")
    assert kinds(float_operators(tmp_path / "model.tflite")) == left
